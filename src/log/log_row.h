/*
 * log_row.h
 *		Columns of behavior.log by number, and an event in memory.
 */
#ifndef BEHAVIOR_LOG_ROW_H
#define BEHAVIOR_LOG_ROW_H

#include "access/htup.h"
#include "datatype/timestamp.h"

enum
{
	LOG_OCCURRED_AT = 1,
	LOG_RECEIVED_AT,
	LOG_BATCH_ID,
	LOG_SEQUENCE,
	LOG_EVENT_ID,
	LOG_SOURCE,
	LOG_TYPE,
	LOG_USER_ID,
	LOG_ANONYMOUS_ID,
	LOG_PROPERTIES,
	LOG_CONTEXT,
	LOG_HOPS,
	LOG_NATTS = LOG_HOPS
};

/* values[LOG_X - 1], isnull[LOG_X - 1]; by-reference values and the tuple live in the caller's
 * memory. */
typedef struct LogRow
{
	Datum values[LOG_NATTS];
	bool isnull[LOG_NATTS];
	HeapTuple tuple; /* the same values, as a page keeps them */
} LogRow;

#endif

/*
 * log_row.h
 *		Columns of behavior.log by number, and an event in memory.
 */
#ifndef BEHAVIOR_LOG_ROW_H
#define BEHAVIOR_LOG_ROW_H

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
	LOG_NATTS = LOG_CONTEXT
};

/* values[LOG_X - 1], isnull[LOG_X - 1]; by-reference values live in the caller's context. */
typedef struct LogRow
{
	Datum values[LOG_NATTS];
	bool isnull[LOG_NATTS];
} LogRow;

#endif

/*
 * dead_letter_row.h
 *		Rows of behavior.dead_letter and their entries in its indexes.
 *
 * Internal to dead_letter*.c.
 */
#ifndef BEHAVIOR_DEAD_LETTER_ROW_H
#define BEHAVIOR_DEAD_LETTER_ROW_H

#include "access/htup.h"
#include "utils/relcache.h"

enum
{
	DEAD_LETTER_ID = 1,
	DEAD_LETTER_BATCH_ID,
	DEAD_LETTER_FAILED_AT,
	DEAD_LETTER_STAGE,
	DEAD_LETTER_REASON,
	DEAD_LETTER_DETAIL,
	DEAD_LETTER_ERRORS,
	DEAD_LETTER_SOURCE,
	DEAD_LETTER_TYPE,
	DEAD_LETTER_EVENT_ID,
	DEAD_LETTER_PAYLOAD,
	DEAD_LETTER_PROJECTION,
	DEAD_LETTER_ATTEMPTS,
	DEAD_LETTER_REDRIVEN_AT,
	DEAD_LETTER_PREVIOUS,
	DEAD_LETTER_RECEIVED_AT,
	DEAD_LETTER_SENT_WITH,
	DEAD_LETTER_PAYLOAD_INTACT,
	DEAD_LETTER_NATTS = DEAD_LETTER_PAYLOAD_INTACT
};

/* Writes rows, which stand in memory of their own each and are freed. */
extern void dead_letter_rows_insert(Relation rel, HeapTuple *rows, int n);

#endif

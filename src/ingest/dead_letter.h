/*
 * dead_letter.h
 *		Keeps events that were refused, could not be folded or could not be delivered.
 */
#ifndef BEHAVIOR_DEAD_LETTER_H
#define BEHAVIOR_DEAD_LETTER_H

#include "core/errors.h"

#define DEAD_LETTER_MAX_PAYLOAD (1024 * 1024) /* bytes kept of a payload */

typedef struct DeadLetter
{
	int64 batch_id;
	const char *stage; /* "ingest", "fold", "delivery" */
	Reason reason;
	const char *detail; /* NULL allowed, as for all below; UTF-8 */
	const char *source;
	const char *type;
	const char *event_id;
	const char *payload; /* cut at DEAD_LETTER_MAX_PAYLOAD, detail then says so */
	size_t payload_length;
	const char *projection;
} DeadLetter;

/*
 * Stores a dead letter and returns its id.  Bytes that a text column cannot hold (NUL, invalid
 * UTF-8) are replaced by \xNN escapes and detail says so.
 */
extern int64 dead_letter_insert(const DeadLetter *letter);

#endif

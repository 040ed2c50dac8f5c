/*
 * dead_letter.h
 *		Keeps events that were refused, could not be folded or could not be delivered.
 */
#ifndef BEHAVIOR_DEAD_LETTER_H
#define BEHAVIOR_DEAD_LETTER_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

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
	bool payload_abridged; /* already before it came here */
	const char *projection;
	Jsonb *errors;	  /* each thing that is wrong, where there is a list of them */
	Jsonb *sent_with; /* what came with the payload and is not in it, for behavior.redrive() */
	int attempts;	  /* so far, this one included; 0: this is the first */
	int64 previous;	  /* the dead letter that it was sent again from; 0: none */
	TimestampTz received_at; /* when the event came first; 0: now */
} DeadLetter;

/*
 * Stores a dead letter and returns its id.  Bytes that a text column cannot hold (NUL, invalid
 * UTF-8) are replaced by \xNN escapes and detail says so.
 */
extern int64 dead_letter_insert(const DeadLetter *letter);

/*
 * The same for letters that wait to be written together, so that they meet each page of the
 * indexes once.  dead_letters_add() returns a letter's id; it writes by itself what has
 * become much.  *letters is NULL at first and lives in the context; dead_letters_write() has to
 * be called before the statement ends.
 */
typedef struct DeadLetters DeadLetters;
extern int64
dead_letters_add(DeadLetters **letters, MemoryContext context, const DeadLetter *letter);
extern void dead_letters_write(DeadLetters *letters);

/*
 * For stages fold and delivery, before dead_letter_insert(): when the newest letter of the same
 * event and projection has been sent again ("redriven", or is being sent right now), this one
 * continues its history.
 */
extern void dead_letter_continue(DeadLetter *letter, bool redriven);

#endif

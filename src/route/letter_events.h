/*
 * letter_events.h
 *		Finds the events that dead letters of stages delivery and fold are about in the log.
 *
 * A letter names its event by batch, source and event_id.  The events of the batches are read, and
 * each batch once, however many letters it has: the cost is that of the batches, not of the
 * letters.
 */
#ifndef BEHAVIOR_LETTER_EVENTS_H
#define BEHAVIOR_LETTER_EVENTS_H

#include "access/htup.h"
#include "route/queue.h"
#include "route/redrive.h"

typedef struct LetterEvent
{
	int64 batch_id;
	const char *source;
	const char *event_id;
	HeapTuple row; /* of behavior.log; NULL: the event is gone */
	EventRef ref;  /* where it is */
} LetterEvent;

/* The events of n letters, in the current context; two letters may be about the same event. */
extern LetterEvent *letter_events_of(RedriveLetter **letters, int n);

/* Hands letters on by projection, in the order of their ids within one. */
extern void redrive_by_projection(RedriveLetter **letters, int n,
								  void (*redrive)(RedriveLetter **letters, int n));

#endif

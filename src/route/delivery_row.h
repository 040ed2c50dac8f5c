/*
 * delivery_row.h
 *		Rows of behavior._delivery: events of a subscription that have a state of their own.
 *
 * All of this is done under the subscription's lock, and looks with SnapshotSelf: at what is
 * committed and what this transaction has done, up to the last call.
 */
#ifndef BEHAVIOR_DELIVERY_ROW_H
#define BEHAVIOR_DELIVERY_ROW_H

#include "route/queue.h"
#include "route/subscription.h"

#define DELIVERY_HELD	   'h' /* ordered: until it is its turn; due_at is occurred_at */
#define DELIVERY_RETRY	   'r' /* to be tried at due_at; infinity: behind another one of its actor */
#define DELIVERY_IN_FLIGHT 'f' /* received; given out again at due_at */

typedef struct DeliveryRow
{
	int64 delivery_id;
	int64 subscription_id;
	char state;
	TimestampTz due_at;
	int attempts; /* so far */
	bool late;
	TimestampTz first_attempt_at; /* 0: none */
	const char *error;			  /* NULL: none */
	EventRef ref;

	/* Of the event: what it is ordered by. */
	TimestampTz occurred_at;
	bool has_sequence;
	int64 sequence;
	text *event_id;
	text *source;
	text *actor; /* NULL: none */

	ItemPointerData tid; /* where the row is */
} DeliveryRow;

/* What is known of the event itself, from its row in behavior.log; not copied. */
extern void delivery_row_set_event(DeliveryRow *row, HeapTuple event);

/* Everything but tid is given; insert fills it. */
extern void delivery_row_insert(DeliveryRow *row);
extern void delivery_rows_insert(DeliveryRow *rows, int n);
/* In place of the one at row->tid: state, due_at, attempts, late, first_attempt_at and error may
 * have changed. */
extern void delivery_row_update(DeliveryRow *row);
extern void delivery_row_delete(const DeliveryRow *row);

/*
 * Locks a row that was found.  False when it has been changed since, or, without wait, when
 * somebody is about to: behavior.ack() deletes rows of pull subscriptions without the
 * subscription's lock.
 */
extern bool delivery_row_lock(const DeliveryRow *row, bool wait);

/* By its id; false when there is none.  Results here and below are in the current context. */
extern bool delivery_row_find(int64 delivery_id, DeliveryRow *row);

/*
 * Rows in one state with from <= due_at <= upto, by due_at, at most max; returns how many.  from:
 * progress->due_from, behind what an old snapshot keeps of rows that have gone, or 0.
 */
extern int delivery_rows_due(int64 subscription_id, char state, TimestampTz from, TimestampTz upto,
							 DeliveryRow *rows, int max);
/* When the first row in this state is due; DT_NOEND for never.  Snapshot: SnapshotSelf under the
 * lock. */
extern TimestampTz
delivery_rows_next_due(int64 subscription_id, char state, TimestampTz from, Snapshot snapshot);

/*
 * Rows in state DELIVERY_HELD that occurred from "from" to "upto", in the order of events, at most
 * max.
 */
extern int delivery_rows_held(int64 subscription_id, TimestampTz from, TimestampTz upto,
							  DeliveryRow *rows, int max);

/* The first row, in the order of events, of row's actor in a state; false when there is none. */
extern bool delivery_row_of_actor(const DeliveryRow *row, char state, DeliveryRow *first);

/* In the order of events: < 0 when a comes first. */
extern int delivery_row_compare(const DeliveryRow *a, const DeliveryRow *b);

/* Subscriptions between two ids that have a row, ascending; a list of int64 *.  Without any lock.
 */
extern List *delivery_row_subscriptions(int64 after, int64 before, Snapshot snapshot);

#endif

/*
 * delivery.h
 *		Hands events to their consumers: effects and progress in one transaction.
 *
 *	delivery.c			a step of a push subscription; all of them, for tick()
 *	delivery_due.c		which push subscriptions have work
 *	delivery_take.c		the next events of a subscription: those to be tried again, then the queue
 *	delivery_order.c	ordered subscriptions: held until it is their turn, in order of events
 *	delivery_retry.c	what failed: tried again later, and in the end a dead letter
 *	delivery_call.c		calling a handler
 *	delivery_datum.c	events as SQL sees them
 *	delivery_row.c		rows of behavior._delivery
 *
 * In one subscription, what waits to be tried again comes before the queue, one event a step.  A
 * batch that fails is halved until the event that breaks it is alone (SubscriptionProgress.poison);
 * only an event that failed alone counts as an attempt.  So no event suffers from another, but that
 * an ordered subscription keeps the order of an actor's events.
 */
#ifndef BEHAVIOR_DELIVERY_H
#define BEHAVIOR_DELIVERY_H

#include "core/errors.h"
#include "route/delivery_row.h"
#include "route/queue.h"
#include "route/subscription.h"

typedef enum DeliveryResult
{
	DELIVERY_IDLE, /* nothing can be delivered now; *next_due says when something might */
	DELIVERY_MORE, /* something was done: commit, and call again */
	DELIVERY_BUSY  /* somebody else has the subscription */
} DeliveryResult;

/*
 * One step of one push subscription, in the caller's transaction, which it commits right after,
 * whatever the result.  READ COMMITTED, with no other subscription's lock held.  At most one call
 * of the handler; what that raises is caught, noted with the subscription, and the events are tried
 * again.  Passed on are errors that are not the handler's: a cancel or the end of the process, and
 * those of our own tables; then the caller leaves the subscription alone for a while and goes on
 * with others.
 *
 * wait: wait for whoever has the subscription, and try one that cannot work (its handler is gone,
 * say) although it was tried a moment ago.  *next_due: PG_INT64_MAX when only a new event can bring
 * work.
 */
extern DeliveryResult delivery_step(int64 subscription_id, bool wait, TimestampTz *next_due);

/*
 * Delivers all that can be delivered now of all push subscriptions, as projection_fold_all() with
 * its conventions: own_transactions commits after each step.  Not within a handler.
 */
extern void delivery_all(bool own_transactions);

/*
 * Push subscriptions for which delivery_step() would do something now, as a list of ids (palloc'd
 * int64 *), by id; *next_due: when the next might.  Looks at those only that have something queued
 * or waiting.  In a transaction; writes nothing.
 */
extern List *delivery_due(TimestampTz *next_due);

/* Raises 25001 when called by a handler: "what" cannot run inside one. */
extern void delivery_forbid_in_handler(const char *what);

/* One event on its way. */
typedef struct DeliveryItem
{
	QueueEntry entry; /* with its row */
	int attempt;	  /* 1: the first */
	bool late;
	bool own_row;	  /* it stands in behavior._delivery, not in the queue */
	DeliveryRow *own; /* that row, when own_row */
} DeliveryItem;

/*
 * What delivery (push) and receive() (pull) share, under the subscription's lock: *progress is
 * moved in memory and written by the caller (also when nothing was taken: *moved then says whether
 * there is anything to write).
 *
 * delivery_take() gives the next events that may be delivered now, at most "max", with rows
 * fetched in the current context: those to be tried again, whose visibility timeout is over, those
 * of the queue, and for an ordered subscription those whose turn it is.  Each is to be passed to
 * one of the functions below before the next delivery_take().
 */
extern int delivery_take(const Subscription *subscription, SubscriptionProgress *progress,
						 DeliveryItem *items, int max, bool *moved, TimestampTz *next_due);

/* They were delivered: passes over them, and counts them. */
extern void delivery_done(const Subscription *subscription, SubscriptionProgress *progress,
						  const DeliveryItem *items, int n);

/*
 * They were given out and are not done: each gets a row in behavior._delivery with this state,
 * due_at, and one attempt more.
 */
extern void delivery_keep(const Subscription *subscription, SubscriptionProgress *progress,
						  const DeliveryItem *items, int n, char state, TimestampTz due_at);

/* This one failed: to be tried again, or a dead letter of stage delivery. */
extern void delivery_failed(const Subscription *subscription, SubscriptionProgress *progress,
							const DeliveryItem *item, const char *error);

/*
 * A row in behavior._delivery ends, since its event was delivered, acknowledged or given up: it is
 * deleted, and the next event of its actor that waited for it is due.
 */
extern void delivery_row_done(const DeliveryRow *row);

/* Is one of the limits of the subscription reached?  *reason: for the dead letter. */
extern bool delivery_exhausted(const Subscription *subscription, int attempts,
							   TimestampTz first_attempt_at, Reason *reason);

/* The dead letter of an event (a row of behavior.log) that is given up; counts it. */
extern void delivery_dead_letter(const Subscription *subscription, SubscriptionProgress *progress,
								 HeapTuple event, Reason reason, int attempts, const char *error);

/* Rows of type behavior.event and behavior.delivery for SQL. */
extern Datum delivery_event_datum(const DeliveryItem *item);
extern Datum delivery_datum(const Subscription *subscription, const DeliveryItem *item);
extern int delivery_item_hops(const DeliveryItem *item); /* 0: none */

#endif

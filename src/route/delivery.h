/*
 * delivery.h
 *		Hands events to their consumers: effects and progress in one transaction.
 */
#ifndef BEHAVIOR_DELIVERY_H
#define BEHAVIOR_DELIVERY_H

#include "route/queue.h"
#include "route/subscription.h"

typedef enum DeliveryResult
{
	DELIVERY_IDLE, /* nothing can be delivered now; *next_due says when something might */
	DELIVERY_MORE, /* something was done: commit, and call again */
	DELIVERY_BUSY  /* somebody else has the subscription */
} DeliveryResult;

/*
 * One step of one push subscription, in the caller's transaction, which it commits right after.
 * At most one call of the handler; what it raises is caught.  *next_due: PG_INT64_MAX when only a
 * new event can bring work.
 */
extern DeliveryResult delivery_step(int64 subscription_id, bool wait, TimestampTz *next_due);

/* Delivers all that can be delivered now of all push subscriptions, as projection_fold_all() with
 * its conventions. */
extern void delivery_all(bool own_transactions);

/* Push subscriptions for which delivery_step() would do something now, as a list of ids (palloc'd
 * int64 *); *next_due: when the next might. */
extern List *delivery_due(TimestampTz *next_due);

/* How deep in handlers the events sent now are: 0 outside; the hop count that a stored event gets.
 */
extern int delivery_hops(void);

/*
 * What delivery (push) and receive() (pull) share: *progress is moved in memory and written by the
 * caller.
 *
 * delivery_take() gives the next entries that may be delivered now, at most "max", with rows
 * fetched: events to be tried again,
 * those of the queue, and for an ordered subscription those whose turn it is.
 */
typedef struct DeliveryItem
{
	QueueEntry entry;
	int attempt; /* 1: the first */
	bool late;
	bool own_row; /* it stands in behavior._delivery, not in the queue */
} DeliveryItem;

extern int delivery_take(const Subscription *subscription, SubscriptionProgress *progress,
						 Snapshot snapshot, DeliveryItem *items, int max, TimestampTz *next_due);

/* They were delivered: passes over them. */
extern void delivery_done(const Subscription *subscription, SubscriptionProgress *progress,
						  const DeliveryItem *items, int n);

/* This one failed: to be tried again, or a dead letter of stage delivery. */
extern void delivery_failed(const Subscription *subscription, SubscriptionProgress *progress,
							const DeliveryItem *item, const char *error);

/* Rows of type behavior.event and behavior.delivery for SQL. */
extern Datum delivery_event_datum(const DeliveryItem *item);
extern Datum delivery_datum(const Subscription *subscription, const DeliveryItem *item);

#endif

/*
 * delivery_internal.h
 *		What the parts of delivery share among themselves.
 */
#ifndef BEHAVIOR_DELIVERY_INTERNAL_H
#define BEHAVIOR_DELIVERY_INTERNAL_H

#include "route/delivery.h"

/* Set while delivery_all() commits each step by itself. */
extern bool delivery_own_transactions;

/* delivery_due(); broken: those, too, that rest since they cannot work. */
extern List *delivery_list_due(bool broken, TimestampTz *next_due);
/* Does it rest because it cannot work, and not because of its events? */
extern bool delivery_rests_broken(const SubscriptionProgress *progress, TimestampTz now);
/* Are there enough events in the queue, or have they waited long enough?  Else *next_due. */
extern bool
delivery_window_is_over(const Subscription *subscription, const SubscriptionProgress *progress,
						TimestampTz now, TimestampTz *next_due);

/* The two halves of delivery_take(): what has a row that is due, and the queue. */
extern int delivery_take_due(const Subscription *subscription, SubscriptionProgress *progress,
							 DeliveryItem *items, int max, bool *moved, TimestampTz *next_due);
extern int delivery_take_new(const Subscription *subscription, SubscriptionProgress *progress,
							 DeliveryItem *items, int max, bool *moved, TimestampTz *next_due);

/*
 * Fetches events of the queue, at most max and all before the first that is gone; passes over
 * those that are gone at the beginning, *moved then.  Returns how many.
 */
extern int delivery_peek(const Subscription *subscription, SubscriptionProgress *progress,
						 QueueEntry *entries, int max, bool *moved);

/* Queues the next slice of what the subscription replays, when it does; *moved then. */
extern void
delivery_replay(const Subscription *subscription, SubscriptionProgress *progress, bool *moved);

/* delivery_take_new() of an ordered subscription. */
extern int delivery_take_ordered(const Subscription *subscription, SubscriptionProgress *progress,
								 DeliveryItem *items, int max, bool *moved, TimestampTz *next_due);
/* Takes rows that are held and occurred up to "upto". */
extern int delivery_take_held(const Subscription *subscription, SubscriptionProgress *progress,
							  TimestampTz upto, DeliveryItem *items, int max, bool *moved);
/* Are there as many as a batch whose turn it is, or have they waited long enough? */
extern bool delivery_held_ready(const Subscription *subscription,
								const SubscriptionProgress *progress, TimestampTz *next_due);
/* Is there an earlier event of the row's actor that waits or is in flight? */
extern bool delivery_row_blocked(const DeliveryRow *row);

/* Makes an item of a row that stands in behavior._delivery; false when its event is gone. */
extern bool delivery_item_of_row(DeliveryItem *item, const DeliveryRow *row, Snapshot snapshot);
/* The row that an item of the queue would have. */
extern void
delivery_row_of_item(const Subscription *subscription, const DeliveryItem *item, DeliveryRow *row);

/* Notes a failure with the subscription; a WARNING when it is the first of an episode. */
extern void delivery_note_failure(const Subscription *subscription, SubscriptionProgress *progress,
								  const char *error);
/* The time to wait after so many failures, from behavior.retry_delay, with jitter; us. */
extern int64 delivery_backoff(int failures);

/* The type of what a handler gets an array of: behavior.delivery or behavior.event. */
extern Oid delivery_element_type(bool delivery);

typedef enum CallResult
{
	CALL_DONE,
	CALL_GONE,	 /* the handler has dropped its subscription */
	CALL_FAILED, /* it raised or took too long; what it did is undone */
	CALL_BROKEN	 /* it cannot be called at all */
} CallResult;

/* Calls the handler; *error is set, in the current context, when it failed or is broken. */
extern CallResult
delivery_call(const Subscription *subscription, const SubscriptionProgress *progress,
			  const DeliveryItem *items, int n, char **error);

#endif

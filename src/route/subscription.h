/*
 * subscription.h
 *		Subscriptions: who gets which events, and how far each has come.
 *
 * The way of an event to its consumers:
 *
 * router (router.h): after each tick, in the database's worker or tick(), matches the tick's events
 * against all subscriptions at once, appends references to those that match to their queues, and
 * notifies those that got some.
 *
 * queue (queue.h): behavior._delivery_chunk, references in the order of ticks, many a row.
 *
 * delivery (delivery.h): a step takes the next of one queue, calls the handler, and moves the
 * subscription's progress, in one transaction; or receive() does so for a consumer.
 *
 * behavior._delivery: one row for each event that needs a state of its own: held until it is its
 * turn (ordered), to be tried again, or received and not yet acknowledged.
 *
 * The lock of a subscription, its number on behavior._subscription, is held by whoever delivers
 * or changes it, until his transaction ends, unless he found nothing to do.  Under it, progress is
 * read with the latest snapshot.
 */
#ifndef BEHAVIOR_SUBSCRIPTION_H
#define BEHAVIOR_SUBSCRIPTION_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "storage/itemptr.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"

#include "log/batch_set.h"

typedef struct Subscription
{
	int64 id;
	char *name;
	char *owner_name;
	Oid owner; /* InvalidOid: there is no role of that name */
	Jsonb *pattern;
	char *handler;		 /* NULL: consumers call receive() */
	bool takes_delivery; /* the handler's argument is behavior.delivery[], else behavior.event[] */
	int batch_size;
	int64 batch_window; /* us */
	bool ordered;
	int64 reorder_window; /* us */
	int max_attempts;
	int64 max_age; /* us, since the first attempt */
	bool has_start_at;
	TimestampTz start_at; /* events that occurred before are not delivered */
	bool reserved_worker;
	bool paused;
	int64 joined_tick;	/* events of later ticks are routed, those up to it replayed; -1: the router
						   has not seen it */
	int64 created_tick; /* the last one when it was created */
	char *route_error;	/* the router's, which has set it aside; NULL: none */
	BatchSet *skip_batches; /* not routed, since they came before it; NULL: none */
} Subscription;

/*
 * How far a subscription has come: one row, made with the subscription and replaced by each step
 * (subscription_progress.c).
 *
 * Always consumed = delivered + dead_letters + the subscription's rows in behavior._delivery, so
 * that matched = delivered + dead_letters + waiting: who takes a dead letter back into
 * behavior._delivery subtracts it from dead_letters.
 */
typedef struct SubscriptionProgress
{
	int64 step;			   /* 0: there is no row */
	ItemPointerData tid;   /* of the row */
	bool replaying;		   /* events up to joined_tick are being replayed */
	TimestampTz replay_at; /* those that occurred before this have been queued */
	bool live;		/* position is in the live part of the queue, and that of the replay over */
	int64 position; /* the next delivery_id of that part: those below are consumed */
	int poison;		/* so many events from there on are known to hold one that fails; 0: none */
	int failures;	/* single events that failed in a row, without one that succeeded */
	TimestampTz resume_at; /* the queue rests until then; 0: it does not */
	TimestampTz watermark; /* ordered: all up to this have been delivered */
	int64 consumed;		   /* events taken from the queue */
	int64 delivered;
	int64 failed; /* attempts that failed, of single events */
	int64 dead_letters;
	int64 late;
	TimestampTz failing_since; /* 0: it is not failing */
	char *last_error;		   /* NULL: none */
	TimestampTz due_from;	   /* no row that waits or is in flight was due before; 0: not known */
} SubscriptionProgress;

/* Catalog (subscription_catalog.c); results are in the current context, NULL when there is none. */
extern Subscription *subscription_find(const char *name, Snapshot snapshot);
extern Subscription *subscription_get(int64 id, Snapshot snapshot);
extern List *subscription_list(Snapshot snapshot); /* all, by id */

/* As subscription_find(), raising 42704 when there is none and 42501 unless the caller may act for
 * its owner. */
extern Subscription *subscription_of_caller(const char *name, Snapshot snapshot);

/* Is there a subscription at all?  Cheap. */
extern bool subscription_any(void);

/* The subscription's lock; without wait false when somebody has it. */
extern bool subscription_lock(int64 id, bool wait);
extern void subscription_unlock(int64 id);

/* May this role (a subscription's owner) be shown events?  Else delivery fails with 42501. */
extern bool subscription_may_read(Oid role);

/*
 * Progress.  The reader has the subscription's lock and passes the latest snapshot.  The move
 * writes what *progress says as a new row, deletes the old one, and fills step and tid.
 */
extern void subscription_progress_read(int64 id, Snapshot snapshot, SubscriptionProgress *progress);
extern void subscription_progress_move(int64 id, SubscriptionProgress *progress);

#endif

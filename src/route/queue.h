/*
 * queue.h
 *		What has been routed to a subscription and not been consumed: references to events of the
 *		log.
 *
 * A reference is the place of the row, the batch, and eight bytes of the event's key.  The place is
 * a hint: when another row or none is there (a partition was rewritten, moved, restored), the
 * events of the batch are read and the reference is found again by its key.
 *
 * References lie packed, up to QUEUE_CHUNK a row, in behavior._delivery_chunk; each has a
 * delivery_id, ascending in the order of delivery, unique over all subscriptions.
 */
#ifndef BEHAVIOR_QUEUE_H
#define BEHAVIOR_QUEUE_H

#include "access/htup.h"
#include "storage/block.h"
#include "storage/off.h"

#include "route/subscription.h"

#define QUEUE_CHUNK 250 /* references of a row, which so stays in its page */

/* On disk as well, in this order, 28 bytes, native byte order. */
typedef struct EventRef
{
	int32 partition_day; /* as in Extent (log/log_reader.h) */
	uint32 block;
	uint32 line;
	uint32 key_low; /* of the first 8 bytes of event_key_hash() */
	uint32 key_high;
	uint32 batch_low;
	uint32 batch_high;
} EventRef;

typedef struct QueueEntry
{
	int64 delivery_id;
	EventRef ref;
	HeapTuple row;		   /* of behavior.log; filled by queue_fetch(), NULL: the event is gone */
	bool live;			   /* which part of the queue; this and what follows is the queue's own */
	bool last;			   /* of its row */
	ItemPointerData chunk; /* the row of behavior._delivery_chunk */
} QueueEntry;

extern EventRef
event_ref_make(int32 partition_day, ItemPointer tid, int64 batch_id, const uint8 *key);
extern int64 event_ref_batch(const EventRef *ref);

/*
 * Appends n references, from the router (live) or from a replay, whose part of the queue comes
 * first.  Each row takes QUEUE_CHUNK delivery ids from behavior._delivery_id_seq, which counts in
 * such steps: ids ascend, with gaps.
 */
extern void
queue_append(int64 subscription_id, bool live, int64 tick_id, const EventRef *refs, int n);

/*
 * The next entries from progress->position on, at most max; how many there were.  Under the
 * subscription's lock.  While progress->replaying only what the replay has queued: when there is
 * less than the caller wants he calls replay_step() (router.h) and looks again.
 */
extern int queue_peek(const Subscription *subscription, const SubscriptionProgress *progress,
					  Snapshot snapshot, QueueEntry *entries, int max);

/*
 * Passes over the first n of the entries just peeked: moves live, position and consumed of progress
 * (in memory) and deletes the rows that are done.  In the transaction of the peek.
 */
extern void queue_pass(const Subscription *subscription, SubscriptionProgress *progress,
					   const QueueEntry *entries, int n);

/* Events waiting from the position on: counted up to "limit"; *oldest: when the first of them was
 * queued. */
extern int64 queue_waiting(int64 subscription_id, const SubscriptionProgress *progress,
						   Snapshot snapshot, int64 limit, TimestampTz *oldest);

/* Fetches the events, in the current context, without pointers to toast. */
extern void queue_fetch(QueueEntry *entries, int n, Snapshot snapshot);

#endif

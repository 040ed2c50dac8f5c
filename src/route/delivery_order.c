/*
 * delivery_order.c
 *		Ordered subscriptions: events are held until it is their turn.
 *
 * Everything in the queue is taken out of it before anything is released: it becomes rows of
 * behavior._delivery, and those that occurred up to now - reorder_window are delivered in the order
 * of events.  While a replay goes on that is bounded by how far it has come, so that the order
 * holds over its slices and the seam.
 *
 * The watermark is the time up to which everything held has been released.  It never goes back.
 * An event behind it is delivered at once, straight from the queue.  So all rows that are held lie
 * at the watermark or above, where a scan for them begins: what was released and is still seen by
 * old snapshots lies below.  Late is an event behind the watermark, and one that arrived later than
 * the window after it occurred, though its order may be kept.  A deliverer that was stopped for an
 * hour makes nothing late.
 *
 * An event whose actor has an earlier one that is to be tried again, or is in flight, waits behind
 * that: it is itself to be tried again, due never, until the other's row goes (delivery_row_done()).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "common/int.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "log/log_row.h"
#include "route/delivery_internal.h"

#define INTAKE_MAX 1000 /* events a step takes out of the queue */

/* 0 means that there is none yet: everything lies above it. */
static TimestampTz
watermark_of(const Subscription *subscription, const SubscriptionProgress *progress)
{
	return subscription->ordered && progress->watermark != 0 ? progress->watermark : DT_NOBEGIN;
}

/* When an event that occurred at "occurred_at" has been held long enough. */
static TimestampTz
turn_of(const Subscription *subscription, TimestampTz occurred_at)
{
	TimestampTz turn;

	return pg_add_s64_overflow(occurred_at, subscription->reorder_window, &turn) ? DT_NOEND : turn;
}

/* In which order what waits keeps others back. */
static const char waiting_states[] = {DELIVERY_RETRY, DELIVERY_IN_FLIGHT};

bool
delivery_row_blocked(const DeliveryRow *row)
{
	for (int i = 0; i < lengthof(waiting_states); i++)
	{
		DeliveryRow first;

		if (delivery_row_of_actor(row, waiting_states[i], &first) &&
			first.delivery_id != row->delivery_id && delivery_row_compare(&first, row) < 0)
			return true;
	}
	return false;
}

/* Does anything of the subscription wait to be tried again, or is in flight? */
static bool
anything_waits(int64 subscription_id, TimestampTz from)
{
	for (int i = 0; i < lengthof(waiting_states); i++)
	{
		DeliveryRow row;

		if (delivery_rows_due(subscription_id, waiting_states[i], from, DT_NOEND, &row, 1) > 0)
			return true;
	}
	return false;
}

static void
wait_behind(DeliveryRow *row)
{
	row->state = DELIVERY_RETRY;
	row->due_at = DT_NOEND;
}

/* Is the event of a row behind the watermark?  Marks it as late, and one that came late as well. */
static bool
is_behind(const Subscription *subscription, const SubscriptionProgress *progress,
		  const QueueEntry *entry, DeliveryRow *row)
{
	Relation log = table_open(behavior_relid(REL_LOG), AccessShareLock);
	bool isnull;
	TimestampTz received_at = DatumGetTimestampTz(
		heap_getattr(entry->row, LOG_RECEIVED_AT, RelationGetDescr(log), &isnull));
	bool behind = row->occurred_at <= watermark_of(subscription, progress);

	table_close(log, AccessShareLock);
	row->late =
		behind || (entry->live && received_at - row->occurred_at > subscription->reorder_window);
	return behind;
}

/*
 * Takes what is at the head of the queue out of it.  A run of events behind the watermark is
 * returned as items, at most max of them; else everything becomes rows, *moved then: held, or due
 * at once when it is behind.
 */
static int
intake(const Subscription *subscription, SubscriptionProgress *progress, DeliveryItem *items,
	   int max, bool *moved)
{
	QueueEntry *entries = palloc(sizeof(QueueEntry) * INTAKE_MAX);
	int n = delivery_peek(subscription, progress, entries, INTAKE_MAX, moved);
	bool waits = n > 0 && anything_waits(subscription->id, progress->due_from);
	TimestampTz now = GetCurrentTimestamp();
	DeliveryRow *rows = palloc(sizeof(DeliveryRow) * Max(n, 1));
	int held = 0;
	int taken = 0;

	for (int i = 0; i < n; i++)
	{
		DeliveryItem item = {0};
		DeliveryRow *row = &rows[held];
		bool behind;
		bool blocked;

		item.entry = entries[i];
		item.attempt = 1;
		delivery_row_of_item(subscription, &item, row);
		behind = is_behind(subscription, progress, &entries[i], row);
		item.late = row->late;
		blocked = behind && waits && delivery_row_blocked(row);
		if (behind && !blocked && held == 0 && taken < max)
		{
			items[taken++] = item;
			continue;
		}
		if (taken > 0)
			break;
		row->state = behind ? DELIVERY_RETRY : DELIVERY_HELD;
		row->due_at = blocked ? DT_NOEND : behind ? now : row->occurred_at;
		held++;
	}
	if (held > 0)
	{
		delivery_rows_insert(rows, held);
		queue_pass(subscription, progress, entries, held);
		CommandCounterIncrement();
		*moved = true;
	}
	return taken;
}

int
delivery_take_held(const Subscription *subscription, SubscriptionProgress *progress,
				   TimestampTz upto, DeliveryItem *items, int max, bool *moved)
{
	DeliveryRow *rows = palloc(sizeof(DeliveryRow) * (max + 1));
	TimestampTz watermark = watermark_of(subscription, progress);
	int n = delivery_rows_held(subscription->id, watermark, upto, rows, max + 1);
	bool waits =
		subscription->ordered && n > 0 && anything_waits(subscription->id, progress->due_from);
	Snapshot snapshot;
	int taken = 0;

	if (n == 0)
		return 0;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	for (int i = 0; i < Min(n, max); i++)
	{
		if (waits && delivery_row_blocked(&rows[i]))
		{
			wait_behind(&rows[i]);
			delivery_row_update(&rows[i]);
			*moved = true;
		}
		else if (delivery_item_of_row(&items[taken], &rows[i], snapshot))
			taken++;
		else
		{
			delivery_row_done(&rows[i]);
			progress->consumed--;
			*moved = true;
		}
	}
	UnregisterSnapshot(snapshot);
	if (subscription->ordered)
	{
		watermark = Max(watermark, n > max ? rows[max - 1].occurred_at : upto);
		progress->watermark = watermark != 0 ? watermark : -1;
	}
	return taken;
}

/* Up to when may events be released now? */
static TimestampTz
release_upto(const Subscription *subscription, const SubscriptionProgress *progress)
{
	TimestampTz upto = GetCurrentTimestamp() - subscription->reorder_window;

	/* Those that occurred at replay_at have not been queued. */
	if (progress->replaying)
		upto = TIMESTAMP_IS_NOBEGIN(progress->replay_at) ? DT_NOBEGIN
														 : Min(upto, progress->replay_at - 1);
	return upto;
}

bool
delivery_held_ready(const Subscription *subscription, const SubscriptionProgress *progress,
					TimestampTz *next_due)
{
	TimestampTz now = GetCurrentTimestamp();
	int64 window = subscription->handler != NULL ? subscription->batch_window : 0;
	DeliveryRow first;
	DeliveryRow *rows;
	TimestampTz watermark = watermark_of(subscription, progress);
	TimestampTz due;

	if (delivery_rows_held(subscription->id, watermark, DT_NOEND, &first, 1) == 0)
		return false;
	due = turn_of(subscription, first.occurred_at);
	if (due <= now && window > 0 && progress->poison == 0 && !progress->replaying)
	{
		/* What waits for its batch to fill may have been waiting since before it was held. */
		rows = palloc(sizeof(DeliveryRow) * subscription->batch_size);
		if (delivery_rows_held(subscription->id, watermark, release_upto(subscription, progress),
							   rows, subscription->batch_size) < subscription->batch_size)
			due += window;
		pfree(rows);
	}
	if (due <= now)
		return true;
	*next_due = Min(*next_due, due);
	return false;
}

int
delivery_take_ordered(const Subscription *subscription, SubscriptionProgress *progress,
					  DeliveryItem *items, int max, bool *moved, TimestampTz *next_due)
{
	int n = intake(subscription, progress, items, max, moved);

	if (n > 0 || *moved)
		return n;
	if (delivery_held_ready(subscription, progress, next_due))
		n = delivery_take_held(subscription, progress, release_upto(subscription, progress), items,
							   max, moved);
	if (n == 0 && !*moved)
		delivery_replay(subscription, progress, moved);
	return n;
}

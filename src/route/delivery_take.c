/*
 * delivery_take.c
 *		The next events of a subscription, and passing over them.
 *
 * While a subscription replays, what the replay has queued comes first; when that is used up
 * the next slice is queued, and only when there is none left the live part follows.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/guc.h"
#include "route/delivery_internal.h"
#include "route/router.h"

/* A batch ends before it has more bytes of events: what a call gets is kept in memory twice. */
#define BATCH_MAX_BYTES (32 * 1024 * 1024)

/* A clock that is set back by less than this does no harm; by more, subscription_progress_move()
 * sees it. */
#define CLOCK_SLACK (10 * USECS_PER_SEC)

/* How many bytes an event takes in memory, about. */
static Size
event_size(HeapTuple row)
{
	return HeapTupleHasExternal(row) ? Max(row->t_len, behavior_max_event_size) : row->t_len;
}

int
delivery_peek(const Subscription *subscription, SubscriptionProgress *progress, QueueEntry *entries,
			  int max, bool *moved)
{
	for (;;)
	{
		Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
		int n = queue_peek(subscription, progress, snapshot, entries, max);
		int gone = 0;
		int there;
		Size bytes = 0;

		CHECK_FOR_INTERRUPTS();
		if (n > 0)
			queue_fetch(entries, n, snapshot);
		UnregisterSnapshot(snapshot);
		while (gone < n && entries[gone].row == NULL)
			gone++;
		if (gone == 0)
		{
			for (there = 0; there < n && entries[there].row != NULL; there++)
			{
				bytes += event_size(entries[there].row);
				if (bytes > BATCH_MAX_BYTES && there > 0)
					break;
			}
			return there;
		}
		queue_pass(subscription, progress, entries, gone);
		progress->consumed -= gone;
		CommandCounterIncrement();
		*moved = true;
	}
}

bool
delivery_item_of_row(DeliveryItem *item, const DeliveryRow *row, Snapshot snapshot)
{
	memset(item, 0, sizeof(*item));
	item->entry.delivery_id = row->delivery_id;
	item->entry.ref = row->ref;
	queue_fetch(&item->entry, 1, snapshot);
	item->attempt = row->attempts + 1;
	item->late = row->late;
	item->own_row = true;
	item->own = palloc(sizeof(DeliveryRow));
	*item->own = *row;
	return item->entry.row != NULL;
}

void
delivery_row_of_item(const Subscription *subscription, const DeliveryItem *item, DeliveryRow *row)
{
	memset(row, 0, sizeof(*row));
	row->delivery_id = item->entry.delivery_id;
	row->subscription_id = subscription->id;
	row->late = item->late;
	row->ref = item->entry.ref;
	delivery_row_set_event(row, item->entry.row);
}

/*
 * What becomes of one row that is due; false when it is not to be delivered now.  Consumers that
 * receive may acknowledge a row in flight at any time: those are left as they are.
 */
static bool
take_row(const Subscription *subscription, SubscriptionProgress *progress, DeliveryRow *row,
		 DeliveryItem *item, Snapshot snapshot, bool *moved)
{
	bool ours = row->state == DELIVERY_RETRY || subscription->handler != NULL;

	if (subscription->ordered && delivery_row_blocked(row))
	{
		if (ours)
		{
			row->state = DELIVERY_RETRY;
			row->due_at = DT_NOEND;
			delivery_row_update(row);
			*moved = true;
		}
		return false;
	}
	if (!delivery_item_of_row(item, row, snapshot))
	{
		if (ours)
		{
			delivery_row_done(row);
			progress->consumed--;
			*moved = true;
		}
		return false;
	}
	return true;
}

int
delivery_take_due(const Subscription *subscription, SubscriptionProgress *progress,
				  DeliveryItem *items, int max, bool *moved, TimestampTz *next_due)
{
	static const char states[] = {DELIVERY_RETRY, DELIVERY_IN_FLIGHT};
	TimestampTz now = GetCurrentTimestamp();
	Snapshot snapshot = NULL;
	TimestampTz due_from = now - CLOCK_SLACK;
	DeliveryRow *rows = NULL;
	int n = 0;

	for (int i = 0; i < lengthof(states) && n < max; i++)
	{
		TimestampTz due = now;
		int got;

		/* Of what is in flight most is acknowledged in time: when the rest is due matters then. */
		if (states[i] == DELIVERY_RETRY)
			due = delivery_rows_next_due(subscription->id, states[i], progress->due_from,
										 SnapshotSelf);
		if (due > now)
		{
			if (due < DT_NOEND)
				*next_due = Min(*next_due, due);
			continue;
		}
		if (rows == NULL)
		{
			rows = palloc(sizeof(DeliveryRow) * max);
			snapshot = RegisterSnapshot(GetLatestSnapshot());
		}
		got =
			delivery_rows_due(subscription->id, states[i], progress->due_from, now, rows, max - n);
		if (got > 0)
			due_from = Min(due_from, rows[0].due_at);
		for (int j = 0; j < got; j++)
		{
			if (take_row(subscription, progress, &rows[j], &items[n], snapshot, moved))
				n++;
		}
	}
	/* Written when something else is: what is due from now on is due after that. */
	if (n < max)
		progress->due_from = due_from;
	if (snapshot != NULL)
		UnregisterSnapshot(snapshot);
	return n;
}

void
delivery_replay(const Subscription *subscription, SubscriptionProgress *progress, bool *moved)
{
	if (!progress->replaying || subscription->joined_tick < 0)
		return;
	(void) replay_step(subscription, progress);
	CommandCounterIncrement();
	*moved = true;
}

int
delivery_take_new(const Subscription *subscription, SubscriptionProgress *progress,
				  DeliveryItem *items, int max, bool *moved, TimestampTz *next_due)
{
	QueueEntry *entries;
	int n;

	if (subscription->ordered)
		return delivery_take_ordered(subscription, progress, items, max, moved, next_due);

	/* Left from the time when it was. */
	n = delivery_take_held(subscription, progress, DT_NOEND, items, max, moved);
	if (n > 0 || *moved)
		return n;

	entries = palloc(sizeof(QueueEntry) * max);
	n = delivery_peek(subscription, progress, entries, max, moved);
	for (int i = 0; i < n; i++)
	{
		memset(&items[i], 0, sizeof(DeliveryItem));
		items[i].entry = entries[i];
		items[i].attempt = 1;
	}
	if (n == 0)
		delivery_replay(subscription, progress, moved);
	return n;
}

/* Is any of these due though it has never been tried? */
static bool
any_untried(const DeliveryItem *items, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (items[i].attempt == 1)
			return true;
	}
	return false;
}

int
delivery_take(const Subscription *subscription, SubscriptionProgress *progress, DeliveryItem *items,
			  int max, bool *moved, TimestampTz *next_due)
{
	int n = 0;
	bool more;

	/*
	 * What came late is due at once, and goes before what is held: else the rest of its actor would
	 * wait behind it, out of everybody else's order.
	 */
	do
	{
		CHECK_FOR_INTERRUPTS();
		more = false;
		n = delivery_take_due(subscription, progress, items, max, &more, next_due);
		if (n < max && !(n == 0 && more) && !(subscription->ordered && any_untried(items, n)))
			n += delivery_take_new(subscription, progress, items + n, max - n, &more, next_due);
		*moved |= more;
	} while (n == 0 && more);
	return n;
}

void
delivery_row_done(const DeliveryRow *row)
{
	DeliveryRow next;

	delivery_row_delete(row);
	CommandCounterIncrement();
	if (delivery_row_of_actor(row, DELIVERY_RETRY, &next) && next.due_at == DT_NOEND)
	{
		next.due_at = GetCurrentTimestamp();
		delivery_row_update(&next);
	}
}

/* Passes over those that stand in the queue. */
static void
pass_queue(const Subscription *subscription, SubscriptionProgress *progress,
		   const DeliveryItem *items, int n)
{
	QueueEntry *entries = palloc(sizeof(QueueEntry) * n);
	int queued = 0;

	for (int i = 0; i < n; i++)
	{
		if (!items[i].own_row)
			entries[queued++] = items[i].entry;
	}
	if (queued > 0)
	{
		queue_pass(subscription, progress, entries, queued);
		CommandCounterIncrement();
	}
	pfree(entries);
}

void
delivery_done(const Subscription *subscription, SubscriptionProgress *progress,
			  const DeliveryItem *items, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (items[i].own_row)
			delivery_row_done(items[i].own);
		progress->late += items[i].late ? 1 : 0;
	}
	pass_queue(subscription, progress, items, n);
	progress->delivered += n;
	if (n == 0)
		return;
	progress->failures = 0;
	progress->resume_at = 0;
	/* Something works again, and nothing that failed waits, alone or in what is left of a batch. */
	if (progress->failing_since != 0 && progress->poison == 0 &&
		delivery_rows_next_due(subscription->id, DELIVERY_RETRY, progress->due_from,
							   SnapshotSelf) == DT_NOEND)
	{
		progress->failing_since = 0;
		progress->last_error = NULL;
	}
}

void
delivery_keep(const Subscription *subscription, SubscriptionProgress *progress,
			  const DeliveryItem *items, int n, char state, TimestampTz due_at)
{
	TimestampTz now = GetCurrentTimestamp();
	DeliveryRow *rows = palloc(sizeof(DeliveryRow) * n);
	int queued = 0;

	for (int i = 0; i < n; i++)
	{
		DeliveryRow *row = items[i].own_row ? items[i].own : &rows[queued++];

		if (!items[i].own_row)
			delivery_row_of_item(subscription, &items[i], row);
		row->state = state;
		row->due_at = due_at;
		row->attempts = items[i].attempt;
		if (row->first_attempt_at == 0)
			row->first_attempt_at = now;
		if (items[i].own_row)
			delivery_row_update(row);
	}
	delivery_rows_insert(rows, queued);
	pass_queue(subscription, progress, items, n);
	pfree(rows);
}

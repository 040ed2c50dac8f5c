/*
 * redrive_delivery.c
 *		behavior.redrive() of stage delivery: dead letters go to their subscription again.
 *
 * The event becomes a row of behavior._delivery, due now and with no attempt made, under a new
 * delivery_id; from then on it is like any other that waits to be tried again.  A letter knows its
 * subscription by name: one that was dropped and created anew since gets the event, too.
 */
#include "postgres.h"

#include "commands/sequence.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "route/delivery.h"
#include "route/letter_events.h"
#include "route/redrive.h"

/* Puts n events of a subscription back, whose lock we have. */
static void
put_back(const Subscription *subscription, const LetterEvent *events, RedriveLetter **letters,
		 int n)
{
	DeliveryRow *rows = palloc0(sizeof(DeliveryRow) * n);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	SubscriptionProgress progress;
	int64 next_id = 0;
	int count = 0;

	for (int i = 0; i < n; i++)
	{
		DeliveryRow *row = &rows[count];

		if (events[i].row == NULL)
		{
			letters[i]->status = REDRIVE_SKIPPED;
			letters[i]->failed_reason = "event_gone";
			continue;
		}
		if (count % QUEUE_CHUNK == 0)
			next_id = nextval_internal(behavior_relid(REL_DELIVERY_ID_SEQ), false);
		row->delivery_id = next_id++;
		row->subscription_id = subscription->id;
		row->state = DELIVERY_RETRY;
		row->due_at = GetCurrentTimestamp();
		row->ref = events[i].ref;
		delivery_row_set_event(row, events[i].row);
		letters[i]->status = "queued";
		count++;
	}
	if (count > 0)
	{
		delivery_rows_insert(rows, count);
		/* Letters of an earlier subscription of that name are new to this one. */
		subscription_progress_read(subscription->id, snapshot, &progress);
		progress.consumed += count - Min(count, progress.dead_letters);
		progress.dead_letters -= Min(count, progress.dead_letters);
		subscription_progress_move(subscription->id, &progress);
	}
	UnregisterSnapshot(snapshot);
}

/* The letters of one subscription. */
static void
redrive_subscription(RedriveLetter **letters, int n)
{
	const char *name = letters[0]->projection;
	Subscription *subscription = NULL;
	LetterEvent *events;
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());

	if (name != NULL)
		subscription = subscription_find(name, snapshot);
	UnregisterSnapshot(snapshot);
	if (subscription != NULL)
	{
		(void) subscription_lock(subscription->id, true);
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		subscription = subscription_get(subscription->id, snapshot);
		UnregisterSnapshot(snapshot);
	}
	if (subscription == NULL)
	{
		for (int i = 0; i < n; i++)
		{
			letters[i]->status = REDRIVE_SKIPPED;
			letters[i]->failed_reason = "no_subscription";
		}
		return;
	}

	events = letter_events_of(letters, n);
	put_back(subscription, events, letters, n);
}

void
redrive_delivery(RedriveLetter **letters, int n)
{
	redrive_by_projection(letters, n, redrive_subscription);
}

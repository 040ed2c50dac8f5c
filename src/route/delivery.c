/*
 * delivery.c
 *		A step of a push subscription; all of them, for tick().
 *
 * A step is one transaction: under the subscription's lock it takes the next events, calls the
 * handler in a subtransaction, and moves the progress, so effects and progress are committed
 * together.  When the handler fails its effects are undone and the failure is what is committed.
 *
 * Two kinds of failure are told apart.  A handler that raises or hangs may do so because of an
 * event: the batch is halved and single events are tried again (delivery_retry.c).  A subscription
 * that cannot work at all (its owner or handler is gone, or lacks a privilege) has not tried
 * any event: it rests, as long again as it has been failing, between a second and five minutes, and
 * goes on where it was.  failures is 0 then: that is how the two kinds of rest are told apart.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/transaction.h"
#include "route/delivery_internal.h"

#define BROKEN_REST_LEAST USECS_PER_SEC
#define BROKEN_REST_MOST  (5 * USECS_PER_MINUTE)

bool delivery_own_transactions = false;

/* The events of this step: an event to be tried again, alone, or a batch of the queue. */
static int
take(const Subscription *subscription, SubscriptionProgress *progress, bool wait,
	 DeliveryItem **items, bool *moved, TimestampTz *next_due)
{
	TimestampTz now = GetCurrentTimestamp();
	int max = progress->poison > 0 ? Min((progress->poison + 1) / 2, subscription->batch_size)
								   : subscription->batch_size;
	int n;

	if (delivery_rests_broken(progress, now) && !wait)
	{
		*next_due = progress->resume_at;
		return 0;
	}
	*items = palloc(sizeof(DeliveryItem) * max);
	n = delivery_take_due(subscription, progress, *items, 1, moved, next_due);
	if (n > 0 || *moved)
		return n;
	if (progress->resume_at > now && !delivery_rests_broken(progress, now))
	{
		*next_due = Min(*next_due, progress->resume_at);
		return 0;
	}
	if (!delivery_window_is_over(subscription, progress, now, next_due))
		return 0;
	return delivery_take_new(subscription, progress, *items, max, moved, next_due);
}

/* Nothing can be delivered until somebody mends it. */
static void
note_broken(const Subscription *subscription, SubscriptionProgress *progress, const char *error)
{
	TimestampTz now = GetCurrentTimestamp();

	delivery_note_failure(subscription, progress, error);
	progress->failures = 0;
	progress->resume_at =
		now + Min(Max(now - progress->failing_since, BROKEN_REST_LEAST), BROKEN_REST_MOST);
}

/* A step under the lock, of a subscription that is to be delivered. */
static DeliveryResult
step(const Subscription *subscription, SubscriptionProgress *progress, bool wait, bool *wrote,
	 TimestampTz *next_due)
{
	TimestampTz watermark = progress->watermark;
	DeliveryItem *items;
	DeliveryResult result = DELIVERY_MORE;
	bool moved = false;
	char *error = NULL;
	int n = take(subscription, progress, wait, &items, &moved, next_due);
	/* Of what the queue has, or has had: poison counts those. */
	bool in_line = n > 0 && (!items[0].own_row || items[0].own->state == DELIVERY_HELD);

	*wrote = n > 0 || moved;
	if (!*wrote)
		return DELIVERY_IDLE;
	if (n > 0)
	{
		switch (delivery_call(subscription, progress, items, n, &error))
		{
			case CALL_DONE:
				if (in_line)
					progress->poison = Max(progress->poison - n, 0);
				delivery_done(subscription, progress, items, n);
				break;
			case CALL_GONE:
				return DELIVERY_MORE;
			case CALL_FAILED:
				if (n == 1)
				{
					delivery_failed(subscription, progress, &items[0], error);
					if (in_line)
						progress->poison = 0;
				}
				else
				{
					delivery_note_failure(subscription, progress, error);
					progress->poison = n;
					progress->watermark = watermark;
				}
				break;
			case CALL_BROKEN:
				note_broken(subscription, progress, error);
				progress->watermark = watermark;
				*next_due = progress->resume_at;
				result = DELIVERY_IDLE;
				break;
		}
	}
	subscription_progress_move(subscription->id, progress);
	return result;
}

DeliveryResult
delivery_step(int64 subscription_id, bool wait, TimestampTz *next_due)
{
	MemoryContext context;
	MemoryContext old_context;
	Snapshot snapshot;
	Subscription *subscription;
	SubscriptionProgress progress;
	DeliveryResult result = DELIVERY_IDLE;
	bool wrote = false;

	delivery_forbid_in_handler("delivery");
	*next_due = PG_INT64_MAX;
	if (!subscription_lock(subscription_id, wait))
		return DELIVERY_BUSY;

	context =
		AllocSetContextCreate(CurrentMemoryContext, "behavior delivery", ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(context);
	/* Under the lock, and not before: what others have delivered until now is seen. */
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	snapshot = GetActiveSnapshot();
	subscription = subscription_get(subscription_id, snapshot);
	if (subscription != NULL && subscription->handler != NULL && !subscription->paused)
	{
		subscription_progress_read(subscription_id, snapshot, &progress);
		result = step(subscription, &progress, wait, &wrote, next_due);
	}
	PopActiveSnapshot();
	if (!wrote)
		subscription_unlock(subscription_id);
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
	return result;
}

typedef struct GuardedStep
{
	int64 subscription_id;
	DeliveryResult result;
} GuardedStep;

/* StepCallback */
static void
run_guarded_step(void *arg)
{
	GuardedStep *guarded = arg;
	TimestampTz next_due;

	guarded->result = delivery_step(guarded->subscription_id, true, &next_due);
}

/* A step in a subtransaction; what it raises is a WARNING. */
static DeliveryResult
step_guarded(int64 subscription_id)
{
	GuardedStep guarded = {subscription_id, DELIVERY_IDLE};
	ErrorData *error = guard_step(run_guarded_step, &guarded);

	if (error == NULL)
		return guarded.result;
	warn_of_error(error, NULL, "subscription %lld could not be delivered",
				  (long long) subscription_id);
	FreeErrorData(error);
	return DELIVERY_IDLE;
}

static void
all(bool own_transactions, MemoryContext context)
{
	TimestampTz next_due;
	List *due;
	ListCell *lc;

	MemoryContextSwitchTo(context);
	due = delivery_list_due(true, &next_due);
	if (own_transactions)
		next_transaction();
	foreach (lc, due)
	{
		DeliveryResult result;

		do
		{
			CHECK_FOR_INTERRUPTS();
			MemoryContextSwitchTo(context);
			result = step_guarded(*(int64 *) lfirst(lc));
			if (own_transactions)
				next_transaction();
			else
				CommandCounterIncrement();
		} while (result == DELIVERY_MORE);
	}
}

void
delivery_all(bool own_transactions)
{
	MemoryContext old_context = CurrentMemoryContext;
	MemoryContext context;

	delivery_forbid_in_handler("delivery");
	context = AllocSetContextCreate(own_transactions ? TopMemoryContext : CurrentMemoryContext,
									"behavior deliveries", ALLOCSET_DEFAULT_SIZES);
	delivery_own_transactions = own_transactions;
	PG_TRY();
	{
		all(own_transactions, context);
	}
	PG_FINALLY();
	{
		delivery_own_transactions = false;
		MemoryContextSwitchTo(old_context);
		MemoryContextDelete(context);
	}
	PG_END_TRY();
}

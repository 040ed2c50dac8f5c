/*
 * delivery_start.c
 *		Wakes and starts delivery workers; runs in the database's worker.
 *
 * Of behavior.delivery_workers, those that are reserved by a subscription are kept for it, whether
 * they run or not; at least one is for all.  One is started at a time: it says when it has come,
 * which makes the database's worker look again, and then the next is started if it still is wanted.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "core/guc.h"
#include "core/transaction.h"
#include "route/delivery.h"
#include "route/subscription_reserve.h"
#include "worker/delivery_worker.h"
#include "worker/worker.h"

int
delivery_workers_reserved(const List *reserved)
{
	return Min(list_length(reserved), Max(behavior_delivery_workers - 1, 0));
}

/* Starts one, for a subscription or (0) for all, unless one is starting. */
static void
start_worker(int64 reserved)
{
	static WorkerStart start = {WORKER_DELIVERY, "behavior_delivery_main", DELIVERY_TYPE,
								"a delivery worker", "subscriptions wait"};

	if (worker_start_ready(&start))
		worker_start(&start, reserved);
}

void
delivery_workers_wake(TimestampTz *next_due)
{
	MemoryContext context = CurrentMemoryContext;
	List *due;
	List *reserved;
	ListCell *cell;
	int64 *ids;
	int n = 0;
	int kept;
	int wanted = 0;

	*next_due = PG_INT64_MAX;
	if (behavior_delivery_workers == 0)
		return;
	start_transaction();
	MemoryContextSwitchTo(context);
	due = delivery_due(next_due);
	reserved = subscription_reserved();
	finish_transaction();
	MemoryContextSwitchTo(context);

	ids = palloc(sizeof(int64) * Max(list_length(due), 1));
	foreach (cell, due)
		ids[n++] = *(int64 *) lfirst(cell);
	if (n > 0)
		wanted = worker_wake_delivery(MyDatabaseId, ids, n);

	/* Those come first, and stay for as long as they are reserved. */
	kept = delivery_workers_reserved(reserved);
	foreach (cell, reserved)
	{
		int64 id = *(int64 *) lfirst(cell);

		if (kept-- > 0 && worker_count_delivery(MyDatabaseId, id) == 0)
		{
			/* One too many, of those for all, leaves when it is woken. */
			if (worker_count(WORKER_DELIVERY, MyDatabaseId) >= behavior_delivery_workers)
				worker_wake(WORKER_DELIVERY, MyDatabaseId);
			else
				start_worker(id);
			return;
		}
	}
	if (wanted > 0 && worker_count_delivery(MyDatabaseId, 0) <
						  behavior_delivery_workers - delivery_workers_reserved(reserved))
		start_worker(0);
}

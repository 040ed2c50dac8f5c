/*
 * queue_function.c
 *		The queue for tests: what is in it, and taking from it without a consumer.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "core/catalog.h"
#include "log/log_row.h"
#include "route/queue.h"
#include "route/router.h"

PG_FUNCTION_INFO_V1(behavior__queue);
PG_FUNCTION_INFO_V1(behavior__queue_pass);
PG_FUNCTION_INFO_V1(behavior__replay_step);

#define QUEUE_COLUMNS 4

/* A subscription with its lock and its progress. */
static Subscription *
open_subscription(text *name, SubscriptionProgress *progress, Snapshot *snapshot)
{
	Subscription *subscription = subscription_of_caller(text_to_cstring(name), GetLatestSnapshot());

	(void) subscription_lock(subscription->id, true);
	*snapshot = RegisterSnapshot(GetLatestSnapshot());
	PushActiveSnapshot(*snapshot);
	subscription_progress_read(subscription->id, *snapshot, progress);
	return subscription;
}

static void
close_subscription(Snapshot snapshot)
{
	PopActiveSnapshot();
	UnregisterSnapshot(snapshot);
}

/* behavior._queue(subscription text, max int) */
Datum
behavior__queue(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int max = PG_GETARG_INT32(1);
	SubscriptionProgress progress;
	Snapshot snapshot;
	Subscription *subscription = open_subscription(PG_GETARG_TEXT_PP(0), &progress, &snapshot);
	QueueEntry *entries = palloc(sizeof(QueueEntry) * Max(max, 1));
	int n = queue_peek(subscription, &progress, snapshot, entries, max);
	Relation log = table_open(behavior_relid(REL_LOG), AccessShareLock);

	InitMaterializedSRF(fcinfo, 0);
	queue_fetch(entries, n, snapshot);
	for (int i = 0; i < n; i++)
	{
		Datum values[QUEUE_COLUMNS] = {Int64GetDatum(entries[i].delivery_id),
									   BoolGetDatum(entries[i].live)};
		bool nulls[QUEUE_COLUMNS] = {false, false, true, true};

		if (entries[i].row != NULL)
		{
			values[2] =
				heap_getattr(entries[i].row, LOG_EVENT_ID, RelationGetDescr(log), &nulls[2]);
			values[3] = heap_getattr(entries[i].row, LOG_SOURCE, RelationGetDescr(log), &nulls[3]);
		}
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	table_close(log, AccessShareLock);
	close_subscription(snapshot);
	return (Datum) 0;
}

/* behavior._queue_pass(subscription text, events int) returns int: passed over, as delivered */
Datum
behavior__queue_pass(PG_FUNCTION_ARGS)
{
	int max = PG_GETARG_INT32(1);
	SubscriptionProgress progress;
	Snapshot snapshot;
	Subscription *subscription = open_subscription(PG_GETARG_TEXT_PP(0), &progress, &snapshot);
	QueueEntry *entries = palloc(sizeof(QueueEntry) * Max(max, 1));
	int n = queue_peek(subscription, &progress, snapshot, entries, max);

	queue_pass(subscription, &progress, entries, n);
	progress.delivered += n;
	if (n > 0)
		subscription_progress_move(subscription->id, &progress);
	close_subscription(snapshot);
	PG_RETURN_INT32(n);
}

/* behavior._replay_step(subscription text) returns boolean: is there more to replay? */
Datum
behavior__replay_step(PG_FUNCTION_ARGS)
{
	SubscriptionProgress progress;
	Snapshot snapshot;
	Subscription *subscription = open_subscription(PG_GETARG_TEXT_PP(0), &progress, &snapshot);
	bool replaying = progress.replaying && subscription->joined_tick >= 0;
	bool more = replay_step(subscription, &progress);

	if (replaying)
		subscription_progress_move(subscription->id, &progress);
	close_subscription(snapshot);
	PG_RETURN_BOOL(more);
}

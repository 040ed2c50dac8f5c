/*
 * delivery_due.c
 *		Which push subscriptions have work.
 *
 * This is asked after each tick and by each worker that has nothing to do, so a subscription
 * without work must cost little: they are found by what stands in the queue and in
 * behavior._delivery, and not by asking each of them.  But an old snapshot keeps rows there that
 * have long gone: those that have consumed much are asked after all, since their progress leads
 * past such rows.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/spi.h"
#include "route/delivery_internal.h"

#define KNOWN_FROM 100 /* events consumed: see Known */

bool
delivery_rests_broken(const SubscriptionProgress *progress, TimestampTz now)
{
	return progress->resume_at > now && progress->failures == 0;
}

bool
delivery_window_is_over(const Subscription *subscription, const SubscriptionProgress *progress,
						TimestampTz now, TimestampTz *next_due)
{
	TimestampTz oldest = now;
	Snapshot snapshot;
	int64 waiting;

	if (subscription->batch_window == 0 || subscription->ordered || progress->replaying ||
		progress->poison > 0)
		return true;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	waiting =
		queue_waiting(subscription->id, progress, snapshot, subscription->batch_size, &oldest);
	UnregisterSnapshot(snapshot);
	if (waiting == 0 || waiting >= subscription->batch_size ||
		now - oldest >= subscription->batch_window)
		return true;
	*next_due = Min(*next_due, oldest + subscription->batch_window);
	return false;
}

/* Adds to a list of ids, ascending, those that are not in it. */
static List *
add_ids(List *ids, List *more)
{
	List *result = NIL;
	ListCell *a = list_head(ids);
	ListCell *b = list_head(more);

	while (a != NULL || b != NULL)
	{
		int64 *first = a != NULL ? lfirst(a) : NULL;
		int64 *second = b != NULL ? lfirst(b) : NULL;

		result = lappend(result,
						 second == NULL || (first != NULL && *first <= *second) ? first : second);
		if (first != NULL && *first == *(int64 *) llast(result))
			a = lnext(ids, a);
		if (second != NULL && *second == *(int64 *) llast(result))
			b = lnext(more, b);
	}
	return result;
}

/*
 * Subscriptions between two ids that have something queued, ascending: one look into the index for
 * each.  It walks over all that was consumed and that an old snapshot holds back.
 */
static List *
with_queue(int64 after, int64 before, Snapshot snapshot)
{
	Relation rel = table_open(behavior_relid(REL_DELIVERY_CHUNK), AccessShareLock);
	Relation index = index_open(behavior_relid(REL_DELIVERY_CHUNK_PKEY), AccessShareLock);
	List *ids = NIL;

	for (;;)
	{
		ScanKeyData keys[2];
		SysScanDesc scan;
		HeapTuple tuple;
		int64 *id = NULL;

		ScanKeyInit(&keys[0], 1, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(after));
		ScanKeyInit(&keys[1], 1, BTLessStrategyNumber, F_INT8LT, Int64GetDatum(before));
		scan = systable_beginscan_ordered(rel, index, snapshot, 2, keys);
		tuple = systable_getnext_ordered(scan, ForwardScanDirection);
		if (HeapTupleIsValid(tuple))
		{
			bool isnull;

			id = palloc(sizeof(int64));
			*id = after = DatumGetInt64(heap_getattr(tuple, 1, RelationGetDescr(rel), &isnull));
			ids = lappend(ids, id);
		}
		systable_endscan_ordered(scan);
		if (id == NULL)
			break;
	}
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return ids;
}

/*
 * Subscriptions that this backend has seen, ascending: of those it looks only where their progress
 * says that something might be.  Not those that have consumed little: a look at each costs as much
 * as to walk over some thirty rows that have gone.
 */
typedef struct Known
{
	int64 id;
	bool push; /* has a handler, which never changes */
} Known;

static Known *known = NULL;
static int known_count = 0;
static int known_room = 0;

static void
remember(const Subscription *subscription, const SubscriptionProgress *progress)
{
	int64 id = subscription->id;
	int place = known_count;

	if (subscription->handler != NULL && progress->consumed < KNOWN_FROM)
		return;
	/* What this transaction has done itself may be rolled back. */
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return;
	while (place > 0 && known[place - 1].id > id)
		place--;
	if (place > 0 && known[place - 1].id == id)
		return;
	if (known_count == known_room)
	{
		int room = Max(16, known_room * 2);

		if (known == NULL)
			known = MemoryContextAlloc(TopMemoryContext, sizeof(Known) * room);
		else
			known = repalloc(known, sizeof(Known) * room);
		known_room = room;
	}
	memmove(&known[place + 1], &known[place], sizeof(Known) * (known_count - place));
	known[place].id = id;
	known[place].push = subscription->handler != NULL;
	known_count++;
}

/* Subscriptions that have something queued or waiting, ascending; *queued: the first kind. */
static List *
with_something(Snapshot snapshot, List **queued)
{
	static Oid relid = InvalidOid; /* what "known" is about: ids begin anew with it */
	List *waiting = NIL;
	int64 last = 0;

	*queued = NIL;
	if (relid != behavior_relid(REL_SUBSCRIPTION))
	{
		ListCell *lc;

		known_count = 0;
		foreach (lc, subscription_list(snapshot))
		{
			Subscription *subscription = lfirst(lc);
			SubscriptionProgress progress;

			subscription_progress_read(subscription->id, snapshot, &progress);
			remember(subscription, &progress);
		}
		relid = behavior_relid(REL_SUBSCRIPTION);
	}
	for (int i = 0; i <= known_count; i++)
	{
		int64 until = i < known_count ? known[i].id : PG_INT64_MAX;
		SubscriptionProgress progress;
		TimestampTz oldest;
		int64 *id;

		if (until - last > 1)
		{
			*queued = list_concat(*queued, with_queue(last, until, snapshot));
			waiting = list_concat(waiting, delivery_row_subscriptions(last, until, snapshot));
		}
		last = until;
		if (i == known_count || !known[i].push)
			continue;
		subscription_progress_read(until, snapshot, &progress);
		if (progress.step == 0)
			continue; /* dropped */
		id = palloc(sizeof(int64));
		*id = until;
		if (queue_waiting(until, &progress, snapshot, 1, &oldest) > 0)
			*queued = lappend(*queued, id);
		/* Consumed is what has been delivered, is a dead letter, or waits. */
		if (progress.consumed != progress.delivered + progress.dead_letters)
			waiting = lappend(waiting, id);
	}
	return add_ids(*queued, waiting);
}

/*
 * The subscriptions of which this backend knows that they replay no more, since that is committed
 * and nothing begins it again.
 */
static HTAB *
replayed(void)
{
	static HTAB *ids = NULL;
	static Oid relid =
		InvalidOid; /* the subscriptions that it is about: ids begin anew with them */

	if (ids != NULL && relid != behavior_relid(REL_SUBSCRIPTION))
	{
		hash_destroy(ids);
		ids = NULL;
	}
	if (ids == NULL)
	{
		HASHCTL ctl = {0};

		ctl.keysize = ctl.entrysize = sizeof(int64);
		ctl.hcxt = TopMemoryContext;
		ids = hash_create("behavior replayed subscriptions", 64, &ctl,
						  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		relid = behavior_relid(REL_SUBSCRIPTION);
	}
	return ids;
}

/* Push subscriptions that replay, ascending. */
static List *
with_replay(Snapshot snapshot)
{
	MemoryContext context = CurrentMemoryContext;
	HTAB *known = replayed();
	SecureContext secure;
	List *ids = NIL;

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	spi_exec("SELECT subscription_id FROM behavior._subscription "
			 "WHERE start_at IS NOT NULL AND handler IS NOT NULL AND NOT paused ORDER BY 1",
			 SPI_OK_SELECT, true, 0, NULL, NULL, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool isnull;
		int64 id =
			DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		SubscriptionProgress progress;

		if (hash_search(known, &id, HASH_FIND, NULL) != NULL)
			continue;
		subscription_progress_read(id, snapshot, &progress);
		if (progress.replaying)
		{
			MemoryContext old_context = MemoryContextSwitchTo(context);
			int64 *item = palloc(sizeof(int64));

			*item = id;
			ids = lappend(ids, item);
			MemoryContextSwitchTo(old_context);
		}
		/* What this transaction has done itself may be rolled back. */
		else if (!TransactionIdIsValid(GetTopTransactionIdIfAny()))
			(void) hash_search(known, &id, HASH_ENTER, NULL);
	}
	secure_end(&secure);
	SPI_finish();
	return ids;
}

static bool
contains(List *ids, int64 id)
{
	ListCell *lc;

	foreach (lc, ids)
	{
		if (*(int64 *) lfirst(lc) == id)
			return true;
	}
	return false;
}

/*
 * Would a step of this subscription do something now?  The same questions as in take(), without
 * taking anything.  broken: also one that rests since it cannot work.
 */
static bool
is_due(int64 id, bool queued, bool broken, Snapshot snapshot, TimestampTz *next_due)
{
	static const char states[] = {DELIVERY_RETRY, DELIVERY_IN_FLIGHT};
	TimestampTz now = GetCurrentTimestamp();
	Subscription *subscription = subscription_get(id, snapshot);
	SubscriptionProgress progress;
	TimestampTz next = PG_INT64_MAX;
	TimestampTz held;

	if (subscription == NULL)
		return false;
	subscription_progress_read(id, snapshot, &progress);
	remember(subscription, &progress);
	if (subscription->handler == NULL || subscription->paused)
		return false;
	if (delivery_rests_broken(&progress, now) && !broken)
	{
		*next_due = Min(*next_due, progress.resume_at);
		return false;
	}
	for (int i = 0; i < lengthof(states); i++)
		next = Min(next, delivery_rows_next_due(id, states[i], progress.due_from, snapshot));
	if (next <= now)
		return true;
	if (progress.resume_at > now && !delivery_rests_broken(&progress, now))
		next = Min(next, progress.resume_at);
	else
	{
		if (queued && delivery_window_is_over(subscription, &progress, now, &next))
			return true;
		if (progress.replaying && subscription->joined_tick >= 0)
			return true;
		/* None that is held lies below the watermark. */
		held = delivery_rows_next_due(id, DELIVERY_HELD,
									  subscription->ordered ? progress.watermark : 0, snapshot);
		if (held < DT_NOEND &&
			(!subscription->ordered || delivery_held_ready(subscription, &progress, &next)))
			return true;
	}
	*next_due = Min(*next_due, next);
	return false;
}

List *
delivery_list_due(bool broken, TimestampTz *next_due)
{
	Snapshot snapshot;
	List *queued;
	List *ids;
	List *due = NIL;
	ListCell *lc;

	PushActiveSnapshot(GetLatestSnapshot());
	snapshot = GetActiveSnapshot();
	ids = add_ids(with_something(snapshot, &queued), with_replay(snapshot));
	*next_due = PG_INT64_MAX;
	foreach (lc, ids)
	{
		int64 *id = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (is_due(*id, contains(queued, *id), broken, snapshot, next_due))
			due = lappend(due, id);
	}
	PopActiveSnapshot();
	return due;
}

List *
delivery_due(TimestampTz *next_due)
{
	return delivery_list_due(false, next_due);
}

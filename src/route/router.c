/*
 * router.c
 *		Matches the events of new ticks against all subscriptions at once.
 *
 * A step takes a chunk's worth of ticks: their events are read once, those that match go through a
 * sort (to disk when they are many), and from it, in the order of events within each tick, into
 * the queues.  References, queues' rows, progress and the notifications are one transaction's.
 *
 * Nothing that a user wrote runs here, and nothing that a user can lock is waited for: a
 * subscription joins by a row of its own (behavior._subscription_join), and what is routed to one
 * that is being dropped is deleted when the drop is seen.  A pattern that does not compile, since
 * it was written by another version, say, is set aside: a WARNING and an error in that row, and
 * nothing is routed to its subscription until it is given another one.
 *
 * Since when.  A step reads the catalog with a snapshot taken under the router's lock, so it sees
 * every subscription that was committed before one of its ticks was cut.  A new one joins
 * behind the ticks that were routed by then, or, where nobody was routed for, behind the
 * last tick when it was created; and passes over what had been sent by then.
 *
 * What a backend keeps from step to step stands in route_table.h.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "commands/async.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "core/catalog.h"
#include "core/lock.h"
#include "core/spi.h"
#include "core/table_row.h"
#include "core/transaction.h"
#include "fold/projection.h"
#include "fold/tick.h"
#include "log/log_reader.h"
#include "log/log_row.h"
#include "route/match_sort.h"
#include "route/queue.h"
#include "route/route_table.h"
#include "route/router.h"

#define NOTIFY_QUEUE_MOST 0.5 /* full */

#define JOIN_NATTS 4 /* columns of behavior._subscription_join */

#define ROUTER_LOCK 0 /* number of the lock on behavior._subscription: see core/lock.h */

typedef enum StepResult
{
	STEP_DONE,
	STEP_MORE,
	STEP_BUSY, /* somebody else is routing */
	STEP_FAILED
} StepResult;

static RouteTable kept;

/* Where routing has come: a hint for finding it. */
static int64 last_seen = 0;

typedef struct Step
{
	MatchSort *sort;
	TickRanges *ranges;
	int *rules; /* of the event in hand */
} Step;

/*
 * What the router left for subscriptions that were dropped meanwhile: their drop did not see it.
 * By hops through the index: there may be many rows of the others.
 */
static void
delete_leftovers(void)
{
	static const char *const chunks =
		"WITH RECURSIVE ids (id) AS ("
		"(SELECT subscription_id FROM behavior._delivery_chunk ORDER BY subscription_id LIMIT 1)"
		" UNION ALL SELECT (SELECT c.subscription_id FROM behavior._delivery_chunk c"
		" WHERE c.subscription_id > ids.id ORDER BY c.subscription_id LIMIT 1) FROM ids WHERE ids.id IS NOT NULL) "
		"DELETE FROM behavior._delivery_chunk WHERE subscription_id = ANY (ARRAY(SELECT id FROM ids"
		" WHERE NOT EXISTS (SELECT FROM behavior._subscription s WHERE s.subscription_id = ids.id)))";
	static const char *const joins =
		"DELETE FROM behavior._subscription_join j WHERE NOT EXISTS"
		" (SELECT FROM behavior._subscription s WHERE s.subscription_id = j.subscription_id)";
	SecureContext secure;

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	spi_exec(chunks, SPI_OK_DELETE, false, 0, NULL, NULL, NULL);
	spi_exec(joins, SPI_OK_DELETE, false, 0, NULL, NULL, NULL);
	secure_end(&secure);
	SPI_finish();
}

/* Is there somebody to route for, or something left over? */
static bool
routing_needed(void)
{
	return subscription_any() || table_has_rows(behavior_relid(REL_DELIVERY_CHUNK));
}

/* The tick routed up to, and where its row is; -1: there is none. */
static int64
read_progress(Relation rel, Snapshot snapshot, ItemPointer tid)
{
	Relation index = index_open(behavior_relid(REL_ROUTE_PROGRESS_PKEY), AccessShareLock);
	int64 tick = -1;

	for (int64 least = last_seen;; least = 0)
	{
		ScanKeyData key;
		SysScanDesc scan;
		HeapTuple tuple;
		bool isnull;

		ScanKeyInit(&key, 1, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(least));
		scan = systable_beginscan_ordered(rel, index, snapshot, 1, &key);
		tuple = systable_getnext_ordered(scan, BackwardScanDirection);
		if (HeapTupleIsValid(tuple))
		{
			tick = DatumGetInt64(heap_getattr(tuple, 1, RelationGetDescr(rel), &isnull));
			*tid = tuple->t_self;
		}
		systable_endscan_ordered(scan);
		if (tick >= 0 || least == 0)
			break;
	}
	last_seen = Max(tick, 0);
	index_close(index, AccessShareLock);
	return tick;
}

/* The first n columns; the others are NULL. */
static void
insert_int64s(Relation rel, int n, const int64 *items)
{
	Datum values[JOIN_NATTS] = {0};
	bool nulls[JOIN_NATTS];
	HeapTuple tuple;

	for (int i = 0; i < JOIN_NATTS; i++)
		nulls[i] = i >= n;
	for (int i = 0; i < n; i++)
		values[i] = Int64GetDatum(items[i]);
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	table_row_insert(rel, tuple, NULL);
	heap_freetuple(tuple);
}

/*
 * Lets new subscriptions join; "progress": the tick routed up to, -1 for none.  Returns behind
 * which tick to route.
 */
static int64
join_routes(int64 progress)
{
	Relation rel = NULL;
	int64 start = -1;

	for (int i = 0; i < kept.count; i++)
	{
		Route *route = &kept.routes[i];
		bool joined = route->joined_tick >= 0;

		if (!joined)
		{
			int64 row[2] = {route->id, Max(progress, route->created_tick)};

			if (rel == NULL)
				rel = table_open(behavior_relid(REL_SUBSCRIPTION_JOIN), RowExclusiveLock);
			insert_int64s(rel, 2, row);
			route->joined_tick = row[1];
		}
		if (start < 0 || (joined ? progress : route->joined_tick) < start)
			start = joined ? progress : route->joined_tick;
	}
	if (rel != NULL)
	{
		table_close(rel, NoLock);
		/* They are known to have joined by rows that may be rolled back. */
		kept.fingerprint = 0;
	}
	return Max(start, progress);
}

/* LogRowCallback: does anybody want it? */
static void
route_row(TupleTableSlot *slot, void *arg)
{
	Step *step = arg;
	const int *matches;
	int nmatches;
	int nrules = 0;
	TimestampTz occurred_at;
	int64 batch_id;
	int64 tick;

	slot_getallattrs(slot);
	nmatches = pattern_set_match_row(kept.patterns, slot->tts_values, slot->tts_isnull, &matches);
	if (nmatches == 0)
		return;
	occurred_at = DatumGetTimestampTz(slot->tts_values[LOG_OCCURRED_AT - 1]);
	batch_id = DatumGetInt64(slot->tts_values[LOG_BATCH_ID - 1]);
	tick = tick_ranges_find(step->ranges, batch_id);
	for (int i = 0; i < nmatches; i++)
	{
		const Route *route = &kept.routes[matches[i]];

		if (tick > route->joined_tick && occurred_at >= route->start_at &&
			(route->skip_batches == NULL || !batch_set_contains(route->skip_batches, batch_id)))
			step->rules[nrules++] = matches[i];
	}
	if (nrules > 0)
		match_sort_put(step->sort, slot, tick, step->rules, nrules);
}

static void
flush_route(Route *route, int64 tick)
{
	if (route->nrefs == 0)
		return;
	queue_append(route->id, true, tick, route->refs, route->nrefs);
	route->nrefs = 0;
	route->matched = true;
}

/* From the sort into the queues. */
static void
append_matches(MatchSort *sort)
{
	Match match;
	int64 tick = -1;

	match_sort_finish(sort);
	while (match_sort_next(sort, &match))
	{
		CHECK_FOR_INTERRUPTS();
		if (match.tick != tick)
		{
			for (int i = 0; i < kept.count; i++)
				flush_route(&kept.routes[i], tick);
			tick = match.tick;
		}
		for (int i = 0; i < match.nrules; i++)
		{
			Route *route = &kept.routes[match.rules[i]];

			if (route->refs == NULL)
				route->refs = palloc(sizeof(EventRef) * QUEUE_CHUNK);
			route->refs[route->nrefs++] = match.ref;
			if (route->nrefs == QUEUE_CHUNK)
				flush_route(route, tick);
		}
	}
	for (int i = 0; i < kept.count; i++)
		flush_route(&kept.routes[i], tick);
}

/*
 * Where somebody listens and sits in a transaction, notifications pile up, and when there is
 * no room for more, commits fail.  They are hints: the queues wait, so better none than no routing.
 */
static bool
may_notify(void)
{
	static bool warned = false;
	double used = DatumGetFloat8(DirectFunctionCall1(pg_notification_queue_usage, (Datum) 0));

	if (used <= NOTIFY_QUEUE_MOST)
	{
		warned = false;
		return true;
	}
	if (!warned)
		ereport(WARNING,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("consumers of subscriptions are not notified"),
				 errdetail("The queue of NOTIFY is %d %% full.", (int) (used * 100)),
				 errhint("End the transaction of the session that listens and does not read; "
						 "pg_notification_queue_usage() shows how full the queue is.")));
	warned = true;
	return false;
}

/* Tells those who listen that there is something for them. */
static void
notify_matched(int64 tick)
{
	char payload[32];
	bool any = false;
	bool notify;

	for (int i = 0; i < kept.count && !any; i++)
		any = kept.routes[i].matched;
	notify = any && may_notify();
	snprintf(payload, sizeof(payload), INT64_FORMAT, tick);
	for (int i = 0; notify && i < kept.count; i++)
	{
		if (kept.routes[i].matched)
			Async_Notify(kept.routes[i].channel, payload);
	}
}

/* Routes the events of some ticks; the snapshot is active. */
static void
route_ticks(int64 after_tick, int64 upto_tick, Snapshot snapshot)
{
	Step step;

	for (int i = 0; i < kept.count; i++)
	{
		kept.routes[i].refs = NULL;
		kept.routes[i].nrefs = 0;
		kept.routes[i].matched = false;
	}
	step.sort = match_sort_begin();
	step.ranges = tick_ranges_read(snapshot, after_tick, upto_tick);
	step.rules = palloc(sizeof(int) * kept.count);
	(void) log_read_batches(tick_ranges_batches(step.ranges), snapshot, route_row, &step);
	append_matches(step.sort);
	match_sort_end(step.sort);
	notify_matched(upto_tick);
}

/* With the router's lock and a snapshot taken after it.  *wrote: the lock is needed until commit.
 */
static StepResult
route_locked(int64 tick, Snapshot snapshot, bool *wrote)
{
	uint64 print = route_table_fingerprint(snapshot);
	Relation rel;
	ItemPointerData tid;
	int64 progress;
	int64 start;
	int64 upto;

	if (kept.context == NULL || kept.fingerprint != print || kept.count == 0)
	{
		route_table_load(&kept, snapshot, print);
		delete_leftovers();
		*wrote = true;
	}
	if (kept.count == 0)
		return STEP_DONE;

	/* What is read keeps its place until it is replaced. */
	rel = table_open(behavior_relid(REL_ROUTE_PROGRESS), RowExclusiveLock);
	progress = read_progress(rel, snapshot, &tid);
	start = join_routes(progress);
	route_table_note_errors(&kept);
	*wrote |= kept.fingerprint != print;
	upto = start < tick ? projection_choose_ticks(start, tick) : start;
	if (upto > start)
		route_ticks(start, upto, snapshot);
	if (upto > progress)
	{
		insert_int64s(rel, 1, &upto);
		if (progress >= 0)
			CatalogTupleDelete(rel, &tid);
		CommandCounterIncrement();
		*wrote = true;
	}
	table_close(rel, NoLock);
	return upto < tick ? STEP_MORE : STEP_DONE;
}

/* One step, in a subtransaction. */
static StepResult
route_step(int64 tick, bool wait)
{
	Oid relid = behavior_relid(REL_SUBSCRIPTION);
	Snapshot snapshot;
	StepResult result;
	bool wrote = false;

	if (wait)
		behavior_lock(relid, ROUTER_LOCK, ExclusiveLock);
	else if (!behavior_lock_conditional(relid, ROUTER_LOCK, ExclusiveLock))
		return STEP_BUSY;

	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	PushActiveSnapshot(snapshot);
	result = route_locked(tick, snapshot, &wrote);
	PopActiveSnapshot();
	UnregisterSnapshot(snapshot);
	if (!wrote)
		behavior_unlock(relid, ROUTER_LOCK, ExclusiveLock);
	return result;
}

typedef struct RouteStep
{
	MemoryContext context;
	int64 tick;
	bool wait;
	StepResult result;
} RouteStep;

/* StepCallback */
static void
run_route_step(void *arg)
{
	RouteStep *step = arg;

	MemoryContextSwitchTo(step->context);
	step->result = route_step(step->tick, step->wait);
}

static StepResult
route_step_guarded(int64 tick, bool wait)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "behavior routing", ALLOCSET_DEFAULT_SIZES);
	RouteStep step = {context, tick, wait, STEP_FAILED};
	ErrorData *error = try_step(run_route_step, &step);

	MemoryContextDelete(context);
	if (error == NULL)
		return step.result;

	/* It may be half of what it should be. */
	route_table_forget(&kept);
	if (error_ends_statement(error->sqlerrcode))
		ReThrowError(error);
	warn_of_error(error, "Rollups and sessions go on; routing is tried again.",
				  "events could not be routed to subscriptions");
	FreeErrorData(error);
	return STEP_FAILED;
}

bool
route_all(int64 tick, bool own_transactions, bool wait)
{
	bool in_transaction = IsTransactionState();
	MemoryContext old_context = CurrentMemoryContext;
	StepResult result;

	if (!in_transaction)
		start_transaction();
	do
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(CurTransactionContext);
		result = routing_needed() ? route_step_guarded(tick, wait) : STEP_DONE;
		if (own_transactions)
			next_transaction();
	} while (result == STEP_MORE);

	if (!in_transaction)
		finish_transaction();
	/* The caller's context, unless it belonged to the transaction that has just ended. */
	MemoryContextSwitchTo(own_transactions && in_transaction && !SPI_inside_nonatomic_context()
							  ? CurTransactionContext
							  : old_context);
	return result != STEP_FAILED;
}

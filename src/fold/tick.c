/*
 * tick.c
 *		Cuts the log into ticks: numbers batches in the order in which they became visible.
 *
 * A batch row is written once and carries no tick: runs of batches are numbered
 * in behavior._tick_range.  A cut has to find the batches that became visible
 * since the last one without a queue, since a queue slows down linearly under
 * an old snapshot.  So behavior._tick_state remembers the highest batch
 * numbered so far (last_batch) and the ids below it that were not visible then
 * (holes: rolled back, or still in flight).  A cut looks up the holes and the
 * ids above last_batch in the primary key, under a snapshot taken after it has
 * the tick lock; what it sees is the tick, what it does not see is the next
 * list of holes.  Nothing else is read, whatever the age of other snapshots.
 *
 * Holes that are rollbacks go away by a watermark, a pair (batch, xid): every id
 * up to "batch" had been handed out when "xid" was the next transaction id.
 * batch_next_id() gives its transaction an xid before it takes a number, so
 * once every transaction before "xid" has ended the holes up to "batch" can never be
 * filled.  Then the next watermark is set.  A dump that is restored into another
 * server brings only committed batches: all holes are dropped there.
 *
 * Readers of the live tail take the state, the ranges and the batches under their own
 * snapshot: it sees either a tick's row, ranges and state or none of them, so
 * no batch is both numbered and waiting, and none is neither.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/pg_type.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/lock.h"
#include "core/table_row.h"
#include "fold/tick.h"
#include "fold/tick_events.h"
#include "fold/tick_state.h"
#include "log/log_reader.h"

#define TICK_LOCK 0 /* number of the lock on behavior.tick: see core/lock.h */

/* Batches in which nothing was accepted wait for the next tick, but not more than these. */
#define MAX_IDLE_BATCHES 10000

/* Columns of behavior._batch that numbering looks at. */
enum
{
	BATCH_ID = 1,
	BATCH_ACCEPTED = 5
};

enum
{
	TICK_ID = 1,
	TICK_TICKED_AT,
	TICK_BATCHES,
	TICK_EVENTS,
	TICK_FIRST_OCCURRED_AT,
	TICK_LAST_OCCURRED_AT,
	TICK_NATTS = TICK_LAST_OCCURRED_AT
};

enum
{
	RANGE_FIRST_BATCH = 1,
	RANGE_LAST_BATCH,
	RANGE_TICK_ID,
	RANGE_NATTS = RANGE_TICK_ID
};

enum
{
	STATE_TICK_ID = 1,
	STATE_LAST_BATCH,
	STATE_HOLES,
	STATE_WATERMARK_BATCH,
	STATE_WATERMARK_XID,
	STATE_SYSTEM_IDENTIFIER,
	STATE_NATTS = STATE_SYSTEM_IDENTIFIER
};

/* What a cut gathers. */
typedef struct Cut
{
	BatchSet *batches;
	int64 nbatches;
	int64 accepted;
	int64 last_batch;
} Cut;

/* Where the events of the last cut went; its memory is TopMemoryContext's. */
static ExtentList last_extents;

/* Runs of ids from the array in which they are stored: first, last, first, last, ... */
static BatchRun *
holes_from_array(ArrayType *array, int *nholes)
{
	int nitems = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	int64 *items = (int64 *) ARR_DATA_PTR(array);
	BatchRun *holes;

	if (ARR_HASNULL(array) || ARR_ELEMTYPE(array) != INT8OID || nitems % 2 != 0)
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("behavior._tick_state.holes is not a list of runs")));
	*nholes = nitems / 2;
	holes = palloc(sizeof(BatchRun) * (*nholes + 1));
	for (int i = 0; i < *nholes; i++)
	{
		holes[i].first = items[2 * i];
		holes[i].last = items[2 * i + 1];
	}
	return holes;
}

static ArrayType *
holes_to_array(const BatchRun *holes, int nholes)
{
	Datum *items = palloc(sizeof(Datum) * (2 * nholes + 1));

	for (int i = 0; i < nholes; i++)
	{
		items[2 * i] = Int64GetDatum(holes[i].first);
		items[2 * i + 1] = Int64GetDatum(holes[i].last);
	}
	return construct_array(items, 2 * nholes, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
						   TYPALIGN_DOUBLE);
}

/* Reads the newest state from tick "least" on; false when the snapshot sees none. */
static bool
newest_state(Relation rel, Relation index, Snapshot snapshot, int64 least, TickState *state)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key, STATE_TICK_ID, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(least));
	scan = systable_beginscan_ordered(rel, index, snapshot, 1, &key);
	tuple = systable_getnext_ordered(scan, BackwardScanDirection);
	if (HeapTupleIsValid(tuple))
	{
		Datum values[STATE_NATTS];
		bool nulls[STATE_NATTS];

		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		state->exists = true;
		state->tid = tuple->t_self;
		state->tick_id = DatumGetInt64(values[STATE_TICK_ID - 1]);
		state->last_batch = DatumGetInt64(values[STATE_LAST_BATCH - 1]);
		state->holes =
			holes_from_array(DatumGetArrayTypeP(values[STATE_HOLES - 1]), &state->nholes);
		state->watermark_batch = DatumGetInt64(values[STATE_WATERMARK_BATCH - 1]);
		state->watermark_xid =
			U64FromFullTransactionId(DatumGetFullTransactionId(values[STATE_WATERMARK_XID - 1]));
		state->system_identifier = DatumGetInt64(values[STATE_SYSTEM_IDENTIFIER - 1]);
	}
	systable_endscan_ordered(scan);
	return state->exists;
}

/*
 * An index scan takes all of a page that its keys allow before it returns the first row, so it
 * looks behind the last tick that this backend has seen first, and at everything when nothing is
 * there.
 */
void
tick_state_read(Snapshot snapshot, TickState *state)
{
	static int64 last_seen = 0;
	Relation rel = table_open(behavior_relid(REL_TICK_STATE), AccessShareLock);
	Relation index = index_open(behavior_relid(REL_TICK_STATE_PKEY), AccessShareLock);

	memset(state, 0, sizeof(*state));
	if (!newest_state(rel, index, snapshot, last_seen, state))
		(void) newest_state(rel, index, snapshot, 0, state);
	last_seen = state->tick_id;
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
}

/* Writes the state of the tick that was just cut, in place of the one before it. */
static void
tick_state_write(const TickState *old, const TickState *new)
{
	Relation rel = table_open(behavior_relid(REL_TICK_STATE), RowExclusiveLock);
	Datum values[STATE_NATTS];
	bool nulls[STATE_NATTS] = {0};

	values[STATE_TICK_ID - 1] = Int64GetDatum(new->tick_id);
	values[STATE_LAST_BATCH - 1] = Int64GetDatum(new->last_batch);
	values[STATE_HOLES - 1] = PointerGetDatum(holes_to_array(new->holes, new->nholes));
	values[STATE_WATERMARK_BATCH - 1] = Int64GetDatum(new->watermark_batch);
	values[STATE_WATERMARK_XID - 1] =
		FullTransactionIdGetDatum(FullTransactionIdFromU64(new->watermark_xid));
	values[STATE_SYSTEM_IDENTIFIER - 1] = Int64GetDatum(new->system_identifier);
	table_row_insert(rel, heap_form_tuple(RelationGetDescr(rel), values, nulls), NULL);
	if (old->exists)
		CatalogTupleDelete(rel, unconstify(ItemPointerData *, &old->tid));
	table_close(rel, NoLock);
}

/* Batches first..last by the primary key.  Returns false when the callback had enough. */
static bool
scan_batches(Relation rel, Relation index, Snapshot snapshot, int64 first, int64 last,
			 WaitingBatchCallback callback, void *arg)
{
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple tuple;
	bool more = true;

	ScanKeyInit(&keys[0], BATCH_ID, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(first));
	ScanKeyInit(&keys[1], BATCH_ID, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(last));
	scan = systable_beginscan_ordered(rel, index, snapshot, 2, keys);
	while (more && HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		TupleDesc desc = RelationGetDescr(rel);
		bool isnull;
		int64 id = DatumGetInt64(heap_getattr(tuple, BATCH_ID, desc, &isnull));
		int64 accepted = DatumGetInt64(heap_getattr(tuple, BATCH_ACCEPTED, desc, &isnull));

		CHECK_FOR_INTERRUPTS();
		more = callback(id, accepted, arg);
	}
	systable_endscan_ordered(scan);
	return more;
}

void
tick_scan_waiting(const TickState *state, Snapshot snapshot, WaitingBatchCallback callback,
				  void *arg)
{
	Relation rel = table_open(behavior_relid(REL_BATCH), AccessShareLock);
	Relation index = index_open(behavior_relid(REL_BATCH_PKEY), AccessShareLock);
	bool more = true;

	for (int i = 0; more && i < state->nholes; i++)
		more = scan_batches(rel, index, snapshot, state->holes[i].first, state->holes[i].last,
							callback, arg);
	if (more)
		scan_batches(rel, index, snapshot, state->last_batch + 1, PG_INT64_MAX, callback, arg);

	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
}

/* A snapshot's xmin with its epoch. */
static uint64
snapshot_full_xmin(Snapshot snapshot)
{
	FullTransactionId next = ReadNextFullTransactionId();
	uint32 epoch = EpochFromFullTransactionId(next);

	if (snapshot->xmin > XidFromFullTransactionId(next))
		epoch--;
	return U64FromFullTransactionId(FullTransactionIdFromEpochAndXid(epoch, snapshot->xmin));
}

/* Drops the holes that can never be filled, and sets the next watermark once the last one has
 * served. */
static void
advance_watermark(TickState *state, const TickState *old, Snapshot snapshot)
{
	int64 settled = -1;
	int kept = 0;

	if (old->exists && old->system_identifier != (int64) GetSystemIdentifier())
		settled = old->last_batch;
	else if (old->exists && snapshot_full_xmin(snapshot) < old->watermark_xid)
		return;
	else
		settled = old->watermark_batch;

	for (int i = 0; i < state->nholes; i++)
	{
		BatchRun hole = state->holes[i];

		if (hole.last <= settled)
			continue;
		if (hole.first <= settled)
			hole.first = settled + 1;
		state->holes[kept++] = hole;
	}
	state->nholes = kept;

	/* Every id up to last_batch has been handed out, by transactions before the next one. */
	state->watermark_batch = state->last_batch;
	state->watermark_xid = U64FromFullTransactionId(ReadNextFullTransactionId());
	state->system_identifier = (int64) GetSystemIdentifier();
}

static void
add_hole(TickState *state, int *max, int64 first, int64 last)
{
	if (first > last)
		return;
	if (state->nholes > 0 && state->holes[state->nholes - 1].last + 1 == first)
	{
		state->holes[state->nholes - 1].last = last;
		return;
	}
	if (state->nholes == *max)
	{
		*max *= 2;
		state->holes = repalloc_huge(state->holes, sizeof(BatchRun) * *max);
	}
	state->holes[state->nholes].first = first;
	state->holes[state->nholes].last = last;
	state->nholes++;
}

/* Ids that were candidates of this cut (old holes, and all above the old last_batch) and were not
 * seen. */
static void
find_holes(TickState *state, const TickState *old, const BatchSet *seen)
{
	int max = 64;
	int next_seen = 0;

	state->nholes = 0;
	state->holes = palloc(sizeof(BatchRun) * max);
	for (int i = 0; i <= old->nholes; i++)
	{
		int64 first = i < old->nholes ? old->holes[i].first : old->last_batch + 1;
		int64 last = i < old->nholes ? old->holes[i].last : state->last_batch;

		/* A run of the seen may go on from one hole into the next. */
		while (next_seen < seen->nruns && seen->runs[next_seen].last < first)
			next_seen++;
		for (int j = next_seen; j < seen->nruns && seen->runs[j].first <= last; j++)
		{
			add_hole(state, &max, first, seen->runs[j].first - 1);
			first = Max(first, seen->runs[j].last + 1);
		}
		add_hole(state, &max, first, last);
	}
}

static bool
cut_batch(int64 batch_id, int64 accepted, void *arg)
{
	Cut *cut = arg;

	batch_set_append(cut->batches, batch_id, batch_id);
	cut->nbatches++;
	cut->accepted += accepted;
	cut->last_batch = Max(cut->last_batch, batch_id);
	return true;
}

/* Writes behavior.tick and behavior._tick_range. */
static void
write_tick(Relation tick_rel, int64 tick_id, const Cut *cut, const TickEventsSummary *summary)
{
	Relation range_rel = table_open(behavior_relid(REL_TICK_RANGE), RowExclusiveLock);
	CatalogIndexState indexes = CatalogOpenIndexes(range_rel);
	Datum values[TICK_NATTS];
	bool nulls[TICK_NATTS] = {0};

	values[TICK_ID - 1] = Int64GetDatum(tick_id);
	values[TICK_TICKED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[TICK_BATCHES - 1] = Int64GetDatum(cut->nbatches);
	values[TICK_EVENTS - 1] = Int64GetDatum(cut->accepted);
	values[TICK_FIRST_OCCURRED_AT - 1] = TimestampTzGetDatum(summary->first_occurred_at);
	values[TICK_LAST_OCCURRED_AT - 1] = TimestampTzGetDatum(summary->last_occurred_at);
	nulls[TICK_FIRST_OCCURRED_AT - 1] = nulls[TICK_LAST_OCCURRED_AT - 1] = summary->events == 0;
	table_row_insert(tick_rel, heap_form_tuple(RelationGetDescr(tick_rel), values, nulls), NULL);

	memset(nulls, 0, sizeof(nulls));
	for (int i = 0; i < cut->batches->nruns; i++)
	{
		HeapTuple tuple;

		values[RANGE_FIRST_BATCH - 1] = Int64GetDatum(cut->batches->runs[i].first);
		values[RANGE_LAST_BATCH - 1] = Int64GetDatum(cut->batches->runs[i].last);
		values[RANGE_TICK_ID - 1] = Int64GetDatum(tick_id);
		tuple = heap_form_tuple(RelationGetDescr(range_rel), values, nulls);
		table_row_insert(range_rel, tuple, indexes);
		heap_freetuple(tuple);
	}
	CatalogCloseIndexes(indexes);
	table_close(range_rel, NoLock);
}

/* Keeps what tick_summarize() needs; a later cut replaces it. */
static void
remember_extents(const ExtentList *extents)
{
	Size size = sizeof(Extent) * extents->count;

	if (last_extents.extents != NULL)
		pfree(last_extents.extents);
	memset(&last_extents, 0, sizeof(last_extents));
	if (extents->count == 0)
		return;
	last_extents.extents = MemoryContextAllocHuge(TopMemoryContext, size);
	memcpy(last_extents.extents, extents->extents, size);
	last_extents.count = last_extents.max = extents->count;
}

void
tick_summarize(void)
{
	ExtentList extents = last_extents;

	if (extents.count == 0)
		return;
	memset(&last_extents, 0, sizeof(last_extents));
	log_summarize(&extents);
	pfree(extents.extents);
}

int64
tick_cut(bool wait)
{
	Relation tick_rel = table_open(behavior_relid(REL_TICK), RowExclusiveLock);
	MemoryContext context;
	MemoryContext old_context;
	Snapshot snapshot;
	TickState old;
	TickState new;
	TickEventsSummary summary;
	IntakeSums *sums;
	Cut cut = {0};

	if (wait)
		behavior_lock(RelationGetRelid(tick_rel), TICK_LOCK, ExclusiveLock);
	else if (!behavior_lock_conditional(RelationGetRelid(tick_rel), TICK_LOCK, ExclusiveLock))
	{
		table_close(tick_rel, RowExclusiveLock);
		return -1;
	}

	context = AllocSetContextCreate(CurrentMemoryContext, "behavior tick", ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(context);

	/* What is read of the state keeps its place until it is replaced. */
	LockRelationOid(behavior_relid(REL_TICK_STATE), RowExclusiveLock);

	/* Taken after the lock: it sees the last cut, and this transaction's own batches. */
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	tick_state_read(snapshot, &old);

	cut.batches = batch_set_make();
	cut.last_batch = old.last_batch;
	tick_scan_waiting(&old, snapshot, cut_batch, &cut);

	new = old;
	if (cut.accepted > 0 || cut.nbatches > MAX_IDLE_BATCHES)
	{
		new.tick_id = old.tick_id + 1;
		new.last_batch = cut.last_batch;
		find_holes(&new, &old, cut.batches);
		advance_watermark(&new, &old, snapshot);

		tick_events_load(cut.batches, new.tick_id, snapshot, &summary);
		if (summary.events != cut.accepted)
			ereport(WARNING,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("tick %lld has " INT64_FORMAT
							" events in the log, but its batches accepted " INT64_FORMAT,
							(long long) new.tick_id, summary.events, cut.accepted),
					 errdetail("Rows of behavior.log or behavior._batch were changed or lost.")));
		write_tick(tick_rel, new.tick_id, &cut, &summary);
		tick_state_write(&old, &new);
		sums = intake_begin();
		batch_scan(cut.batches, snapshot, intake_add, sums);
		intake_store(sums, new.tick_id);
		remember_extents(intake_extents(sums));
		CommandCounterIncrement();
		/* The lock is kept until commit: whoever cuts next must see this tick. */
	}
	else
		behavior_unlock(RelationGetRelid(tick_rel), TICK_LOCK, ExclusiveLock);

	UnregisterSnapshot(snapshot);
	table_close(tick_rel, NoLock);
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
	return new.tick_id;
}

int64
tick_last(Snapshot snapshot)
{
	TickState state;

	tick_state_read(snapshot, &state);
	return state.tick_id;
}

static bool
add_to_set(int64 batch_id, int64 accepted, void *arg)
{
	batch_set_add((BatchSet *) arg, batch_id, batch_id);
	return true;
}

BatchSet *
tick_batches(Snapshot snapshot, int64 after_tick, int64 upto_tick)
{
	BatchSet *set = batch_set_make();
	Relation rel = table_open(behavior_relid(REL_TICK_RANGE), AccessShareLock);
	Relation index = index_open(behavior_relid(REL_TICK_RANGE_TICK_ID), AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&keys[0], RANGE_TICK_ID, BTGreaterStrategyNumber, F_INT8GT,
				Int64GetDatum(after_tick));
	ScanKeyInit(&keys[1], RANGE_TICK_ID, BTLessEqualStrategyNumber, F_INT8LE,
				Int64GetDatum(upto_tick));
	scan = systable_beginscan_ordered(rel, index, snapshot, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		Datum values[RANGE_NATTS];
		bool nulls[RANGE_NATTS];

		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		batch_set_add(set, DatumGetInt64(values[RANGE_FIRST_BATCH - 1]),
					  DatumGetInt64(values[RANGE_LAST_BATCH - 1]));
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);

	if (upto_tick == TICK_ALL)
	{
		TickState state;

		tick_state_read(snapshot, &state);
		tick_scan_waiting(&state, snapshot, add_to_set, set);
	}
	batch_set_normalize(set);
	return set;
}

typedef struct Waiting
{
	int64 events;
	int64 limit;
} Waiting;

static bool
count_waiting(int64 batch_id, int64 accepted, void *arg)
{
	Waiting *waiting = arg;

	waiting->events += accepted;
	return waiting->events < waiting->limit;
}

int64
tick_waiting(int64 limit)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	Waiting waiting = {0, limit};
	TickState state;

	tick_state_read(snapshot, &state);
	tick_scan_waiting(&state, snapshot, count_waiting, &waiting);
	UnregisterSnapshot(snapshot);
	return waiting.events;
}

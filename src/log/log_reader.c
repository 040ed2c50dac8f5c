/*
 * log_reader.c
 *		Reads the events of given batches without trusting the planner.
 *
 * First the blocks that the batches' extents name, each once.  Where fewer rows than
 * a batch accepted are found (a restore, VACUUM FULL or a move out of the
 * DEFAULT partition put them elsewhere), the missing batches are looked for through the
 * BRIN index of every partition, and where even that does not bring them all, in every block.
 * Each step leaves out the blocks that a step before has read, in which all
 * there was has been handed over: so no row is handed over twice.
 *
 * A page is read as a sequential scan does it: visible rows are noted under a
 * share lock on the buffer and handed over under the pin alone.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/visibilitymap.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_type_d.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "nodes/tidbitmap.h"
#include "storage/bufmgr.h"
#include "storage/predicate.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "log/batch.h"
#include "log/block_ranges.h"
#include "log/log_reader.h"
#include "log/log_row.h"
#include "log/partition.h"

/* A BRIN scan takes missing batches together whose ids are this near. */
#define BRIN_JOIN_GAP	   1024
#define BRIN_MAX_SCANS	   64
#define BULK_READ_FRACTION 4 /* of shared buffers: more blocks are read through a ring */

/* A batch to read: how many rows it should have, and how many were handed over. */
typedef struct Wanted
{
	int64 batch_id;
	int64 expected;
	int64 found;
	bool missing; /* still, after the step before */
} Wanted;

typedef struct Reader
{
	Snapshot snapshot;
	LogRowCallback callback;
	void *arg;
	MemoryContext caller; /* in which the callback runs */
	TupleDesc desc;		  /* of behavior.log */
	uint64 rows;		  /* handed over */
	uint64 looked_at;

	/* Which rows: all when nothing is set. */
	bool by_time;
	TimestampTz lower;
	TimestampTz upper; /* exclusive */
	const BatchSet *set;
	Wanted *wanted; /* ascending */
	int nwanted;
	int max_wanted;
	int last_hit;
	bool missing_only;
	int64 missing_rows;

	BlockRanges extents;
} Reader;

static void
reader_init(Reader *reader, MemoryContext caller, Snapshot snapshot, LogRowCallback callback,
			void *arg)
{
	Relation parent = table_open(behavior_relid(REL_LOG), AccessShareLock);

	memset(reader, 0, sizeof(*reader));
	reader->snapshot = snapshot;
	reader->callback = callback;
	reader->arg = arg;
	reader->caller = caller;
	reader->desc = CreateTupleDescCopy(RelationGetDescr(parent));
	table_close(parent, AccessShareLock);
}

/* The batch's entry when its rows are wanted now. */
static Wanted *
find_wanted(Reader *reader, int64 batch_id)
{
	int low = 0;
	int high = reader->nwanted;
	Wanted *wanted;

	if (reader->nwanted == 0)
		return NULL;
	wanted = &reader->wanted[reader->last_hit];
	if (wanted->batch_id != batch_id)
	{
		while (low < high)
		{
			int middle = low + (high - low) / 2;

			if (reader->wanted[middle].batch_id < batch_id)
				low = middle + 1;
			else
				high = middle;
		}
		if (low == reader->nwanted || reader->wanted[low].batch_id != batch_id)
			return NULL;
		reader->last_hit = low;
		wanted = &reader->wanted[low];
	}
	return reader->missing_only && !wanted->missing ? NULL : wanted;
}

/* Should the row be handed over?  Counts it then. */
static bool
take_row(Reader *reader, TupleTableSlot *slot)
{
	bool isnull;
	int64 batch_id;

	if (reader->by_time)
	{
		TimestampTz at = DatumGetTimestampTz(slot_getattr(slot, LOG_OCCURRED_AT, &isnull));

		return at >= reader->lower && at < reader->upper;
	}
	if (reader->wanted == NULL && reader->set == NULL)
		return true;
	batch_id = DatumGetInt64(slot_getattr(slot, LOG_BATCH_ID, &isnull));
	if (reader->set != NULL)
		return batch_set_contains(reader->set, batch_id);
	else
	{
		Wanted *wanted = find_wanted(reader, batch_id);

		if (wanted == NULL)
			return false;
		wanted->found++;
		if (reader->missing_only)
			reader->missing_rows--;
		return true;
	}
}

/* Hands over what is wanted of one block. */
static void
read_block(Reader *reader, Relation rel, BlockNumber block, BufferAccessStrategy strategy,
		   TupleTableSlot *slot)
{
	OffsetNumber visible[MaxHeapTuplesPerPage];
	int nvisible = 0;
	Buffer buffer = ReadBufferExtended(rel, MAIN_FORKNUM, block, RBM_NORMAL, strategy);
	Page page = BufferGetPage(buffer);
	OffsetNumber last;
	bool all_visible;
	HeapTupleData tuple;
	MemoryContext old;

	CHECK_FOR_INTERRUPTS();
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	last = PageGetMaxOffsetNumber(page);
	all_visible = PageIsAllVisible(page) && !reader->snapshot->takenDuringRecovery;
	tuple.t_tableOid = RelationGetRelid(rel);
	for (OffsetNumber offset = FirstOffsetNumber; offset <= last; offset++)
	{
		ItemId item = PageGetItemId(page, offset);
		bool valid = true;

		if (!ItemIdIsNormal(item))
			continue;
		tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
		tuple.t_len = ItemIdGetLength(item);
		ItemPointerSet(&tuple.t_self, block, offset);
		if (!all_visible)
			valid = HeapTupleSatisfiesVisibility(&tuple, reader->snapshot, buffer);
		HeapCheckForSerializableConflictOut(valid, rel, &tuple, buffer, reader->snapshot);
		if (valid)
			visible[nvisible++] = offset;
	}
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);

	reader->looked_at += nvisible;
	old = MemoryContextSwitchTo(reader->caller);
	for (int i = 0; i < nvisible; i++)
	{
		ItemId item = PageGetItemId(page, visible[i]);

		tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
		tuple.t_len = ItemIdGetLength(item);
		ItemPointerSet(&tuple.t_self, block, visible[i]);
		ExecStoreBufferHeapTuple(&tuple, slot, buffer);
		if (take_row(reader, slot))
		{
			reader->callback(slot, reader->arg);
			reader->rows++;
		}
	}
	MemoryContextSwitchTo(old);
	ExecClearTuple(slot);
	ReleaseBuffer(buffer);
}

static BufferAccessStrategy
strategy_for(BlockNumber blocks)
{
	return blocks > NBuffers / BULK_READ_FRACTION ? GetAccessStrategy(BAS_BULKREAD) : NULL;
}

/* Opens a partition for reading; NULL when it is gone or not one that rows can be read from. */
static Relation
open_partition(Reader *reader, Oid relid)
{
	Relation rel = try_relation_open(relid, AccessShareLock);

	if (rel == NULL)
		return NULL;
	if (!log_partition_fits(rel))
	{
		relation_close(rel, AccessShareLock);
		return NULL;
	}
	PredicateLockRelation(rel, reader->snapshot);
	return rel;
}

/* The blocks of one partition that the extents name: ranges[0..n). */
static void
read_extents(Reader *reader, Oid relid, const BlockRange *ranges, int n)
{
	Relation rel = open_partition(reader, relid);
	BufferAccessStrategy strategy;
	TupleTableSlot *slot;
	BlockNumber blocks;
	BlockNumber wanted = 0;

	if (rel == NULL)
		return;
	slot = MakeSingleTupleTableSlot(reader->desc, &TTSOpsBufferHeapTuple);
	blocks = RelationGetNumberOfBlocks(rel);
	for (int i = 0; i < n; i++)
		wanted += ranges[i].last - ranges[i].first + 1;
	strategy = strategy_for(wanted);

	for (int i = 0; i < n && ranges[i].first < blocks; i++)
	{
		BlockNumber last = Min(ranges[i].last, blocks - 1);

		/* The jump to the next range is what the kernel does not foresee. */
		if (i + 1 < n && ranges[i + 1].first < blocks)
			(void) PrefetchBuffer(rel, MAIN_FORKNUM, ranges[i + 1].first);
		for (BlockNumber block = ranges[i].first; block <= last; block++)
			read_block(reader, rel, block, strategy, slot);
	}
	if (strategy != NULL)
		FreeAccessStrategy(strategy);
	ExecDropSingleTupleTableSlot(slot);
	relation_close(rel, AccessShareLock);
}

/* Which column of an index is this column of the table, and can be asked for ranges; 0: none. */
static AttrNumber
index_column(Relation index, AttrNumber column)
{
	for (int i = 0; i < index->rd_index->indnkeyatts; i++)
	{
		Oid type = index->rd_opcintype[i];

		if (index->rd_index->indkey.values[i] == column &&
			OidIsValid(get_opfamily_member(index->rd_opfamily[i], type, type,
										   BTGreaterEqualStrategyNumber)))
			return i + 1;
	}
	return 0;
}

/* The first valid BRIN index over a column of a partition, opened; NULL when there is none. */
static Relation
open_brin(Relation rel, AttrNumber column)
{
	List *indexes = RelationGetIndexList(rel);
	Relation found = NULL;
	ListCell *cell;

	foreach (cell, indexes)
	{
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);

		if (index->rd_rel->relam == BRIN_AM_OID && index->rd_index->indisvalid &&
			index_column(index, column) > 0 && RelationGetIndexPredicate(index) == NIL)
		{
			found = index;
			break;
		}
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	return found;
}

/* Adds the blocks that may hold batches, or times, first..last. */
static void
scan_brin(Reader *reader, Relation index, int64 first, int64 last, TIDBitmap *bitmap)
{
	AttrNumber column = index_column(index, reader->by_time ? LOG_OCCURRED_AT : LOG_BATCH_ID);
	Oid type = reader->by_time ? TIMESTAMPTZOID : INT8OID;
	ScanKeyData keys[2];
	IndexScanDesc scan;

	/* BRIN wants the type of the right side named. */
	ScanKeyEntryInitialize(&keys[0], 0, column, BTGreaterEqualStrategyNumber, type, InvalidOid,
						   reader->by_time ? F_TIMESTAMPTZ_GE : F_INT8GE, Int64GetDatum(first));
	ScanKeyEntryInitialize(&keys[1], 0, column, BTLessEqualStrategyNumber, type, InvalidOid,
						   reader->by_time ? F_TIMESTAMPTZ_LE : F_INT8LE, Int64GetDatum(last));
	scan = compat_index_beginscan_bitmap(index, reader->snapshot, 2);
	index_rescan(scan, keys, 2, NULL, 0);
	(void) index_getbitmap(scan, bitmap);
	index_endscan(scan);
}

/* Scans for all that is missing, near ids together. */
static void
scan_brin_for_missing(Reader *reader, Relation index, TIDBitmap *bitmap)
{
	int64 first = 0;
	int64 last = 0;
	int scans = 0;
	bool open = false;

	for (int i = 0; i < reader->nwanted; i++)
	{
		int64 batch_id = reader->wanted[i].batch_id;

		if (!reader->wanted[i].missing)
			continue;
		if (open && (batch_id - last <= BRIN_JOIN_GAP || scans >= BRIN_MAX_SCANS))
		{
			last = batch_id;
			continue;
		}
		if (open)
		{
			scan_brin(reader, index, first, last, bitmap);
			scans++;
		}
		first = last = batch_id;
		open = true;
	}
	if (open)
		scan_brin(reader, index, first, last, bitmap);
}

/*
 * Reads, of one partition, the blocks that its BRIN index names, or all when "whole" or when it
 * has no such index; leaves out those in the two lists, and adds those read to "done".
 */
static void
read_partition(Reader *reader, const LogPartition *part, bool whole, const BlockRanges *skip1,
			   const BlockRanges *skip2, BlockRanges *done)
{
	Relation rel = open_partition(reader, part->relid);
	int32 day = log_partition_day(part);
	Relation index = NULL;
	TupleTableSlot *slot;
	BlockNumber blocks;
	BufferAccessStrategy strategy;

	if (rel == NULL)
		return;
	slot = MakeSingleTupleTableSlot(reader->desc, &TTSOpsBufferHeapTuple);
	blocks = RelationGetNumberOfBlocks(rel);
	strategy = strategy_for(blocks);
	if (!whole)
		index = open_brin(rel, reader->by_time ? LOG_OCCURRED_AT : LOG_BATCH_ID);

	if (index != NULL)
	{
		TIDBitmap *bitmap = tbm_create((long) work_mem * 1024L, NULL);
		CompatBlockIterator *iterator;
		BlockNumber block;

		if (reader->wanted != NULL)
			scan_brin_for_missing(reader, index, bitmap);
		if (reader->by_time)
			scan_brin(reader, index, reader->lower, reader->upper, bitmap);
		for (int i = 0; reader->set != NULL && i < reader->set->nruns; i++)
			scan_brin(reader, index, reader->set->runs[i].first, reader->set->runs[i].last, bitmap);
		iterator = compat_block_iterator(bitmap);
		while (compat_next_block(iterator, &block))
		{
			if (block >= blocks || (skip1 != NULL && block_ranges_contain(skip1, day, block)))
				continue;
			read_block(reader, rel, block, strategy, slot);
			if (done != NULL)
				block_ranges_add(done, day, block, block);
		}
		compat_end_block_iterator(iterator);
		tbm_free(bitmap);
		index_close(index, AccessShareLock);
	}
	else
	{
		for (BlockNumber block = 0; block < blocks; block++)
		{
			if ((skip1 != NULL && block_ranges_contain(skip1, day, block)) ||
				(skip2 != NULL && block_ranges_contain(skip2, day, block)))
				continue;
			read_block(reader, rel, block, strategy, slot);
			if (done != NULL)
				block_ranges_add(done, day, block, block);
		}
	}
	if (strategy != NULL)
		FreeAccessStrategy(strategy);
	ExecDropSingleTupleTableSlot(slot);
	relation_close(rel, AccessShareLock);
}

/* Notes what a batch should have and where it should be. */
static void
note_batch(const Batch *batch, void *arg)
{
	Reader *reader = (Reader *) arg;
	Wanted *wanted;

	if (batch->counts.accepted == 0)
		return;
	if (reader->nwanted == reader->max_wanted)
	{
		reader->max_wanted *= 2;
		reader->wanted =
			(Wanted *) repalloc_huge(reader->wanted, reader->max_wanted * sizeof(Wanted));
	}
	wanted = &reader->wanted[reader->nwanted++];
	wanted->batch_id = batch->batch_id;
	wanted->expected = batch->counts.accepted;
	wanted->found = 0;
	wanted->missing = false;
	for (int i = 0; i < batch->extents.count; i++)
	{
		const Extent *extent = &batch->extents.extents[i];

		if (extent->first_block <= extent->last_block)
			block_ranges_add(&reader->extents, extent->partition_day, extent->first_block,
							 extent->last_block);
	}
}

/* Marks the batches that are not complete; false when all are. */
static bool
mark_missing(Reader *reader)
{
	reader->missing_rows = 0;
	for (int i = 0; i < reader->nwanted; i++)
	{
		Wanted *wanted = &reader->wanted[i];

		wanted->missing = wanted->found < wanted->expected;
		if (wanted->missing)
			reader->missing_rows += wanted->expected - wanted->found;
	}
	reader->missing_only = true;
	return reader->missing_rows > 0;
}

static Oid
relid_of_day(const LogPartition *parts, int nparts, int32 day)
{
	for (int i = 0; i < nparts; i++)
	{
		if (log_partition_day(&parts[i]) == day)
			return parts[i].relid;
	}
	return InvalidOid;
}

/* What the extents did not bring: through BRIN, then block by block. */
static void
read_missing(Reader *reader, const LogPartition *parts, int nparts)
{
	BlockRanges done;

	ereport(DEBUG1, (errmsg_internal("%lld events are not where their batches say",
									 (long long) reader->missing_rows)));
	block_ranges_init(&done);
	for (int i = 0; i < nparts && reader->missing_rows > 0; i++)
		read_partition(reader, &parts[i], false, &reader->extents, NULL, &done);
	if (!mark_missing(reader))
		return;

	block_ranges_join(&done);
	for (int i = 0; i < nparts && reader->missing_rows > 0; i++)
		read_partition(reader, &parts[i], true, &reader->extents, &done, NULL);
	if (mark_missing(reader))
	{
		int first = 0;

		while (!reader->wanted[first].missing)
			first++;
		ereport(WARNING, (errcode(ERRCODE_DATA_CORRUPTED),
						  errmsg("%lld accepted events are not in behavior.log",
								 (long long) reader->missing_rows),
						  errdetail("The first batch that lacks some is %lld.",
									(long long) reader->wanted[first].batch_id),
						  errhint("A partition may have been dropped or emptied by hand.")));
	}
}

uint64
log_read_batches(const BatchSet *set, Snapshot snapshot, LogRowCallback callback, void *arg)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "log reader", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Reader reader;
	LogPartition *parts;
	int nparts;
	int i = 0;

	reader_init(&reader, old, snapshot, callback, arg);
	reader.max_wanted = 64;
	reader.wanted = (Wanted *) palloc(reader.max_wanted * sizeof(Wanted));
	block_ranges_init(&reader.extents);
	batch_scan(set, snapshot, note_batch, &reader);
	block_ranges_join(&reader.extents);

	parts = log_partitions(&nparts);
	while (i < reader.extents.count)
	{
		int32 day = reader.extents.ranges[i].partition_day;
		Oid relid = relid_of_day(parts, nparts, day);
		int n = 1;

		while (i + n < reader.extents.count && reader.extents.ranges[i + n].partition_day == day)
			n++;
		if (OidIsValid(relid))
			read_extents(&reader, relid, &reader.extents.ranges[i], n);
		i += n;
	}
	if (mark_missing(&reader))
		read_missing(&reader, parts, nparts);

	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return reader.rows;
}

uint64
log_read_indexed(const BatchSet *set, Snapshot snapshot, LogRowCallback callback, void *arg)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "log reader", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Reader reader;
	LogPartition *parts;
	int nparts;

	reader_init(&reader, old, snapshot, callback, arg);
	reader.set = set;
	parts = log_partitions(&nparts);
	for (int i = 0; i < nparts; i++)
		read_partition(&reader, &parts[i], false, NULL, NULL, NULL);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return reader.rows;
}

uint64
log_walk(Oid relid, BlockNumber first, BlockNumber last, Snapshot snapshot, LogRowCallback callback,
		 void *arg)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "log reader", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Reader reader;
	BlockRange range = {0, first, last};

	reader_init(&reader, old, snapshot, callback, arg);
	read_extents(&reader, relid, &range, 1);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return reader.rows;
}

uint64
log_read_partition(Oid relid, const BatchSet *set, Snapshot snapshot, LogRowCallback callback,
				   void *arg)
{
	LogPartition part = {relid};
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "log reader", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Reader reader;

	reader_init(&reader, old, snapshot, callback, arg);
	reader.set = set;
	read_partition(&reader, &part, false, NULL, NULL, NULL);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return reader.rows;
}

uint64
log_read_time(Oid relid, TimestampTz lower, TimestampTz upper, Snapshot snapshot,
			  LogRowCallback callback, void *arg)
{
	LogPartition part = {relid};
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "log reader", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Reader reader;

	reader_init(&reader, old, snapshot, callback, arg);
	reader.by_time = true;
	reader.lower = lower;
	reader.upper = upper;
	read_partition(&reader, &part, false, NULL, NULL, NULL);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return reader.looked_at;
}

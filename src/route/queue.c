/*
 * queue.c
 *		What has been routed to a subscription and not been consumed: references to events of the
 *		log.
 *
 * Rows of behavior._delivery_chunk are only appended, by the router or a replay, and deleted from
 * the front.  Whoever reads starts at the subscription's position, so that rows which were consumed
 * and that an old snapshot holds back lie behind him and cost nothing.
 *
 * The queue has two parts: what a replay queued, and what the router does (live), which comes
 * after it.  Delivery ids ascend within each.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "commands/sequence.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/table_row.h"
#include "route/queue.h"

enum
{
	CHUNK_SUBSCRIPTION_ID = 1,
	CHUNK_LIVE,
	CHUNK_FIRST_DELIVERY_ID,
	CHUNK_EVENTS,
	CHUNK_QUEUED,
	CHUNK_TICK_ID,
	CHUNK_QUEUED_AT,
	CHUNK_REFS,
	CHUNK_NATTS = CHUNK_REFS
};

/* A row of behavior._delivery_chunk; refs points into the scan's tuple or a copy. */
typedef struct Chunk
{
	int64 first;
	int events;
	int64 queued;
	TimestampTz queued_at;
	const EventRef *refs;
	ItemPointerData tid;
} Chunk;

typedef struct ChunkScan
{
	Relation rel;
	Relation index;
	SysScanDesc scan;
} ChunkScan;

EventRef
event_ref_make(int32 partition_day, ItemPointer tid, int64 batch_id, const uint8 *key)
{
	EventRef ref;

	ref.partition_day = partition_day;
	ref.block = ItemPointerGetBlockNumber(tid);
	ref.line = ItemPointerGetOffsetNumber(tid);
	memcpy(&ref.key_low, key, sizeof(uint32));
	memcpy(&ref.key_high, key + sizeof(uint32), sizeof(uint32));
	ref.batch_low = (uint32) batch_id;
	ref.batch_high = (uint32) ((uint64) batch_id >> 32);
	return ref;
}

int64
event_ref_batch(const EventRef *ref)
{
	return (int64) ((uint64) ref->batch_high << 32 | ref->batch_low);
}

/* The rows of one part that hold delivery ids from "least" on. */
static void
chunk_scan_begin(ChunkScan *scan, int64 subscription_id, bool live, int64 least, Snapshot snapshot,
				 LOCKMODE lock)
{
	ScanKeyData keys[3];

	scan->rel = table_open(behavior_relid(REL_DELIVERY_CHUNK), lock);
	scan->index = index_open(behavior_relid(REL_DELIVERY_CHUNK_PKEY), AccessShareLock);
	ScanKeyInit(&keys[0], CHUNK_SUBSCRIPTION_ID, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(subscription_id));
	ScanKeyInit(&keys[1], CHUNK_LIVE, BTEqualStrategyNumber, F_BOOLEQ, BoolGetDatum(live));
	ScanKeyInit(&keys[2], CHUNK_FIRST_DELIVERY_ID, BTGreaterStrategyNumber, F_INT8GT,
				Int64GetDatum(least - QUEUE_CHUNK));
	scan->scan = systable_beginscan_ordered(scan->rel, scan->index, snapshot, 3, keys);
}

static bool
chunk_scan_next(ChunkScan *scan, ScanDirection direction, Chunk *chunk)
{
	HeapTuple tuple = systable_getnext_ordered(scan->scan, direction);
	Datum values[CHUNK_NATTS];
	bool nulls[CHUNK_NATTS];
	bytea *refs;

	if (!HeapTupleIsValid(tuple))
		return false;
	heap_deform_tuple(tuple, RelationGetDescr(scan->rel), values, nulls);
	chunk->tid = tuple->t_self;
	chunk->first = DatumGetInt64(values[CHUNK_FIRST_DELIVERY_ID - 1]);
	chunk->events = DatumGetInt32(values[CHUNK_EVENTS - 1]);
	chunk->queued = DatumGetInt64(values[CHUNK_QUEUED - 1]);
	chunk->queued_at = DatumGetTimestampTz(values[CHUNK_QUEUED_AT - 1]);
	/* A copy where the header is short, and the references at any byte. */
	refs = DatumGetByteaP(values[CHUNK_REFS - 1]);
	chunk->refs = (const EventRef *) VARDATA(refs);
	if (chunk->events < 1 || chunk->events > QUEUE_CHUNK ||
		VARSIZE(refs) - VARHDRSZ != chunk->events * sizeof(EventRef))
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("row %lld of behavior._delivery_chunk is damaged",
							   (long long) chunk->first)));
	return true;
}

static void
chunk_scan_end(ChunkScan *scan, LOCKMODE lock)
{
	systable_endscan_ordered(scan->scan);
	index_close(scan->index, AccessShareLock);
	table_close(scan->rel, lock);
}

/* Where reading a part starts. */
static int64
part_start(const SubscriptionProgress *progress, bool live)
{
	return live == progress->live ? progress->position : 0;
}

/*
 * What "queued" of the last row of a part says; 0 when the part is empty.  Only differences within
 * the rows that are there count, so that it may start anew then.
 */
static int64
last_queued(int64 subscription_id, bool live, Snapshot snapshot)
{
	SubscriptionProgress progress;
	ChunkScan scan;
	Chunk chunk;
	int64 queued = 0;

	/* For the position alone, which others may be moving: consumed is consumed. */
	subscription_progress_read(subscription_id, snapshot, &progress);
	if (live || !progress.live)
	{
		chunk_scan_begin(&scan, subscription_id, live, part_start(&progress, live), snapshot,
						 AccessShareLock);
		if (chunk_scan_next(&scan, BackwardScanDirection, &chunk))
			queued = chunk.queued;
		chunk_scan_end(&scan, AccessShareLock);
	}
	return queued;
}

void
queue_append(int64 subscription_id, bool live, int64 tick_id, const EventRef *refs, int n)
{
	Relation rel = table_open(behavior_relid(REL_DELIVERY_CHUNK), RowExclusiveLock);
	CatalogIndexState indexes = CatalogOpenIndexes(rel);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	int64 queued = last_queued(subscription_id, live, snapshot);
	Datum values[CHUNK_NATTS];
	bool nulls[CHUNK_NATTS] = {false};

	UnregisterSnapshot(snapshot);
	values[CHUNK_SUBSCRIPTION_ID - 1] = Int64GetDatum(subscription_id);
	values[CHUNK_LIVE - 1] = BoolGetDatum(live);
	values[CHUNK_TICK_ID - 1] = Int64GetDatum(tick_id);
	values[CHUNK_QUEUED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	while (n > 0)
	{
		int events = Min(n, QUEUE_CHUNK);
		Size size = events * sizeof(EventRef);
		bytea *packed = palloc(VARHDRSZ + size);
		HeapTuple tuple;

		SET_VARSIZE(packed, VARHDRSZ + size);
		memcpy(VARDATA(packed), refs, size);
		queued += events;
		values[CHUNK_FIRST_DELIVERY_ID - 1] =
			Int64GetDatum(nextval_internal(behavior_relid(REL_DELIVERY_ID_SEQ), false));
		values[CHUNK_EVENTS - 1] = Int32GetDatum(events);
		values[CHUNK_QUEUED - 1] = Int64GetDatum(queued);
		values[CHUNK_REFS - 1] = PointerGetDatum(packed);
		tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
		table_row_insert(rel, tuple, indexes);
		heap_freetuple(tuple);
		pfree(packed);
		refs += events;
		n -= events;
	}
	CatalogCloseIndexes(indexes);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

/* Keeps its lock: what was peeked at keeps its place until it is passed over. */
int
queue_peek(const Subscription *subscription, const SubscriptionProgress *progress,
		   Snapshot snapshot, QueueEntry *entries, int max)
{
	int n = 0;

	for (int part = progress->live ? 1 : 0; part <= (progress->replaying ? 0 : 1) && n < max;
		 part++)
	{
		bool live = part == 1;
		int64 start = part_start(progress, live);
		ChunkScan scan;
		Chunk chunk;

		chunk_scan_begin(&scan, subscription->id, live, start, snapshot, RowExclusiveLock);
		while (n < max && chunk_scan_next(&scan, ForwardScanDirection, &chunk))
		{
			for (int i = (int) Max(start - chunk.first, 0); i < chunk.events && n < max; i++)
			{
				QueueEntry *entry = &entries[n++];

				entry->delivery_id = chunk.first + i;
				entry->ref = chunk.refs[i];
				entry->row = NULL;
				entry->live = live;
				entry->last = i == chunk.events - 1;
				entry->chunk = chunk.tid;
			}
		}
		chunk_scan_end(&scan, NoLock);
	}
	return n;
}

void
queue_pass(const Subscription *subscription, SubscriptionProgress *progress,
		   const QueueEntry *entries, int n)
{
	Relation rel;

	if (n == 0)
		return;
	rel = table_open(behavior_relid(REL_DELIVERY_CHUNK), RowExclusiveLock);
	for (int i = 0; i < n; i++)
	{
		if (entries[i].last)
			CatalogTupleDelete(rel, unconstify(ItemPointerData *, &entries[i].chunk));
	}
	table_close(rel, NoLock);
	progress->live = entries[n - 1].live;
	progress->position = entries[n - 1].delivery_id + 1;
	progress->consumed += n;
	CommandCounterIncrement();
}

int64
queue_waiting(int64 subscription_id, const SubscriptionProgress *progress, Snapshot snapshot,
			  int64 limit, TimestampTz *oldest)
{
	int64 waiting = 0;

	for (int part = progress->live ? 1 : 0; part <= (progress->replaying ? 0 : 1); part++)
	{
		int64 start = part_start(progress, part == 1);
		ChunkScan scan;
		Chunk first;
		Chunk last;

		chunk_scan_begin(&scan, subscription_id, part == 1, start, snapshot, AccessShareLock);
		if (chunk_scan_next(&scan, ForwardScanDirection, &first))
		{
			chunk_scan_end(&scan, AccessShareLock);
			chunk_scan_begin(&scan, subscription_id, part == 1, start, snapshot, AccessShareLock);
			(void) chunk_scan_next(&scan, BackwardScanDirection, &last);
			if (waiting == 0)
				*oldest = first.queued_at;
			waiting += last.queued - first.queued + first.events - Max(start - first.first, 0);
		}
		chunk_scan_end(&scan, AccessShareLock);
	}
	return Min(waiting, limit);
}

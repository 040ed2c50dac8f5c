/*
 * batch.c
 *		Batch rows: written once by the frame, read by ticks and folds, dropped when old.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/guc.h"
#include "core/spi.h"
#include "core/table_row.h"
#include "log/batch.h"

enum
{
	BATCH_ID = 1,
	BATCH_RECEIVED_AT,
	BATCH_SENDER_ID,
	BATCH_RECEIVED,
	BATCH_ACCEPTED,
	BATCH_GENERATED_IDS,
	BATCH_EXTENTS,
	BATCH_BY_SENDER,
	BATCH_NATTS = BATCH_BY_SENDER
};

#define BY_SENDER_COLUMNS 7

/* Runs of a set that are nearer than this are read in one index scan. */
#define SCAN_JOIN_GAP 256

PG_FUNCTION_INFO_V1(behavior__batch_expire);

int64
batch_next_id(void)
{
	(void) GetTopTransactionId();
	return nextval_internal(behavior_relid(REL_BATCH_ID_SEQ), false);
}

/* One line of by_sender. */
static void
set_line(Datum *line, int64 sender_id, const BatchCounts *counts)
{
	line[0] = Int64GetDatum(sender_id);
	line[1] = Int64GetDatum(counts->received);
	line[2] = Int64GetDatum(counts->accepted);
	line[3] = Int64GetDatum(counts->duplicates);
	line[4] = Int64GetDatum(counts->conflicts);
	line[5] = Int64GetDatum(counts->dead_letters);
	line[6] = Int64GetDatum(counts->generated_ids);
}

static Datum
make_by_sender(const Batch *batch)
{
	int nlines = Max(batch->nsources, 1);
	Datum *lines = (Datum *) palloc(nlines * BY_SENDER_COLUMNS * sizeof(Datum));
	int dims[2] = {nlines, BY_SENDER_COLUMNS};
	int lower_bounds[2] = {1, 1};
	ArrayType *array;

	if (batch->nsources == 0)
		set_line(lines, batch->sender_id, &batch->counts);
	for (int i = 0; i < batch->nsources; i++)
		set_line(lines + i * BY_SENDER_COLUMNS, batch->sender_ids[i], &batch->by_source[i]);
	array = construct_md_array(lines, NULL, 2, dims, lower_bounds, INT8OID, sizeof(int64),
							   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
	pfree(lines);
	return PointerGetDatum(array);
}

void
batch_insert(const Batch *batch)
{
	Relation rel = table_open(behavior_relid(REL_BATCH), RowExclusiveLock);
	const BatchCounts *counts = &batch->counts;
	Datum values[BATCH_NATTS] = {0};
	bool isnull[BATCH_NATTS] = {false};
	HeapTuple tuple;

	values[BATCH_ID - 1] = Int64GetDatum(batch->batch_id);
	values[BATCH_RECEIVED_AT - 1] = TimestampTzGetDatum(batch->received_at);
	values[BATCH_SENDER_ID - 1] = Int64GetDatum(batch->sender_id);
	values[BATCH_RECEIVED - 1] = Int64GetDatum(counts->received);
	values[BATCH_ACCEPTED - 1] = Int64GetDatum(counts->accepted);

	if (counts->generated_ids > 0)
		values[BATCH_GENERATED_IDS - 1] =
			Int32GetDatum((int32) Min(counts->generated_ids, PG_INT32_MAX));
	else
		isnull[BATCH_GENERATED_IDS - 1] = true;

	if (batch->extents.count > 0)
	{
		size_t size = batch->extents.count * sizeof(Extent);
		bytea *extents = (bytea *) palloc(VARHDRSZ + size);

		SET_VARSIZE(extents, VARHDRSZ + size);
		memcpy(VARDATA(extents), batch->extents.extents, size);
		values[BATCH_EXTENTS - 1] = PointerGetDatum(extents);
	}
	else
		isnull[BATCH_EXTENTS - 1] = true;

	if (batch->nsources > 1 || counts->accepted != counts->received)
		values[BATCH_BY_SENDER - 1] = make_by_sender(batch);
	else
		isnull[BATCH_BY_SENDER - 1] = true;

	tuple = heap_form_tuple(RelationGetDescr(rel), values, isnull);
	table_row_insert(rel, tuple, NULL);
	heap_freetuple(tuple);
	table_close(rel, NoLock);
}

/* Reads by_sender into arrays, and the batch's counts as their sums. */
static void
read_by_sender(Batch *batch, Datum datum)
{
	ArrayType *array = DatumGetArrayTypeP(datum);
	const int64 *line = (const int64 *) ARR_DATA_PTR(array);
	int64 *sender_ids;
	BatchCounts *by_source;

	if (ARR_NDIM(array) != 2 || ARR_DIMS(array)[1] != BY_SENDER_COLUMNS || ARR_HASNULL(array) ||
		ARR_ELEMTYPE(array) != INT8OID)
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("counts of batch %lld are damaged", (long long) batch->batch_id)));

	batch->nsources = ARR_DIMS(array)[0];
	sender_ids = (int64 *) palloc(batch->nsources * sizeof(int64));
	by_source = (BatchCounts *) palloc(batch->nsources * sizeof(BatchCounts));
	memset(&batch->counts, 0, sizeof(batch->counts));
	for (int i = 0; i < batch->nsources; i++, line += BY_SENDER_COLUMNS)
	{
		BatchCounts *counts = &by_source[i];

		sender_ids[i] = line[0];
		counts->received = line[1];
		counts->accepted = line[2];
		counts->duplicates = line[3];
		counts->conflicts = line[4];
		counts->dead_letters = line[5];
		counts->generated_ids = line[6];
		batch->counts.received += counts->received;
		batch->counts.accepted += counts->accepted;
		batch->counts.duplicates += counts->duplicates;
		batch->counts.conflicts += counts->conflicts;
		batch->counts.dead_letters += counts->dead_letters;
		batch->counts.generated_ids += counts->generated_ids;
	}
	batch->sender_ids = sender_ids;
	batch->by_source = by_source;
}

static void
read_batch(Batch *batch, const Datum *values, const bool *isnull)
{
	memset(batch, 0, sizeof(*batch));
	batch->batch_id = DatumGetInt64(values[BATCH_ID - 1]);
	batch->received_at = DatumGetTimestampTz(values[BATCH_RECEIVED_AT - 1]);
	batch->sender_id = DatumGetInt64(values[BATCH_SENDER_ID - 1]);
	batch->counts.received = DatumGetInt64(values[BATCH_RECEIVED - 1]);
	batch->counts.accepted = DatumGetInt64(values[BATCH_ACCEPTED - 1]);
	if (!isnull[BATCH_GENERATED_IDS - 1])
		batch->counts.generated_ids = DatumGetInt32(values[BATCH_GENERATED_IDS - 1]);
	if (!isnull[BATCH_BY_SENDER - 1])
		read_by_sender(batch, values[BATCH_BY_SENDER - 1]);
	if (!isnull[BATCH_EXTENTS - 1])
	{
		/* A copy unless it is aligned already: short headers leave it at any byte. */
		bytea *extents = DatumGetByteaP(values[BATCH_EXTENTS - 1]);

		batch->extents.count = (VARSIZE(extents) - VARHDRSZ) / sizeof(Extent);
		batch->extents.max = batch->extents.count;
		batch->extents.extents = (Extent *) VARDATA(extents);
	}
}

/* One index scan over first..last, keeping what is in the set. */
static void
scan_run(Relation rel, int64 first, int64 last, const BatchSet *set, bool check, Snapshot snapshot,
		 MemoryContext context, BatchCallback callback, void *arg)
{
	Relation index = index_open(behavior_relid(REL_BATCH_PKEY), AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&keys[0], BATCH_ID, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(first));
	ScanKeyInit(&keys[1], BATCH_ID, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(last));
	scan = systable_beginscan_ordered(rel, index, snapshot, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		Datum values[BATCH_NATTS];
		bool isnull[BATCH_NATTS];
		Batch batch;
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		heap_deform_tuple(tuple, RelationGetDescr(rel), values, isnull);
		if (check && !batch_set_contains(set, DatumGetInt64(values[BATCH_ID - 1])))
			continue;
		old = MemoryContextSwitchTo(context);
		read_batch(&batch, values, isnull);
		MemoryContextSwitchTo(old);
		callback(&batch, arg);
		MemoryContextReset(context);
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
}

void
batch_scan(const BatchSet *set, Snapshot snapshot, BatchCallback callback, void *arg)
{
	Relation rel = table_open(behavior_relid(REL_BATCH), AccessShareLock);
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "batch row", ALLOCSET_SMALL_SIZES);
	int i = 0;

	while (i < set->nruns)
	{
		int64 first = set->runs[i].first;
		int64 last = set->runs[i].last;
		bool joined = false;

		for (i++; i < set->nruns && set->runs[i].first - last <= SCAN_JOIN_GAP; i++)
		{
			last = set->runs[i].last;
			joined = true;
		}
		scan_run(rel, first, last, set, joined, snapshot, context, callback, arg);
	}
	MemoryContextDelete(context);
	table_close(rel, AccessShareLock);
}

/*
 * Batches are looked at from the lowest id on, "limit" of them, when one of the first few is
 * old enough: ids grow with the time of arrival, or nearly, and so little is read in vain.
 */
int64
batch_expire(int64 limit)
{
	static const char *const look =
		"SELECT FROM (SELECT received_at FROM behavior._batch ORDER BY batch_id LIMIT 100) b"
		" WHERE b.received_at < $1 LIMIT 1";
	static const char *const delete_batches =
		"DELETE FROM behavior._batch WHERE batch_id IN ("
		" SELECT b.batch_id FROM"
		"  (SELECT batch_id, received_at FROM behavior._batch ORDER BY batch_id LIMIT $2) b"
		" WHERE b.received_at < $1"
		" AND (SELECT r.last_batch >= b.batch_id AND r.tick_id <="
		"   COALESCE((SELECT min(behavior._projection_tick_id(p.name)) FROM behavior._projection p), r.tick_id)"
		"   AND (r.tick_id <= (SELECT t.tick_id FROM behavior._route_progress t ORDER BY t.tick_id DESC LIMIT 1)"
		"    OR NOT EXISTS (SELECT FROM behavior._subscription))"
		"  FROM behavior._tick_range r WHERE r.first_batch <= b.batch_id"
		"  ORDER BY r.first_batch DESC LIMIT 1))";
	static const char *const delete_senders =
		"DELETE FROM behavior._sender WHERE sender_id IN ("
		" SELECT s.sender_id FROM"
		"  (SELECT sender_id, seen_at FROM behavior._sender ORDER BY sender_id LIMIT $2) s"
		" WHERE s.seen_at < LEAST($1, (SELECT b.received_at FROM behavior._batch b"
		"  ORDER BY b.batch_id LIMIT 1)) - interval '2 days')";
	Oid types[2] = {TIMESTAMPTZOID, INT8OID};
	Datum values[2];
	SecureContext secure;
	int64 deleted = 0;

	if (behavior_batch_retention < 0)
		return 0;

	values[0] = TimestampTzGetDatum(GetCurrentTimestamp() -
									(int64) behavior_batch_retention * USECS_PER_SEC);
	values[1] = Int64GetDatum(limit);
	secure_begin(&secure, behavior_owner());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (spi_exec(look, SPI_OK_SELECT, false, 1, types, values, NULL) > 0)
		deleted = spi_exec(delete_batches, SPI_OK_DELETE, false, 2, types, values, NULL);
	if (deleted > 0)
		(void) spi_exec(delete_senders, SPI_OK_DELETE, false, 2, types, values, NULL);
	SPI_finish();
	secure_end(&secure);
	return deleted;
}

Datum
behavior__batch_expire(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(batch_expire(PG_GETARG_INT64(0)));
}

/*
 * tick_intake.c
 *		Sums the batches of a tick into behavior._intake, by hour and sender.
 *
 * Sums are made in memory by (hour, sender id) and named by one statement that
 * joins the senders: a tick has thousands of batches and a handful of senders.  The few rows are
 * written as behavior._tick_state is: a new one in place of the old one, which is
 * found from the end of the primary key.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/spi.h"
#include "core/table_row.h"
#include "fold/tick_state.h"

#define INTAKE_ARRAYS 8

typedef struct IntakeKey
{
	TimestampTz hour;
	int64 sender_id;
} IntakeKey;

typedef struct IntakeSum
{
	IntakeKey key;
	BatchCounts counts;
} IntakeSum;

struct IntakeSums
{
	HTAB *table;
	ExtentList extents;
};

/* Columns of behavior._intake; the named sums are the same but for the last. */
enum
{
	INTAKE_HOUR = 1,
	INTAKE_SOURCE,
	INTAKE_ROLE,
	INTAKE_APPLICATION_NAME,
	INTAKE_FIRST_COUNT,
	INTAKE_TICK_ID = 11,
	INTAKE_NATTS = INTAKE_TICK_ID
};

/* One row for each role, application and source: correlation ids are summed over. */
static const char *const name_sums =
	"SELECT b.hour, s.source, s.role, s.application_name,"
	" sum(b.received)::bigint, sum(b.accepted)::bigint, sum(b.duplicates)::bigint,"
	" sum(b.conflicts)::bigint, sum(b.dead_letters)::bigint, sum(b.generated_ids)::bigint "
	"FROM unnest($1, $2, $3, $4, $5, $6, $7, $8)"
	" AS b (hour, sender_id, received, accepted, duplicates, conflicts, dead_letters, generated_ids)"
	" JOIN behavior._sender s ON s.sender_id = b.sender_id "
	"GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4";

IntakeSums *
intake_begin(void)
{
	IntakeSums *sums = palloc0(sizeof(IntakeSums));
	HASHCTL ctl = {0};

	ctl.keysize = sizeof(IntakeKey);
	ctl.entrysize = sizeof(IntakeSum);
	ctl.hcxt = CurrentMemoryContext;
	sums->table = hash_create("behavior intake", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return sums;
}

static void
add_counts(IntakeSums *sums, TimestampTz hour, int64 sender_id, const BatchCounts *counts)
{
	IntakeKey key = {hour, sender_id};
	bool found;
	IntakeSum *sum = hash_search(sums->table, &key, HASH_ENTER, &found);

	if (!found)
		memset(&sum->counts, 0, sizeof(sum->counts));
	sum->counts.received += counts->received;
	sum->counts.accepted += counts->accepted;
	sum->counts.duplicates += counts->duplicates;
	sum->counts.conflicts += counts->conflicts;
	sum->counts.dead_letters += counts->dead_letters;
	sum->counts.generated_ids += counts->generated_ids;
}

void
intake_add(const Batch *batch, void *arg)
{
	IntakeSums *sums = arg;
	TimestampTz rest = batch->received_at % USECS_PER_HOUR;
	TimestampTz hour = batch->received_at - (rest < 0 ? rest + USECS_PER_HOUR : rest);

	if (batch->nsources == 0)
		add_counts(sums, hour, batch->sender_id, &batch->counts);
	for (int i = 0; i < batch->nsources; i++)
		add_counts(sums, hour, batch->sender_ids[i], &batch->by_source[i]);

	for (int i = 0; i < batch->extents.count; i++)
	{
		const Extent *extent = &batch->extents.extents[i];

		extent_list_add(&sums->extents, extent->partition_day, extent->first_block,
						extent->last_block, extent->rows);
	}
}

const ExtentList *
intake_extents(const IntakeSums *sums)
{
	return &sums->extents;
}

/* The row that stands for this hour and sender: the newest; NULL when there is none. */
static HeapTuple
find_row(Relation rel, Relation index, Snapshot snapshot, const Datum *values)
{
	static const Oid equality[] = {F_TIMESTAMPTZ_EQ, F_TEXTEQ, F_NAMEEQ, F_TEXTEQ};
	ScanKeyData keys[INTAKE_APPLICATION_NAME];
	SysScanDesc scan;
	HeapTuple tuple;

	for (int i = 0; i < INTAKE_APPLICATION_NAME; i++)
	{
		ScanKeyInit(&keys[i], i + 1, BTEqualStrategyNumber, equality[i], values[i]);
		keys[i].sk_collation = TupleDescAttr(RelationGetDescr(rel), i)->attcollation;
	}
	scan = systable_beginscan_ordered(rel, index, snapshot, INTAKE_APPLICATION_NAME, keys);
	tuple = systable_getnext_ordered(scan, BackwardScanDirection);
	if (HeapTupleIsValid(tuple))
		tuple = heap_copytuple(tuple);
	systable_endscan_ordered(scan);
	return tuple;
}

/* Adds one row to what stands there. */
static void
add_row(Relation rel, Relation index, CatalogIndexState indexes, Snapshot snapshot, Datum *values)
{
	bool nulls[INTAKE_NATTS] = {0};
	HeapTuple old = find_row(rel, index, snapshot, values);

	if (old != NULL)
	{
		Datum old_values[INTAKE_NATTS];

		heap_deform_tuple(old, RelationGetDescr(rel), old_values, nulls);
		for (int i = INTAKE_FIRST_COUNT - 1; i < INTAKE_TICK_ID - 1; i++)
			values[i] = Int64GetDatum(DatumGetInt64(values[i]) + DatumGetInt64(old_values[i]));
	}
	table_row_insert(rel, heap_form_tuple(RelationGetDescr(rel), values, nulls), indexes);
	if (old != NULL)
		CatalogTupleDelete(rel, &old->t_self);
}

/* Adds the rows that the last statement returned.  Whoever does so has the tick lock. */
static void
add_rows(int64 tick_id)
{
	Relation rel = table_open(behavior_relid(REL_INTAKE), RowExclusiveLock);
	Relation index = index_open(behavior_relid(REL_INTAKE_PKEY), AccessShareLock);
	CatalogIndexState indexes = CatalogOpenIndexes(rel);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());

	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Datum values[INTAKE_NATTS];
		bool nulls[INTAKE_NATTS];

		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, values, nulls);
		values[INTAKE_TICK_ID - 1] = Int64GetDatum(tick_id);
		add_row(rel, index, indexes, snapshot, values);
	}
	UnregisterSnapshot(snapshot);
	CatalogCloseIndexes(indexes);
	index_close(index, AccessShareLock);
	table_close(rel, NoLock);
}

void
intake_store(IntakeSums *sums, int64 tick_id)
{
	long n = hash_get_num_entries(sums->table);
	Datum *columns[INTAKE_ARRAYS];
	Datum values[INTAKE_ARRAYS];
	Oid types[INTAKE_ARRAYS];
	HASH_SEQ_STATUS seq;
	IntakeSum *sum;
	SecureContext secure;
	int i = 0;

	if (n == 0)
		return;
	for (int c = 0; c < INTAKE_ARRAYS; c++)
		columns[c] = palloc(sizeof(Datum) * n);
	hash_seq_init(&seq, sums->table);
	while ((sum = hash_seq_search(&seq)) != NULL)
	{
		columns[0][i] = TimestampTzGetDatum(sum->key.hour);
		columns[1][i] = Int64GetDatum(sum->key.sender_id);
		columns[2][i] = Int64GetDatum(sum->counts.received);
		columns[3][i] = Int64GetDatum(sum->counts.accepted);
		columns[4][i] = Int64GetDatum(sum->counts.duplicates);
		columns[5][i] = Int64GetDatum(sum->counts.conflicts);
		columns[6][i] = Int64GetDatum(sum->counts.dead_letters);
		columns[7][i] = Int64GetDatum(sum->counts.generated_ids);
		i++;
	}
	for (int c = 0; c < INTAKE_ARRAYS; c++)
	{
		Oid element = c == 0 ? TIMESTAMPTZOID : INT8OID;

		types[c] = c == 0 ? TIMESTAMPTZARRAYOID : INT8ARRAYOID;
		values[c] = PointerGetDatum(construct_array(columns[c], n, element, sizeof(int64),
													FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	}

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	spi_exec(name_sums, SPI_OK_SELECT, false, INTAKE_ARRAYS, types, values, NULL);
	add_rows(tick_id);
	secure_end(&secure);
	SPI_finish();
}

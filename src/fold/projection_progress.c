/*
 * projection_progress.c
 *		How far each projection has been folded.
 *
 * Progress stands apart from behavior._projection, in rows that are never updated: each step
 * inserts its own and deletes the one before it, and readers take the newest that they see from the
 * end of the projection's part of the primary key.  What a long snapshot holds back lies
 * behind that and costs nothing; versions of an updated row would all be read.
 *
 * An index scan takes all of a page that its keys allow before it returns the first row, so it
 * looks behind the last tick that this backend has seen first, and at everything when nothing is
 * there.
 *
 * Who is to move on what he read keeps its place from then on: until he commits, nothing may
 * rewrite the table.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_collation.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/table_row.h"
#include "fold/projection.h"

PG_FUNCTION_INFO_V1(behavior_projection_tick_id);

enum
{
	PROGRESS_PROJECTION = 1,
	PROGRESS_TICK_ID,
	PROGRESS_NATTS = PROGRESS_TICK_ID
};

/* Of any projection; a hint. */
static int64 last_seen = 0;

/* The newest row from tick "least" on that the snapshot sees; -1 when it sees none. */
static int64
newest(Relation rel, Relation index, Datum name, int64 least, Snapshot snapshot, ItemPointer tid)
{
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple tuple;
	int64 tick = -1;

	ScanKeyInit(&keys[0], PROGRESS_PROJECTION, BTEqualStrategyNumber, F_TEXTEQ, name);
	keys[0].sk_collation = DEFAULT_COLLATION_OID;
	ScanKeyInit(&keys[1], PROGRESS_TICK_ID, BTGreaterEqualStrategyNumber, F_INT8GE,
				Int64GetDatum(least));
	scan = systable_beginscan_ordered(rel, index, snapshot, 2, keys);
	tuple = systable_getnext_ordered(scan, BackwardScanDirection);
	if (HeapTupleIsValid(tuple))
	{
		bool isnull;

		tick = DatumGetInt64(heap_getattr(tuple, PROGRESS_TICK_ID, RelationGetDescr(rel), &isnull));
		*tid = tuple->t_self;
	}
	systable_endscan_ordered(scan);
	return tick;
}

static void
read_progress(Relation rel, const char *name, Snapshot snapshot, ProjectionProgress *progress)
{
	Relation index = index_open(behavior_relid(REL_PROJECTION_TICK_PKEY), AccessShareLock);
	Datum text = CStringGetTextDatum(name);

	progress->tick_id = newest(rel, index, text, last_seen - 1, snapshot, &progress->tid);
	if (progress->tick_id < 0)
		progress->tick_id = newest(rel, index, text, 0, snapshot, &progress->tid);
	last_seen = progress->tick_id;
	index_close(index, AccessShareLock);
}

/* Keeps its lock. */
void
projection_progress_read(const char *name, Snapshot snapshot, ProjectionProgress *progress)
{
	Relation rel = table_open(behavior_relid(REL_PROJECTION_TICK), RowExclusiveLock);

	read_progress(rel, name, snapshot, progress);
	table_close(rel, NoLock);
}

int64
projection_progress(const char *name, Snapshot snapshot)
{
	Relation rel = table_open(behavior_relid(REL_PROJECTION_TICK), AccessShareLock);
	ProjectionProgress progress;

	read_progress(rel, name, snapshot, &progress);
	table_close(rel, AccessShareLock);
	return progress.tick_id;
}

void
projection_progress_move(const char *name, ProjectionProgress *progress, int64 tick)
{
	Relation rel;
	Datum values[PROGRESS_NATTS] = {CStringGetTextDatum(name), Int64GetDatum(tick)};
	bool nulls[PROGRESS_NATTS] = {0};
	HeapTuple tuple;

	if (progress->tick_id == tick)
		return;
	rel = table_open(behavior_relid(REL_PROJECTION_TICK), RowExclusiveLock);
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	table_row_insert(rel, tuple, NULL);
	if (progress->tick_id >= 0)
		CatalogTupleDelete(rel, &progress->tid);
	CommandCounterIncrement();
	progress->tick_id = tick;
	progress->tid = tuple->t_self;
	heap_freetuple(tuple);
	table_close(rel, NoLock);
}

void
projection_advance(const char *name, int64 tick)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	ProjectionProgress progress;

	projection_progress_read(name, snapshot, &progress);
	projection_progress_move(name, &progress, tick);
	UnregisterSnapshot(snapshot);
}

/*
 * behavior._projection_tick_id(projection text) returns bigint
 *
 * The same in SQL, 0 for none.  A function, so that no plan that was made when the table was small
 * goes through all of it later.
 */
Datum
behavior_projection_tick_id(PG_FUNCTION_ARGS)
{
	char *name = text_to_cstring(PG_GETARG_TEXT_PP(0));

	PG_RETURN_INT64(Max(projection_progress(name, GetActiveSnapshot()), 0));
}

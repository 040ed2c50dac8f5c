/*
 * subscription_progress.c
 *		How far each subscription has come.
 *
 * Rows that are never updated, as those of a projection (fold/projection_progress.c): each step
 * inserts its own and deletes the one before it, and readers take the newest that they see from
 * the end of the subscription's part of the primary key, behind the last that this backend has
 * seen.
 *
 * Who is to move on what he read keeps its place from then on: until he commits, nothing may
 * rewrite the table.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/table_row.h"
#include "route/subscription.h"

enum
{
	PROGRESS_SUBSCRIPTION_ID = 1,
	PROGRESS_STEP,
	PROGRESS_REPLAYING,
	PROGRESS_REPLAY_AT,
	PROGRESS_LIVE,
	PROGRESS_POSITION,
	PROGRESS_POISON,
	PROGRESS_FAILURES,
	PROGRESS_RESUME_AT,
	PROGRESS_WATERMARK,
	PROGRESS_CONSUMED,
	PROGRESS_DELIVERED,
	PROGRESS_FAILED,
	PROGRESS_DEAD_LETTERS,
	PROGRESS_LATE,
	PROGRESS_FAILING_SINCE,
	PROGRESS_LAST_ERROR,
	PROGRESS_DUE_FROM,
	PROGRESS_NATTS = PROGRESS_DUE_FROM
};

/* An error is kept up to so many bytes. */
#define MAX_ERROR 2000

/* The last step seen of a subscription; a hint.  Others may share its place. */
#define HINTS 1024
static struct
{
	int64 subscription_id;
	int64 step;
} hints[HINTS];

/* NULL stands for 0 in the struct. */
static TimestampTz
time_or_0(Datum value, bool isnull)
{
	return isnull ? 0 : DatumGetTimestampTz(value);
}

static void
progress_from_tuple(HeapTuple tuple, TupleDesc desc, SubscriptionProgress *progress)
{
	Datum values[PROGRESS_NATTS];
	bool nulls[PROGRESS_NATTS];

#define VALUE(column) values[(column) -1]
#define TIME(column)  time_or_0(values[(column) -1], nulls[(column) -1])
	heap_deform_tuple(tuple, desc, values, nulls);
	progress->tid = tuple->t_self;
	progress->step = DatumGetInt64(VALUE(PROGRESS_STEP));
	progress->replaying = DatumGetBool(VALUE(PROGRESS_REPLAYING));
	progress->replay_at = TIME(PROGRESS_REPLAY_AT);
	progress->live = DatumGetBool(VALUE(PROGRESS_LIVE));
	progress->position = DatumGetInt64(VALUE(PROGRESS_POSITION));
	progress->poison = DatumGetInt32(VALUE(PROGRESS_POISON));
	progress->failures = DatumGetInt32(VALUE(PROGRESS_FAILURES));
	progress->resume_at = TIME(PROGRESS_RESUME_AT);
	progress->watermark = TIME(PROGRESS_WATERMARK);
	progress->consumed = DatumGetInt64(VALUE(PROGRESS_CONSUMED));
	progress->delivered = DatumGetInt64(VALUE(PROGRESS_DELIVERED));
	progress->failed = DatumGetInt64(VALUE(PROGRESS_FAILED));
	progress->dead_letters = DatumGetInt64(VALUE(PROGRESS_DEAD_LETTERS));
	progress->late = DatumGetInt64(VALUE(PROGRESS_LATE));
	progress->failing_since = TIME(PROGRESS_FAILING_SINCE);
	if (!nulls[PROGRESS_LAST_ERROR - 1])
		progress->last_error = TextDatumGetCString(VALUE(PROGRESS_LAST_ERROR));
	progress->due_from = TIME(PROGRESS_DUE_FROM);
#undef VALUE
#undef TIME
}

/* The newest row from step "least" on that the snapshot sees. */
static bool
read_newest(Relation rel, Relation index, int64 id, int64 least, Snapshot snapshot,
			SubscriptionProgress *progress)
{
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&keys[0], PROGRESS_SUBSCRIPTION_ID, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(id));
	ScanKeyInit(&keys[1], PROGRESS_STEP, BTGreaterEqualStrategyNumber, F_INT8GE,
				Int64GetDatum(least));
	scan = systable_beginscan_ordered(rel, index, snapshot, 2, keys);
	tuple = systable_getnext_ordered(scan, BackwardScanDirection);
	if (HeapTupleIsValid(tuple))
		progress_from_tuple(tuple, RelationGetDescr(rel), progress);
	systable_endscan_ordered(scan);
	return progress->step > 0;
}

/* Keeps its lock. */
void
subscription_progress_read(int64 id, Snapshot snapshot, SubscriptionProgress *progress)
{
	Relation rel = table_open(behavior_relid(REL_SUBSCRIPTION_PROGRESS), RowExclusiveLock);
	Relation index = index_open(behavior_relid(REL_SUBSCRIPTION_PROGRESS_PKEY), AccessShareLock);
	int slot = (int) (id % HINTS);
	int64 least = hints[slot].subscription_id == id ? hints[slot].step : 0;

	memset(progress, 0, sizeof(*progress));
	if (!read_newest(rel, index, id, least, snapshot, progress) && least > 0)
		(void) read_newest(rel, index, id, 0, snapshot, progress);
	hints[slot].subscription_id = id;
	hints[slot].step = progress->step;
	index_close(index, AccessShareLock);
	table_close(rel, NoLock);
}

static Datum
error_text(const char *error)
{
	int length = strlen(error);

	if (length > MAX_ERROR)
		length = pg_mbcliplen(error, length, MAX_ERROR);
	return PointerGetDatum(cstring_to_text_with_len(error, length));
}

void
subscription_progress_move(int64 id, SubscriptionProgress *progress)
{
	Relation rel = table_open(behavior_relid(REL_SUBSCRIPTION_PROGRESS), RowExclusiveLock);
	Datum values[PROGRESS_NATTS] = {0};
	bool nulls[PROGRESS_NATTS] = {false};
	HeapTuple tuple;

#define SET(column, value) values[(column) -1] = (value)
#define SET_TIME(column, value)                                                                    \
	(values[(column) -1] = TimestampTzGetDatum(value), nulls[(column) -1] = (value) == 0)
	SET(PROGRESS_SUBSCRIPTION_ID, Int64GetDatum(id));
	SET(PROGRESS_STEP, Int64GetDatum(progress->step + 1));
	SET(PROGRESS_REPLAYING, BoolGetDatum(progress->replaying));
	SET_TIME(PROGRESS_REPLAY_AT, progress->replay_at);
	SET(PROGRESS_LIVE, BoolGetDatum(progress->live));
	SET(PROGRESS_POSITION, Int64GetDatum(progress->position));
	SET(PROGRESS_POISON, Int32GetDatum(progress->poison));
	SET(PROGRESS_FAILURES, Int32GetDatum(progress->failures));
	SET_TIME(PROGRESS_RESUME_AT, progress->resume_at);
	SET_TIME(PROGRESS_WATERMARK, progress->watermark);
	SET(PROGRESS_CONSUMED, Int64GetDatum(progress->consumed));
	SET(PROGRESS_DELIVERED, Int64GetDatum(progress->delivered));
	SET(PROGRESS_FAILED, Int64GetDatum(progress->failed));
	SET(PROGRESS_DEAD_LETTERS, Int64GetDatum(progress->dead_letters));
	SET(PROGRESS_LATE, Int64GetDatum(progress->late));
	SET_TIME(PROGRESS_FAILING_SINCE, progress->failing_since);
	if (progress->last_error != NULL)
		SET(PROGRESS_LAST_ERROR, error_text(progress->last_error));
	else
		nulls[PROGRESS_LAST_ERROR - 1] = true;
	/* What is written while the clock has been set back is due before. */
	if (progress->due_from > GetCurrentTimestamp())
		progress->due_from = 0;
	SET_TIME(PROGRESS_DUE_FROM, progress->due_from);
#undef SET
#undef SET_TIME

	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	table_row_insert(rel, tuple, NULL);
	if (progress->step > 0)
		CatalogTupleDelete(rel, &progress->tid);
	CommandCounterIncrement();
	progress->step++;
	progress->tid = tuple->t_self;
	heap_freetuple(tuple);
	table_close(rel, NoLock);
}

/*
 * delivery_row.c
 *		Rows of behavior._delivery: events of a subscription that have a state of their own.
 *
 * Index scans, not SQL: a plan that was made while the table was small would read all of it
 * later.  Of each scan the first key columns are fixed, so that it begins where it should:
 *
 *	_delivery_due		subscription, state, due_at
 *	_delivery_order		subscription, state, and the order of events
 *	_delivery_actor		subscription, actor, source, state, and the order of events
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_collation.h"
#include "fmgr.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/table_row.h"
#include "log/log_row.h"
#include "route/delivery_row.h"

enum
{
	ROW_DELIVERY_ID = 1,
	ROW_SUBSCRIPTION_ID,
	ROW_STATE,
	ROW_DUE_AT,
	ROW_ATTEMPTS,
	ROW_LATE,
	ROW_FIRST_ATTEMPT_AT,
	ROW_ERROR,
	ROW_REF,
	ROW_OCCURRED_AT,
	ROW_SEQUENCE,
	ROW_EVENT_ID,
	ROW_SOURCE,
	ROW_ACTOR,
	ROW_NATTS = ROW_ACTOR
};

/* An ordered scan of one index. */
typedef struct RowScan
{
	Relation rel;
	Relation index;
	SysScanDesc scan;
	LOCKMODE lock;
} RowScan;

/*
 * With RowExclusiveLock, which is kept, rows that are found keep their places until they are
 * changed or deleted by those, after a handler has run, say: nothing may rewrite the table in
 * between.
 */
static void
scan_begin(RowScan *scan, BehaviorRel index, LOCKMODE lock, Snapshot snapshot, int nkeys,
		   ScanKey keys)
{
	scan->lock = lock;
	scan->rel = table_open(behavior_relid(REL_DELIVERY), lock);
	scan->index = index_open(behavior_relid(index), AccessShareLock);
	scan->scan = systable_beginscan_ordered(scan->rel, scan->index, snapshot, nkeys, keys);
}

static HeapTuple
scan_next(RowScan *scan)
{
	return systable_getnext_ordered(scan->scan, ForwardScanDirection);
}

static void
scan_end(RowScan *scan)
{
	systable_endscan_ordered(scan->scan);
	index_close(scan->index, AccessShareLock);
	table_close(scan->rel, scan->lock == AccessShareLock ? AccessShareLock : NoLock);
}

static void
key_int8(ScanKey key, AttrNumber column, StrategyNumber strategy, int64 value)
{
	ScanKeyInit(key, column, strategy, strategy == BTEqualStrategyNumber ? F_INT8EQ : F_INT8GT,
				Int64GetDatum(value));
}

static void
key_state(ScanKey key, char state)
{
	ScanKeyInit(key, ROW_STATE, BTEqualStrategyNumber, F_CHAREQ, CharGetDatum(state));
}

static void
key_from(ScanKey key, TimestampTz from)
{
	ScanKeyInit(key, ROW_DUE_AT, BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE,
				TimestampTzGetDatum(from));
}

static void
key_text(ScanKey key, AttrNumber column, text *value)
{
	ScanKeyInit(key, column, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(value));
	key->sk_collation = C_COLLATION_OID;
}

static void
read_row(RowScan *scan, HeapTuple tuple, DeliveryRow *row)
{
	Datum values[ROW_NATTS];
	bool nulls[ROW_NATTS];
	HeapTuple copy = heap_copytuple(tuple);
	bytea *ref;

	/* Texts stay where they are, in the copy. */
	heap_deform_tuple(copy, RelationGetDescr(scan->rel), values, nulls);
	row->delivery_id = DatumGetInt64(values[ROW_DELIVERY_ID - 1]);
	row->subscription_id = DatumGetInt64(values[ROW_SUBSCRIPTION_ID - 1]);
	row->state = DatumGetChar(values[ROW_STATE - 1]);
	row->due_at = DatumGetTimestampTz(values[ROW_DUE_AT - 1]);
	row->attempts = DatumGetInt32(values[ROW_ATTEMPTS - 1]);
	row->late = DatumGetBool(values[ROW_LATE - 1]);
	row->first_attempt_at =
		nulls[ROW_FIRST_ATTEMPT_AT - 1] ? 0 : DatumGetTimestampTz(values[ROW_FIRST_ATTEMPT_AT - 1]);
	row->error = nulls[ROW_ERROR - 1] ? NULL : TextDatumGetCString(values[ROW_ERROR - 1]);
	ref = DatumGetByteaPP(values[ROW_REF - 1]);
	if (VARSIZE_ANY_EXHDR(ref) != sizeof(EventRef))
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("the reference of delivery %lld has %d bytes instead of %d",
							   (long long) row->delivery_id, (int) VARSIZE_ANY_EXHDR(ref),
							   (int) sizeof(EventRef))));
	memcpy(&row->ref, VARDATA_ANY(ref), sizeof(EventRef));
	row->occurred_at = DatumGetTimestampTz(values[ROW_OCCURRED_AT - 1]);
	row->has_sequence = !nulls[ROW_SEQUENCE - 1];
	row->sequence = row->has_sequence ? DatumGetInt64(values[ROW_SEQUENCE - 1]) : 0;
	row->event_id = DatumGetTextPP(values[ROW_EVENT_ID - 1]);
	row->source = DatumGetTextPP(values[ROW_SOURCE - 1]);
	row->actor = nulls[ROW_ACTOR - 1] ? NULL : DatumGetTextPP(values[ROW_ACTOR - 1]);
	row->tid = copy->t_self;
}

static HeapTuple
form_row(Relation rel, const DeliveryRow *row)
{
	Datum values[ROW_NATTS];
	bool nulls[ROW_NATTS] = {0};
	char ref[VARHDRSZ + sizeof(EventRef)];

	SET_VARSIZE(ref, sizeof(ref));
	memcpy(VARDATA(ref), &row->ref, sizeof(EventRef));
	values[ROW_DELIVERY_ID - 1] = Int64GetDatum(row->delivery_id);
	values[ROW_SUBSCRIPTION_ID - 1] = Int64GetDatum(row->subscription_id);
	values[ROW_STATE - 1] = CharGetDatum(row->state);
	values[ROW_DUE_AT - 1] = TimestampTzGetDatum(row->due_at);
	values[ROW_ATTEMPTS - 1] = Int32GetDatum(row->attempts);
	values[ROW_LATE - 1] = BoolGetDatum(row->late);
	values[ROW_FIRST_ATTEMPT_AT - 1] = TimestampTzGetDatum(row->first_attempt_at);
	nulls[ROW_FIRST_ATTEMPT_AT - 1] = row->first_attempt_at == 0;
	nulls[ROW_ERROR - 1] = row->error == NULL;
	values[ROW_ERROR - 1] = row->error != NULL ? CStringGetTextDatum(row->error) : (Datum) 0;
	values[ROW_REF - 1] = PointerGetDatum(ref);
	values[ROW_OCCURRED_AT - 1] = TimestampTzGetDatum(row->occurred_at);
	values[ROW_SEQUENCE - 1] = Int64GetDatum(row->sequence);
	nulls[ROW_SEQUENCE - 1] = !row->has_sequence;
	values[ROW_EVENT_ID - 1] = PointerGetDatum(row->event_id);
	values[ROW_SOURCE - 1] = PointerGetDatum(row->source);
	values[ROW_ACTOR - 1] = PointerGetDatum(row->actor);
	nulls[ROW_ACTOR - 1] = row->actor == NULL;
	return heap_form_tuple(RelationGetDescr(rel), values, nulls);
}

static text *
text_of(Datum *values, bool *nulls, int column)
{
	return nulls[column - 1] ? NULL : DatumGetTextPP(values[column - 1]);
}

void
delivery_row_set_event(DeliveryRow *row, HeapTuple event)
{
	Relation log = table_open(behavior_relid(REL_LOG), AccessShareLock);
	TupleDesc desc = RelationGetDescr(log);
	Datum *values = palloc(sizeof(Datum) * desc->natts);
	bool *nulls = palloc(sizeof(bool) * desc->natts);

	heap_deform_tuple(event, desc, values, nulls);
	row->occurred_at = DatumGetTimestampTz(values[LOG_OCCURRED_AT - 1]);
	row->has_sequence = !nulls[LOG_SEQUENCE - 1];
	row->sequence = row->has_sequence ? DatumGetInt64(values[LOG_SEQUENCE - 1]) : 0;
	row->event_id = text_of(values, nulls, LOG_EVENT_ID);
	row->source = text_of(values, nulls, LOG_SOURCE);
	row->actor = text_of(values, nulls, LOG_USER_ID);
	if (row->actor == NULL)
		row->actor = text_of(values, nulls, LOG_ANONYMOUS_ID);
	table_close(log, AccessShareLock);
}

void
delivery_row_insert(DeliveryRow *row)
{
	delivery_rows_insert(row, 1);
}

void
delivery_rows_insert(DeliveryRow *rows, int n)
{
	Relation rel = table_open(behavior_relid(REL_DELIVERY), RowExclusiveLock);
	CatalogIndexState indexes = CatalogOpenIndexes(rel);

	for (int i = 0; i < n; i++)
	{
		HeapTuple tuple = form_row(rel, &rows[i]);

		table_row_insert(rel, tuple, indexes);
		rows[i].tid = tuple->t_self;
		heap_freetuple(tuple);
	}
	CatalogCloseIndexes(indexes);
	table_close(rel, NoLock);
	/* A row may be changed, or deleted, in this transaction. */
	CommandCounterIncrement();
}

void
delivery_row_update(DeliveryRow *row)
{
	Relation rel = table_open(behavior_relid(REL_DELIVERY), RowExclusiveLock);
	CatalogIndexState indexes = CatalogOpenIndexes(rel);
	HeapTuple tuple = form_row(rel, row);

	table_row_update(rel, &row->tid, tuple, indexes);
	row->tid = tuple->t_self;
	heap_freetuple(tuple);
	CatalogCloseIndexes(indexes);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

void
delivery_row_delete(const DeliveryRow *row)
{
	Relation rel = table_open(behavior_relid(REL_DELIVERY), RowExclusiveLock);

	CatalogTupleDelete(rel, unconstify(ItemPointerData *, &row->tid));
	table_close(rel, NoLock);
}

bool
delivery_row_lock(const DeliveryRow *row, bool wait)
{
	Relation rel = table_open(behavior_relid(REL_DELIVERY), RowExclusiveLock);
	HeapTupleData tuple = {0};
	Buffer buffer;
	TM_FailureData failure;
	TM_Result result;

	tuple.t_self = row->tid;
	result = heap_lock_tuple(rel, &tuple, GetCurrentCommandId(true), LockTupleExclusive,
							 wait ? LockWaitBlock : LockWaitSkip, false, &buffer, &failure);
	ReleaseBuffer(buffer);
	table_close(rel, NoLock);
	return result == TM_Ok;
}

bool
delivery_row_find(int64 delivery_id, DeliveryRow *row)
{
	RowScan scan;
	ScanKeyData key;
	HeapTuple tuple;

	key_int8(&key, ROW_DELIVERY_ID, BTEqualStrategyNumber, delivery_id);
	scan_begin(&scan, REL_DELIVERY_PKEY, RowExclusiveLock, SnapshotSelf, 1, &key);
	tuple = scan_next(&scan);
	if (HeapTupleIsValid(tuple))
		read_row(&scan, tuple, row);
	scan_end(&scan);
	return HeapTupleIsValid(tuple);
}

int
delivery_rows_due(int64 subscription_id, char state, TimestampTz from, TimestampTz upto,
				  DeliveryRow *rows, int max)
{
	RowScan scan;
	ScanKeyData keys[4];
	HeapTuple tuple;
	int n = 0;

	key_int8(&keys[0], ROW_SUBSCRIPTION_ID, BTEqualStrategyNumber, subscription_id);
	key_state(&keys[1], state);
	ScanKeyInit(&keys[2], ROW_DUE_AT, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE,
				TimestampTzGetDatum(upto));
	key_from(&keys[3], from);
	scan_begin(&scan, REL_DELIVERY_DUE, RowExclusiveLock, SnapshotSelf, from != 0 ? 4 : 3, keys);
	while (n < max && HeapTupleIsValid(tuple = scan_next(&scan)))
		read_row(&scan, tuple, &rows[n++]);
	scan_end(&scan);
	return n;
}

TimestampTz
delivery_rows_next_due(int64 subscription_id, char state, TimestampTz from, Snapshot snapshot)
{
	RowScan scan;
	ScanKeyData keys[3];
	HeapTuple tuple;
	TimestampTz due = DT_NOEND;

	key_int8(&keys[0], ROW_SUBSCRIPTION_ID, BTEqualStrategyNumber, subscription_id);
	key_state(&keys[1], state);
	key_from(&keys[2], from);
	scan_begin(&scan, REL_DELIVERY_DUE, AccessShareLock, snapshot, from != 0 ? 3 : 2, keys);
	tuple = scan_next(&scan);
	if (HeapTupleIsValid(tuple))
	{
		bool isnull;

		due = DatumGetTimestampTz(
			heap_getattr(tuple, ROW_DUE_AT, RelationGetDescr(scan.rel), &isnull));
	}
	scan_end(&scan);
	return due;
}

int
delivery_rows_held(int64 subscription_id, TimestampTz from, TimestampTz upto, DeliveryRow *rows,
				   int max)
{
	RowScan scan;
	ScanKeyData keys[4];
	HeapTuple tuple;
	int n = 0;

	key_int8(&keys[0], ROW_SUBSCRIPTION_ID, BTEqualStrategyNumber, subscription_id);
	key_state(&keys[1], DELIVERY_HELD);
	ScanKeyInit(&keys[2], ROW_OCCURRED_AT, BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE,
				TimestampTzGetDatum(from));
	ScanKeyInit(&keys[3], ROW_OCCURRED_AT, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE,
				TimestampTzGetDatum(upto));
	scan_begin(&scan, REL_DELIVERY_ORDER, RowExclusiveLock, SnapshotSelf, 4, keys);
	while (n < max && HeapTupleIsValid(tuple = scan_next(&scan)))
		read_row(&scan, tuple, &rows[n++]);
	scan_end(&scan);
	return n;
}

bool
delivery_row_of_actor(const DeliveryRow *row, char state, DeliveryRow *first)
{
	RowScan scan;
	ScanKeyData keys[4];
	HeapTuple tuple;

	if (row->actor == NULL)
		return false;
	key_int8(&keys[0], ROW_SUBSCRIPTION_ID, BTEqualStrategyNumber, row->subscription_id);
	key_text(&keys[1], ROW_ACTOR, row->actor);
	key_text(&keys[2], ROW_SOURCE, row->source);
	key_state(&keys[3], state);
	scan_begin(&scan, REL_DELIVERY_ACTOR, RowExclusiveLock, SnapshotSelf, 4, keys);
	tuple = scan_next(&scan);
	if (HeapTupleIsValid(tuple))
		read_row(&scan, tuple, first);
	scan_end(&scan);
	return HeapTupleIsValid(tuple);
}

static int
compare_texts(text *a, text *b)
{
	int length = Min(VARSIZE_ANY_EXHDR(a), VARSIZE_ANY_EXHDR(b));
	int order = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), length);

	return order != 0 ? order : (int) VARSIZE_ANY_EXHDR(a) - (int) VARSIZE_ANY_EXHDR(b);
}

int
delivery_row_compare(const DeliveryRow *a, const DeliveryRow *b)
{
	int order;

	if (a->occurred_at != b->occurred_at)
		return a->occurred_at < b->occurred_at ? -1 : 1;
	if (a->has_sequence != b->has_sequence)
		return a->has_sequence ? 1 : -1;
	if (a->sequence != b->sequence)
		return a->sequence < b->sequence ? -1 : 1;
	order = compare_texts(a->event_id, b->event_id);
	return order != 0 ? order : compare_texts(a->source, b->source);
}

List *
delivery_row_subscriptions(int64 after, int64 before, Snapshot snapshot)
{
	List *ids = NIL;

	for (;;)
	{
		RowScan scan;
		ScanKeyData keys[2];
		HeapTuple tuple;
		int64 *id;
		bool isnull;

		key_int8(&keys[0], ROW_SUBSCRIPTION_ID, BTGreaterStrategyNumber, after);
		ScanKeyInit(&keys[1], ROW_SUBSCRIPTION_ID, BTLessStrategyNumber, F_INT8LT,
					Int64GetDatum(before));
		scan_begin(&scan, REL_DELIVERY_DUE, AccessShareLock, snapshot, 2, keys);
		tuple = scan_next(&scan);
		if (HeapTupleIsValid(tuple))
			after = DatumGetInt64(
				heap_getattr(tuple, ROW_SUBSCRIPTION_ID, RelationGetDescr(scan.rel), &isnull));
		scan_end(&scan);
		if (!HeapTupleIsValid(tuple))
			return ids;
		id = palloc(sizeof(int64));
		*id = after;
		ids = lappend(ids, id);
	}
}

/*
 * session_store.c
 *		Rows of sessions: found by visitor, written without SQL.
 *
 * Only who holds the projection's lock writes, so a row that was found is still the newest
 * one when it is written.  New rows are collected and inserted many at once.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heaptoast.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/snapmgr.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/table_row.h"
#include "fold/session.h"

#define INSERT_ROWS 256 /* collected before they are inserted */

enum
{
	SESSION_ID = 1,
	SESSION_VISITOR_HASH,
	SESSION_STARTED_AT,
	SESSION_ENDED_AT,
	SESSION_EVENTS,
	SESSION_PAGE_VIEWS,
	SESSION_FIRST_SEQUENCE,
	SESSION_LAST_SEQUENCE,
	SESSION_ENTRY_PAGE_AT,
	SESSION_ENTRY_PAGE_SEQUENCE,
	SESSION_EXIT_PAGE_AT,
	SESSION_EXIT_PAGE_SEQUENCE,
	SESSION_PROPERTIES_AT,
	SESSION_PROPERTIES_SEQUENCE,
	SESSION_USER_AT,
	SESSION_USER_SEQUENCE,
	SESSION_SOURCE,
	SESSION_VISITOR,
	SESSION_USER_ID,
	SESSION_ENTRY_TYPE,
	SESSION_ENTRY_PAGE,
	SESSION_EXIT_TYPE,
	SESSION_EXIT_PAGE,
	SESSION_ENTRY_PROPERTIES,
	SESSION_TYPE_COUNTS,
	SESSION_FIRST_EVENT_ID,
	SESSION_LAST_EVENT_ID,
	SESSION_ENTRY_PAGE_EVENT_ID,
	SESSION_EXIT_PAGE_EVENT_ID,
	SESSION_PROPERTIES_EVENT_ID,
	SESSION_USER_EVENT_ID,
	SESSION_NATTS = SESSION_USER_EVENT_ID
};

struct SessionStore
{
	Relation rel;
	Relation visitor_index;
	CatalogIndexState indexes;
	Snapshot snapshot;
	int nslots;
	TupleTableSlot *slots[INSERT_ROWS];
	MemoryContext row_context; /* values of rows being written */
};

SessionStore *
session_store_open(bool next)
{
	SessionStore *store = palloc0(sizeof(SessionStore));

	store->rel =
		table_open(behavior_relid(next ? REL_SESSION_NEXT : REL_SESSION), RowExclusiveLock);
	store->visitor_index = index_open(
		behavior_relid(next ? REL_SESSION_NEXT_VISITOR : REL_SESSION_VISITOR), AccessShareLock);
	store->indexes = CatalogOpenIndexes(store->rel);
	store->row_context = AllocSetContextCreate(CurrentMemoryContext, "behavior session rows",
											   ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < INSERT_ROWS; i++)
		store->slots[i] = MakeSingleTupleTableSlot(RelationGetDescr(store->rel), &TTSOpsHeapTuple);
	return store;
}

void
session_store_close(SessionStore *store)
{
	session_store_flush(store);
	if (store->snapshot != NULL)
		UnregisterSnapshot(store->snapshot);
	for (int i = 0; i < INSERT_ROWS; i++)
		ExecDropSingleTupleTableSlot(store->slots[i]);
	CatalogCloseIndexes(store->indexes);
	index_close(store->visitor_index, AccessShareLock);
	table_close(store->rel, NoLock);
	MemoryContextDelete(store->row_context);
}

/* Sees from now on what has been written so far. */
void
session_store_snapshot(SessionStore *store)
{
	CommandCounterIncrement();
	if (store->snapshot != NULL)
		UnregisterSnapshot(store->snapshot);
	store->snapshot = RegisterSnapshot(GetLatestSnapshot());
}

static Bytes
bytes_from_datum(Datum datum, bool isnull)
{
	Bytes bytes = {NULL, 0};

	if (!isnull)
	{
		text *value = DatumGetTextPP(datum);

		bytes.data = VARDATA_ANY(value);
		bytes.length = VARSIZE_ANY_EXHDR(value);
	}
	return bytes;
}

static Datum
bytes_to_datum(Bytes bytes)
{
	return PointerGetDatum(cstring_to_text_with_len(bytes.data, bytes.length));
}

/* An order key as it is stored: NULL in the first of its columns says that it is "fallback". */
static OrderKey
stored_key(const Datum *values, const bool *nulls, int at, int sequence, int event_id,
		   const OrderKey *fallback)
{
	OrderKey key;

	if (nulls[at - 1])
		return *fallback;
	key.at = DatumGetTimestampTz(values[at - 1]);
	key.has_sequence = !nulls[sequence - 1];
	key.sequence = key.has_sequence ? DatumGetInt64(values[sequence - 1]) : 0;
	key.event_id = bytes_from_datum(values[event_id - 1], nulls[event_id - 1]);
	return key;
}

static void
store_key(Datum *values, bool *nulls, int at, int sequence, int event_id, const OrderKey *key,
		  bool has_value, const OrderKey *fallback)
{
	nulls[at - 1] = nulls[sequence - 1] = nulls[event_id - 1] = true;
	if (!has_value || order_key_compare(key, fallback) == 0)
		return;
	nulls[at - 1] = nulls[event_id - 1] = false;
	nulls[sequence - 1] = !key->has_sequence;
	values[at - 1] = TimestampTzGetDatum(key->at);
	values[sequence - 1] = Int64GetDatum(key->sequence);
	values[event_id - 1] = bytes_to_datum(key->event_id);
}

static void
read_types(SessionRun *run, Jsonb *counts)
{
	JsonbIterator *it = JsonbIteratorInit(&counts->root);
	JsonbIteratorToken token;
	JsonbValue value;
	int n = 0;

	run->max_types = run->ntypes = JB_ROOT_COUNT(counts);
	run->types = palloc_extended(sizeof(TypeCount) * (run->max_types + 1), MCXT_ALLOC_HUGE);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			run->types[n].type.data = value.val.string.val;
			run->types[n].type.length = value.val.string.len;
		}
		else if (token == WJB_VALUE && value.type == jbvNumeric)
			run->types[n++].count = DatumGetInt64(
				DirectFunctionCall1(numeric_int8, NumericGetDatum(value.val.numeric)));
	}
	Assert(n == run->ntypes);
	run->max_types++;
}

static Jsonb *
types_to_jsonb(SessionRun *run)
{
	JsonbParseState *state = NULL;

	session_run_sum_types(run);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < run->ntypes; i++)
	{
		JsonbValue value;

		value.type = jbvString;
		value.val.string.val = unconstify(char *, run->types[i].type.data);
		value.val.string.len = run->types[i].type.length;
		pushJsonbValue(&state, WJB_KEY, &value);
		value.type = jbvNumeric;
		value.val.numeric = int64_to_numeric(run->types[i].count);
		pushJsonbValue(&state, WJB_VALUE, &value);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* What a row says; it points into the tuple, a copy of the caller's. */
static void
run_from_row(SessionRun *run, HeapTuple tuple, const Datum *values, const bool *nulls)
{
	memset(run, 0, sizeof(*run));
	run->stored = true;
	run->tid = tuple->t_self;
	run->id = *DatumGetUUIDP(values[SESSION_ID - 1]);

	run->first.at = DatumGetTimestampTz(values[SESSION_STARTED_AT - 1]);
	run->first.has_sequence = !nulls[SESSION_FIRST_SEQUENCE - 1];
	run->first.sequence =
		run->first.has_sequence ? DatumGetInt64(values[SESSION_FIRST_SEQUENCE - 1]) : 0;
	run->first.event_id = bytes_from_datum(values[SESSION_FIRST_EVENT_ID - 1], false);
	run->id_event = run->first.event_id;
	run->last.at = DatumGetTimestampTz(values[SESSION_ENDED_AT - 1]);
	run->last.has_sequence = !nulls[SESSION_LAST_SEQUENCE - 1];
	run->last.sequence =
		run->last.has_sequence ? DatumGetInt64(values[SESSION_LAST_SEQUENCE - 1]) : 0;
	run->last.event_id = bytes_from_datum(values[SESSION_LAST_EVENT_ID - 1], false);

	run->entry_type = bytes_from_datum(values[SESSION_ENTRY_TYPE - 1], false);
	run->exit_type = bytes_from_datum(values[SESSION_EXIT_TYPE - 1], false);
	run->entry_page =
		bytes_from_datum(values[SESSION_ENTRY_PAGE - 1], nulls[SESSION_ENTRY_PAGE - 1]);
	run->exit_page = bytes_from_datum(values[SESSION_EXIT_PAGE - 1], nulls[SESSION_EXIT_PAGE - 1]);
	run->user_id = bytes_from_datum(values[SESSION_USER_ID - 1], nulls[SESSION_USER_ID - 1]);
	if (!nulls[SESSION_ENTRY_PROPERTIES - 1])
		run->properties = DatumGetJsonbP(values[SESSION_ENTRY_PROPERTIES - 1]);
	run->entry_page_key =
		stored_key(values, nulls, SESSION_ENTRY_PAGE_AT, SESSION_ENTRY_PAGE_SEQUENCE,
				   SESSION_ENTRY_PAGE_EVENT_ID, &run->first);
	run->exit_page_key = stored_key(values, nulls, SESSION_EXIT_PAGE_AT, SESSION_EXIT_PAGE_SEQUENCE,
									SESSION_EXIT_PAGE_EVENT_ID, &run->last);
	run->properties_key =
		stored_key(values, nulls, SESSION_PROPERTIES_AT, SESSION_PROPERTIES_SEQUENCE,
				   SESSION_PROPERTIES_EVENT_ID, &run->first);
	run->user_key = stored_key(values, nulls, SESSION_USER_AT, SESSION_USER_SEQUENCE,
							   SESSION_USER_EVENT_ID, &run->last);

	run->events = DatumGetInt64(values[SESSION_EVENTS - 1]);
	run->page_views = DatumGetInt64(values[SESSION_PAGE_VIEWS - 1]);
	read_types(run, DatumGetJsonbP(values[SESSION_TYPE_COUNTS - 1]));
}

static void
optional_text(Datum *values, bool *nulls, int attribute, Bytes bytes)
{
	nulls[attribute - 1] = bytes.data == NULL;
	values[attribute - 1] = bytes.data == NULL ? (Datum) 0 : bytes_to_datum(bytes);
}

/* A tuple in the current context; values are made in the store's row context. */
static HeapTuple
row_from_run(SessionStore *store, const SessionVisitor *visitor, SessionRun *run)
{
	MemoryContext context = MemoryContextSwitchTo(store->row_context);
	Datum values[SESSION_NATTS];
	bool nulls[SESSION_NATTS] = {0};
	HeapTuple tuple;

	values[SESSION_ID - 1] = UUIDPGetDatum(&run->id);
	values[SESSION_VISITOR_HASH - 1] = Int64GetDatum(visitor->hash);
	values[SESSION_STARTED_AT - 1] = TimestampTzGetDatum(run->first.at);
	values[SESSION_ENDED_AT - 1] = TimestampTzGetDatum(run->last.at);
	values[SESSION_EVENTS - 1] = Int64GetDatum(run->events);
	values[SESSION_PAGE_VIEWS - 1] = Int64GetDatum(run->page_views);
	values[SESSION_FIRST_SEQUENCE - 1] = Int64GetDatum(run->first.sequence);
	nulls[SESSION_FIRST_SEQUENCE - 1] = !run->first.has_sequence;
	values[SESSION_LAST_SEQUENCE - 1] = Int64GetDatum(run->last.sequence);
	nulls[SESSION_LAST_SEQUENCE - 1] = !run->last.has_sequence;
	store_key(values, nulls, SESSION_ENTRY_PAGE_AT, SESSION_ENTRY_PAGE_SEQUENCE,
			  SESSION_ENTRY_PAGE_EVENT_ID, &run->entry_page_key, run->entry_page.data != NULL,
			  &run->first);
	store_key(values, nulls, SESSION_EXIT_PAGE_AT, SESSION_EXIT_PAGE_SEQUENCE,
			  SESSION_EXIT_PAGE_EVENT_ID, &run->exit_page_key, run->exit_page.data != NULL,
			  &run->last);
	store_key(values, nulls, SESSION_PROPERTIES_AT, SESSION_PROPERTIES_SEQUENCE,
			  SESSION_PROPERTIES_EVENT_ID, &run->properties_key, run->properties != NULL,
			  &run->first);
	store_key(values, nulls, SESSION_USER_AT, SESSION_USER_SEQUENCE, SESSION_USER_EVENT_ID,
			  &run->user_key, run->user_id.data != NULL, &run->last);
	values[SESSION_SOURCE - 1] = bytes_to_datum(visitor->source);
	values[SESSION_VISITOR - 1] = bytes_to_datum(visitor->visitor);
	optional_text(values, nulls, SESSION_USER_ID, run->user_id);
	values[SESSION_ENTRY_TYPE - 1] = bytes_to_datum(run->entry_type);
	optional_text(values, nulls, SESSION_ENTRY_PAGE, run->entry_page);
	values[SESSION_EXIT_TYPE - 1] = bytes_to_datum(run->exit_type);
	optional_text(values, nulls, SESSION_EXIT_PAGE, run->exit_page);
	nulls[SESSION_ENTRY_PROPERTIES - 1] = run->properties == NULL;
	values[SESSION_ENTRY_PROPERTIES - 1] = PointerGetDatum(run->properties);
	values[SESSION_TYPE_COUNTS - 1] = PointerGetDatum(types_to_jsonb(run));
	values[SESSION_FIRST_EVENT_ID - 1] = bytes_to_datum(run->first.event_id);
	values[SESSION_LAST_EVENT_ID - 1] = bytes_to_datum(run->last.event_id);

	MemoryContextSwitchTo(context);
	tuple = heap_form_tuple(RelationGetDescr(store->rel), values, nulls);
	MemoryContextReset(store->row_context);
	return tuple;
}

static bool
same_text(Datum datum, Bytes bytes)
{
	Bytes stored = bytes_from_datum(datum, false);

	return stored.length == bytes.length && memcmp(stored.data, bytes.data, bytes.length) == 0;
}

SessionRun *
session_store_find(SessionStore *store, const SessionVisitor *visitor, TimestampTz from,
				   TimestampTz to, int *count)
{
	SessionRun *runs = NULL;
	int max = 0;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple tuple;

	*count = 0;
	ScanKeyInit(&keys[0], SESSION_VISITOR_HASH, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(visitor->hash));
	ScanKeyInit(&keys[1], SESSION_STARTED_AT, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE,
				TimestampTzGetDatum(to));
	scan = systable_beginscan_ordered(store->rel, store->visitor_index, store->snapshot, 2, keys);

	/* Sessions of a visitor do not overlap: the first one that ends too early is the end. */
	while (HeapTupleIsValid(tuple = systable_getnext_ordered(scan, BackwardScanDirection)))
	{
		Datum values[SESSION_NATTS];
		bool nulls[SESSION_NATTS];

		heap_deform_tuple(tuple, RelationGetDescr(store->rel), values, nulls);
		if (!same_text(values[SESSION_VISITOR - 1], visitor->visitor) ||
			!same_text(values[SESSION_SOURCE - 1], visitor->source))
			continue;
		if (DatumGetTimestampTz(values[SESSION_ENDED_AT - 1]) < from)
			break;
		if (*count == max)
		{
			max = Max(4, max * 2);
			runs = runs == NULL ? palloc(sizeof(SessionRun) * max)
								: repalloc_huge(runs, sizeof(SessionRun) * max);
		}
		tuple = heap_copytuple(tuple);
		heap_deform_tuple(tuple, RelationGetDescr(store->rel), values, nulls);
		run_from_row(&runs[(*count)++], tuple, values, nulls);
	}
	systable_endscan_ordered(scan);

	for (int i = 0; i < *count / 2; i++)
	{
		SessionRun swap = runs[i];

		runs[i] = runs[*count - 1 - i];
		runs[*count - 1 - i] = swap;
	}
	return runs;
}

void
session_store_insert(SessionStore *store, const SessionVisitor *visitor, SessionRun *run)
{
	HeapTuple tuple = row_from_run(store, visitor, run);

	/*
	 * heap_multi_insert() tells where a row went through its slot, but index entries are made from
	 * the slot's tuple: of a row that is toasted on the way, that would be a copy that never got
	 * its place.
	 */
	if (tuple->t_len > TOAST_TUPLE_THRESHOLD || HeapTupleHasExternal(tuple))
	{
		table_row_insert(store->rel, tuple, store->indexes);
		heap_freetuple(tuple);
		return;
	}
	ExecForceStoreHeapTuple(tuple, store->slots[store->nslots], true);
	if (++store->nslots == INSERT_ROWS)
		session_store_flush(store);
}

void
session_store_update(SessionStore *store, const SessionVisitor *visitor, SessionRun *run)
{
	HeapTuple tuple = row_from_run(store, visitor, run);
	ItemPointerData tid = run->tid;

	table_row_update(store->rel, &tid, tuple, store->indexes);
	heap_freetuple(tuple);
}

void
session_store_delete(SessionStore *store, const SessionRun *run)
{
	ItemPointerData tid = run->tid;

	CatalogTupleDelete(store->rel, &tid);
}

/* Inserts what has been collected. */
void
session_store_flush(SessionStore *store)
{
	if (store->nslots == 0)
		return;
	table_rows_insert(store->rel, store->slots, store->nslots, store->indexes);
	for (int i = 0; i < store->nslots; i++)
		ExecClearTuple(store->slots[i]);
	store->nslots = 0;
}

/*
 * session_store.c
 *		Rows of sessions: found by visitor, written without SQL.
 *
 * Only who holds the projection's lock writes, so a row that was found is still the newest
 * one when it is written.  New rows are collected and inserted many at once.  Visitors
 * come in the order of their hashes, so the pages of that index are met one after the other; ids
 * are random, so their entries in the primary key are made at the end of a chunk, in the order
 * of that index.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heaptoast.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/table_row.h"
#include "fold/session.h"
#include "fold/session_row.h"

#define INSERT_ROWS 256 /* collected before they are inserted */

/* A row that is not in the primary key yet. */
typedef struct KeyEntry
{
	uint64 prefix; /* of the id, for sorting */
	pg_uuid_t id;
	TimestampTz started_at;
	ItemPointerData tid;
} KeyEntry;

#define ST_SORT			sort_key_entries
#define ST_ELEMENT_TYPE KeyEntry
#define ST_COMPARE(a, b)                                                                           \
	((a)->prefix != (b)->prefix ? ((a)->prefix < (b)->prefix ? -1 : 1)                             \
								: memcmp(&(a)->id, &(b)->id, sizeof(pg_uuid_t)))
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

struct SessionStore
{
	MemoryContext context;
	Relation rel;
	Relation visitor_index;
	CatalogIndexState indexes;
	ResultRelInfo other_indexes; /* without the primary key, if its entries are made later */
	int primary_key;			 /* which of "indexes" it is; -1: it gets its entries at once */
	Snapshot snapshot;
	IndexScanDesc scan;
	TupleTableSlot *found;
	int nslots;
	TupleTableSlot *slots[INSERT_ROWS];
	int nentries;
	int max_entries;
	KeyEntry *entries;
	MemoryContext scan_context; /* what the index scan keeps between its calls */
	MemoryContext row_context;	/* values of the row being written */
	MemoryContext slot_context; /* rows in slots */
};

/* Is this index the primary key that we know? */
static bool
is_primary_key(Relation rel, Relation index, const IndexInfo *info)
{
	return RelationGetRelid(index) == RelationGetPrimaryKeyIndex_compat(rel) &&
		   info->ii_NumIndexAttrs == 2 && info->ii_IndexAttrNumbers[0] == SESSION_ID &&
		   info->ii_IndexAttrNumbers[1] == SESSION_STARTED_AT && index->rd_index->indimmediate;
}

/* Sets the primary key apart from the other indexes. */
static void
split_indexes(SessionStore *store)
{
	const ResultRelInfo *all = store->indexes;
	ResultRelInfo *others = &store->other_indexes;

	*others = *all;
	others->ri_IndexRelationDescs = palloc(sizeof(Relation) * (all->ri_NumIndices + 1));
	others->ri_IndexRelationInfo = palloc(sizeof(IndexInfo *) * (all->ri_NumIndices + 1));
	others->ri_NumIndices = 0;
	store->primary_key = -1;
	for (int i = 0; i < all->ri_NumIndices; i++)
	{
		Relation index = all->ri_IndexRelationDescs[i];
		IndexInfo *info = all->ri_IndexRelationInfo[i];

		if (is_primary_key(store->rel, index, info))
		{
			store->primary_key = i;
			continue;
		}
		others->ri_IndexRelationDescs[others->ri_NumIndices] = index;
		others->ri_IndexRelationInfo[others->ri_NumIndices++] = info;
	}
}

SessionStore *
session_store_open(bool next)
{
	SessionStore *store = palloc0(sizeof(SessionStore));

	store->context = CurrentMemoryContext;
	store->rel =
		table_open(behavior_relid(next ? REL_SESSION_NEXT : REL_SESSION), RowExclusiveLock);
	store->visitor_index = index_open(
		behavior_relid(next ? REL_SESSION_NEXT_VISITOR : REL_SESSION_VISITOR), AccessShareLock);
	store->indexes = CatalogOpenIndexes(store->rel);
	split_indexes(store);
	store->scan_context = AllocSetContextCreate(CurrentMemoryContext, "behavior session scan",
												ALLOCSET_DEFAULT_SIZES);
	store->row_context =
		AllocSetContextCreate(CurrentMemoryContext, "behavior session row", ALLOCSET_DEFAULT_SIZES);
	store->slot_context = AllocSetContextCreate(CurrentMemoryContext, "behavior session rows",
												ALLOCSET_DEFAULT_SIZES);
	store->found = table_slot_create(store->rel, NULL);
	for (int i = 0; i < INSERT_ROWS; i++)
		store->slots[i] = MakeSingleTupleTableSlot(RelationGetDescr(store->rel), &TTSOpsHeapTuple);
	return store;
}

static void
end_scan(SessionStore *store)
{
	if (store->snapshot == NULL)
		return;
	ExecClearTuple(store->found);
	index_endscan(store->scan);
	UnregisterSnapshot(store->snapshot);
	store->snapshot = NULL;
	MemoryContextReset(store->scan_context);
}

void
session_store_close(SessionStore *store)
{
	session_store_flush(store);
	end_scan(store);
	ExecDropSingleTupleTableSlot(store->found);
	for (int i = 0; i < INSERT_ROWS; i++)
		ExecDropSingleTupleTableSlot(store->slots[i]);
	CatalogCloseIndexes(store->indexes);
	index_close(store->visitor_index, AccessShareLock);
	table_close(store->rel, NoLock);
	MemoryContextDelete(store->scan_context);
	MemoryContextDelete(store->row_context);
	MemoryContextDelete(store->slot_context);
}

/* Sees from now on what has been written so far. */
void
session_store_snapshot(SessionStore *store)
{
	MemoryContext old;

	end_scan(store);
	CommandCounterIncrement();
	store->snapshot = RegisterSnapshot(GetLatestSnapshot());
	old = MemoryContextSwitchTo(store->scan_context);
	store->scan = index_beginscan_compat(store->rel, store->visitor_index, store->snapshot, 2, 0);
	MemoryContextSwitchTo(old);
}

static bool
same_text(Datum datum, Bytes bytes)
{
	text *value = DatumGetTextPP(datum);

	return VARSIZE_ANY_EXHDR(value) == bytes.length &&
		   memcmp(VARDATA_ANY(value), bytes.data, bytes.length) == 0;
}

/* The next row of the scan. */
static bool
next_row(SessionStore *store)
{
	MemoryContext old = MemoryContextSwitchTo(store->scan_context);
	bool found = index_getnext_slot(store->scan, BackwardScanDirection, store->found);

	MemoryContextSwitchTo(old);
	return found;
}

SessionRun *
session_store_find(SessionStore *store, const SessionVisitor *visitor, TimestampTz from,
				   TimestampTz to, int *count)
{
	SessionRun *runs = NULL;
	int max = 0;
	ScanKeyData keys[2];
	TupleTableSlot *slot = store->found;

	*count = 0;
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(visitor->hash));
	ScanKeyInit(&keys[1], 2, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE, TimestampTzGetDatum(to));
	index_rescan(store->scan, keys, 2, NULL, 0);

	/* Sessions of a visitor do not overlap: the first one that ends too early is the end. */
	while (next_row(store))
	{
		bool isnull;

		if (!same_text(slot_getattr(slot, SESSION_VISITOR, &isnull), visitor->visitor) ||
			!same_text(slot_getattr(slot, SESSION_SOURCE, &isnull), visitor->source))
			continue;
		if (DatumGetTimestampTz(slot_getattr(slot, SESSION_ENDED_AT, &isnull)) < from)
			break;
		if (*count == max)
		{
			max = Max(4, max * 2);
			runs = runs == NULL ? palloc(sizeof(SessionRun) * max)
								: repalloc_huge(runs, sizeof(SessionRun) * max);
		}
		session_run_from_row(&runs[(*count)++], RelationGetDescr(store->rel),
							 ExecCopySlotHeapTuple(slot));
	}

	for (int i = 0; i < *count / 2; i++)
	{
		SessionRun swap = runs[i];

		runs[i] = runs[*count - 1 - i];
		runs[*count - 1 - i] = swap;
	}
	return runs;
}

/* Inserts the rows that have been collected, but for their entries in the primary key. */
static void
insert_rows(SessionStore *store)
{
	if (store->nslots == 0)
		return;
	table_rows_insert(store->rel, store->slots, store->nslots,
					  store->primary_key < 0 ? store->indexes : &store->other_indexes);
	for (int i = 0; i < store->nslots; i++)
	{
		if (store->primary_key >= 0)
		{
			bool should_free;
			HeapTuple tuple = ExecFetchSlotHeapTuple(store->slots[i], true, &should_free);
			KeyEntry *entry;
			bool isnull;

			if (store->nentries == store->max_entries)
			{
				store->max_entries = Max(INSERT_ROWS, store->max_entries * 2);
				store->entries =
					store->entries == NULL
						? MemoryContextAlloc(store->context, sizeof(KeyEntry) * store->max_entries)
						: repalloc_huge(store->entries, sizeof(KeyEntry) * store->max_entries);
			}
			entry = &store->entries[store->nentries++];
			entry->id = *DatumGetUUIDP(
				heap_getattr(tuple, SESSION_ID, RelationGetDescr(store->rel), &isnull));
			memcpy(&entry->prefix, &entry->id, sizeof(entry->prefix));
			entry->prefix = pg_ntoh64(entry->prefix);
			entry->started_at = DatumGetTimestampTz(
				heap_getattr(tuple, SESSION_STARTED_AT, RelationGetDescr(store->rel), &isnull));
			entry->tid = tuple->t_self;
		}
		ExecClearTuple(store->slots[i]);
	}
	store->nslots = 0;
	MemoryContextReset(store->slot_context);
}

void
session_store_insert(SessionStore *store, const SessionVisitor *visitor, SessionRun *run)
{
	MemoryContext old = MemoryContextSwitchTo(store->slot_context);
	HeapTuple tuple =
		session_run_to_row(run, visitor, RelationGetDescr(store->rel), store->row_context);

	MemoryContextSwitchTo(old);

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
	ExecForceStoreHeapTuple(tuple, store->slots[store->nslots], false);
	if (++store->nslots == INSERT_ROWS)
		insert_rows(store);
}

void
session_store_update(SessionStore *store, const SessionVisitor *visitor, SessionRun *run)
{
	HeapTuple tuple =
		session_run_to_row(run, visitor, RelationGetDescr(store->rel), store->row_context);
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

/* Writes all that has been collected. */
void
session_store_flush(SessionStore *store)
{
	insert_rows(store);
	if (store->nentries == 0)
		return;
	sort_key_entries(store->entries, store->nentries);
	for (int i = 0; i < store->nentries; i++)
	{
		KeyEntry *entry = &store->entries[i];
		Datum values[2] = {UUIDPGetDatum(&entry->id), TimestampTzGetDatum(entry->started_at)};
		bool nulls[2] = {false, false};

		CHECK_FOR_INTERRUPTS();
		index_insert(store->indexes->ri_IndexRelationDescs[store->primary_key], values, nulls,
					 &entry->tid, store->rel, UNIQUE_CHECK_YES, false,
					 store->indexes->ri_IndexRelationInfo[store->primary_key]);
	}
	store->nentries = 0;
}

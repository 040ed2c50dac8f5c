/*
 * session_store.c
 *		Rows of sessions: found by visitor, written without SQL.
 *
 * Only who holds the projection's lock writes, so a row that was found is still the newest
 * one when it is written.  New rows are collected and inserted many at once.  Visitors
 * come in the order of their hashes, so the pages of that index are met one after the other.
 * Entries of new rows in indexes that we know are made at the end of a chunk, index after index
 * and in the order of each: nothing looks for these rows before, since a chunk has a visitor once.
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
#include "catalog/pg_am_d.h"
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
#define MAX_COLUMNS 3	/* of an index that we know */

/* A row that is not in the indexes yet, but for those that others added. */
typedef struct IndexEntry
{
	pg_uuid_t id;
	int64 visitor_hash;
	TimestampTz started_at;
	ItemPointerData tid;
} IndexEntry;

/* As uuid_cmp() does; mostly the beginnings tell. */
static inline int
compare_ids(const pg_uuid_t *a, const pg_uuid_t *b)
{
	uint64 left;
	uint64 right;

	memcpy(&left, a, sizeof(left));
	memcpy(&right, b, sizeof(right));
	if (left == right)
		return memcmp(a, b, sizeof(pg_uuid_t));
	return pg_ntoh64(left) < pg_ntoh64(right) ? -1 : 1;
}

#define ST_SORT			 sort_by_id
#define ST_ELEMENT_TYPE	 IndexEntry
#define ST_COMPARE(a, b) compare_ids(&(a)->id, &(b)->id)
#define ST_SCOPE		 static
#define ST_DEFINE
#include "lib/sort_template.h"

#define ST_SORT			sort_by_visitor
#define ST_ELEMENT_TYPE IndexEntry
#define ST_COMPARE(a, b)                                                                           \
	((a)->visitor_hash < (b)->visitor_hash ? -1 : (a)->visitor_hash > (b)->visitor_hash)
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

#define ST_SORT			sort_by_start
#define ST_ELEMENT_TYPE IndexEntry
#define ST_COMPARE(a, b)                                                                           \
	((a)->started_at < (b)->started_at ? -1 : (a)->started_at > (b)->started_at)
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

struct SessionStore
{
	MemoryContext context;
	Relation rel;
	Relation visitor_index;
	CatalogIndexState indexes;
	ResultRelInfo known_indexes; /* their entries are made later */
	ResultRelInfo other_indexes;
	Snapshot snapshot;
	IndexScanDesc scan;
	TupleTableSlot *found;
	int nslots;
	TupleTableSlot *slots[INSERT_ROWS];
	int nentries;
	int max_entries;
	IndexEntry *entries;
	MemoryContext scan_context;	 /* what the index scan keeps between its calls */
	MemoryContext slot_context;	 /* rows in slots */
	MemoryContext entry_context; /* what making an index entry leaves behind */
};

/* Can all that this index holds be told from an IndexEntry? */
static bool
is_known(Relation index, const IndexInfo *info)
{
	if (index->rd_rel->relam != BTREE_AM_OID || info->ii_NumIndexAttrs > MAX_COLUMNS ||
		info->ii_Expressions != NIL || info->ii_Predicate != NIL || info->ii_ExclusionOps != NULL ||
		!index->rd_index->indimmediate)
		return false;
	for (int i = 0; i < info->ii_NumIndexAttrs; i++)
	{
		AttrNumber column = info->ii_IndexAttrNumbers[i];

		if (column != SESSION_ID && column != SESSION_VISITOR_HASH && column != SESSION_STARTED_AT)
			return false;
	}
	return true;
}

static void
add_index(ResultRelInfo *indexes, Relation index, IndexInfo *info)
{
	indexes->ri_IndexRelationDescs[indexes->ri_NumIndices] = index;
	indexes->ri_IndexRelationInfo[indexes->ri_NumIndices++] = info;
}

static void
copy_without_indexes(ResultRelInfo *to, const ResultRelInfo *from)
{
	*to = *from;
	to->ri_IndexRelationDescs = palloc(sizeof(Relation) * (from->ri_NumIndices + 1));
	to->ri_IndexRelationInfo = palloc(sizeof(IndexInfo *) * (from->ri_NumIndices + 1));
	to->ri_NumIndices = 0;
}

/* Sets the indexes that we know apart from what others added. */
static void
split_indexes(SessionStore *store)
{
	const ResultRelInfo *all = store->indexes;

	copy_without_indexes(&store->known_indexes, all);
	copy_without_indexes(&store->other_indexes, all);
	for (int i = 0; i < all->ri_NumIndices; i++)
	{
		Relation index = all->ri_IndexRelationDescs[i];
		IndexInfo *info = all->ri_IndexRelationInfo[i];

		add_index(is_known(index, info) ? &store->known_indexes : &store->other_indexes, index,
				  info);
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
	if (RelationGetDescr(store->rel)->natts != SESSION_NATTS)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" does not have the columns that behavior made",
						RelationGetRelationName(store->rel)),
				 errhint("The extension's own tables cannot be altered: restore it as it was.")));
	store->indexes = CatalogOpenIndexes(store->rel);
	split_indexes(store);
	store->scan_context = AllocSetContextCreate(CurrentMemoryContext, "behavior session scan",
												ALLOCSET_DEFAULT_SIZES);
	store->slot_context = AllocSetContextCreate(CurrentMemoryContext, "behavior session rows",
												ALLOCSET_DEFAULT_SIZES);
	store->entry_context = AllocSetContextCreate(CurrentMemoryContext, "behavior session entries",
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
	MemoryContextDelete(store->slot_context);
	MemoryContextDelete(store->entry_context);
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

/* Notes what the indexes have to know of a row that stands in the table. */
static void
add_entry(SessionStore *store, HeapTuple tuple)
{
	TupleDesc desc = RelationGetDescr(store->rel);
	IndexEntry *entry;
	bool isnull;

	if (store->nentries == store->max_entries)
	{
		store->max_entries = Max(INSERT_ROWS, store->max_entries * 2);
		store->entries =
			store->entries == NULL
				? MemoryContextAlloc(store->context, sizeof(IndexEntry) * store->max_entries)
				: repalloc_huge(store->entries, sizeof(IndexEntry) * store->max_entries);
	}
	entry = &store->entries[store->nentries++];
	entry->id = *DatumGetUUIDP(heap_getattr(tuple, SESSION_ID, desc, &isnull));
	entry->visitor_hash = DatumGetInt64(heap_getattr(tuple, SESSION_VISITOR_HASH, desc, &isnull));
	entry->started_at = DatumGetTimestampTz(heap_getattr(tuple, SESSION_STARTED_AT, desc, &isnull));
	entry->tid = tuple->t_self;
}

/* Inserts the rows that have been collected, without their entries in the indexes that we know. */
static void
insert_rows(SessionStore *store)
{
	if (store->nslots == 0)
		return;
	table_rows_insert(store->rel, store->slots, store->nslots, &store->other_indexes);
	for (int i = 0; i < store->nslots; i++)
	{
		bool should_free;

		add_entry(store, ExecFetchSlotHeapTuple(store->slots[i], true, &should_free));
		ExecClearTuple(store->slots[i]);
	}
	store->nslots = 0;
	MemoryContextReset(store->slot_context);
}

void
session_store_insert(SessionStore *store, const SessionVisitor *visitor, SessionRun *run)
{
	MemoryContext old = MemoryContextSwitchTo(store->slot_context);
	HeapTuple tuple = session_run_to_row(run, visitor, RelationGetDescr(store->rel));

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
	HeapTuple tuple = session_run_to_row(run, visitor, RelationGetDescr(store->rel));
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

/* Makes the entries of collected rows in an index, in its order. */
static void
insert_entries(SessionStore *store, Relation index, IndexInfo *info)
{
	IndexUniqueCheck check = index->rd_index->indisunique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO;
	MemoryContext old = MemoryContextSwitchTo(store->entry_context);

	switch (info->ii_IndexAttrNumbers[0])
	{
		case SESSION_ID:
			sort_by_id(store->entries, store->nentries);
			break;
		case SESSION_VISITOR_HASH:
			sort_by_visitor(store->entries, store->nentries);
			break;
		default:
			sort_by_start(store->entries, store->nentries);
	}
	for (int i = 0; i < store->nentries; i++)
	{
		IndexEntry *entry = &store->entries[i];
		Datum values[MAX_COLUMNS];
		bool nulls[MAX_COLUMNS] = {0};

		CHECK_FOR_INTERRUPTS();
		for (int column = 0; column < info->ii_NumIndexAttrs; column++)
		{
			switch (info->ii_IndexAttrNumbers[column])
			{
				case SESSION_ID:
					values[column] = UUIDPGetDatum(&entry->id);
					break;
				case SESSION_VISITOR_HASH:
					values[column] = Int64GetDatum(entry->visitor_hash);
					break;
				default:
					values[column] = TimestampTzGetDatum(entry->started_at);
			}
		}
		index_insert(index, values, nulls, &entry->tid, store->rel, check, false, info);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(store->entry_context);
}

/* Writes all that has been collected. */
void
session_store_flush(SessionStore *store)
{
	const ResultRelInfo *known = &store->known_indexes;

	insert_rows(store);
	if (store->nentries == 0)
		return;
	for (int i = 0; i < known->ri_NumIndices; i++)
	{
		if (known->ri_IndexRelationInfo[i]->ii_ReadyForInserts)
			insert_entries(store, known->ri_IndexRelationDescs[i], known->ri_IndexRelationInfo[i]);
	}
	store->nentries = 0;
}

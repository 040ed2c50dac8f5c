/*
 * table_row.c
 *		Writing rows of the extension's own tables, whatever indexes somebody added to them.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_index.h"
#include "executor/executor.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "core/compat.h"
#include "core/table_row.h"

/* Does any index need an expression to be evaluated, or a constraint to be checked? */
static bool
needs_executor(CatalogIndexState indexes)
{
	for (int i = 0; i < indexes->ri_NumIndices; i++)
	{
		const IndexInfo *info = indexes->ri_IndexRelationInfo[i];

		if (info->ii_Expressions != NIL || info->ii_Predicate != NIL ||
			info->ii_ExclusionOps != NULL)
			return true;
	}
	return false;
}

/* Enters a row that stands in the table into the indexes. */
static void
index_row(Relation rel, HeapTuple tuple, CatalogIndexState indexes, bool only_summarizing)
{
	EState *estate = CreateExecutorState();
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsHeapTuple);

	ExecStoreHeapTuple(tuple, slot, false);
	slot->tts_tid = tuple->t_self;
	list_free(compat_index_row(indexes, slot, estate, only_summarizing));

	/* What was prepared for the indexes lives as long as this executor state. */
	for (int i = 0; i < indexes->ri_NumIndices; i++)
	{
		indexes->ri_IndexRelationInfo[i]->ii_ExpressionsState = NIL;
		indexes->ri_IndexRelationInfo[i]->ii_PredicateState = NULL;
	}
	ExecDropSingleTupleTableSlot(slot);
	FreeExecutorState(estate);
}

bool
table_index_is_plain(Relation index)
{
	Form_pg_index form = index->rd_index;

	return index->rd_rel->relam == BTREE_AM_OID && form->indisready && form->indimmediate &&
		   !form->indisexclusion &&
		   heap_attisnull(index->rd_indextuple, Anum_pg_index_indexprs, NULL) &&
		   heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL);
}

void
table_index_insert(Relation rel, Relation index, Datum *values, bool *isnull, ItemPointer tid)
{
	/* What there would be to say of the index: neither B-tree nor hash asks. */
	static IndexInfo info = {.type = T_IndexInfo};

	(void) index_insert(index, values, isnull, tid, rel,
						index->rd_index->indisunique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO, false,
						&info);
}

/*
 * Inserts into a table that has one index, a plain one, as most of ours have: what
 * CatalogTupleInsert() prepares for any number of indexes costs as much as the entry.  False, with
 * nothing done, where the table has others, as while one is rebuilt CONCURRENTLY.
 */
static bool
insert_with_one_index(Relation rel, HeapTuple tuple)
{
	List *indexes = RelationGetIndexList(rel);
	Oid relid = list_length(indexes) == 1 ? linitial_oid(indexes) : InvalidOid;
	Datum values[INDEX_MAX_KEYS];
	bool isnull[INDEX_MAX_KEYS];
	Relation index;
	bool plain;

	list_free(indexes);
	if (!OidIsValid(relid))
		return false;
	index = index_open(relid, RowExclusiveLock);
	plain = table_index_is_plain(index);
	if (plain)
	{
		simple_heap_insert(rel, tuple);
		for (int i = 0; i < index->rd_index->indnatts; i++)
			values[i] = heap_getattr(tuple, index->rd_index->indkey.values[i],
									 RelationGetDescr(rel), &isnull[i]);
		table_index_insert(rel, index, values, isnull, &tuple->t_self);
	}
	index_close(index, RowExclusiveLock);
	return plain;
}

void
table_row_insert(Relation rel, HeapTuple tuple, CatalogIndexState indexes)
{
	CatalogIndexState opened;

	if (indexes == NULL && insert_with_one_index(rel, tuple))
		return;

	opened = indexes != NULL ? indexes : CatalogOpenIndexes(rel);
	if (!needs_executor(opened))
		CatalogTupleInsertWithInfo(rel, tuple, opened);
	else
	{
		simple_heap_insert(rel, tuple);
		index_row(rel, tuple, opened, false);
	}
	if (indexes == NULL)
		CatalogCloseIndexes(opened);
}

void
table_row_update(Relation rel, ItemPointer tid, HeapTuple tuple, CatalogIndexState indexes)
{
	bool only_summarizing;

	if (!needs_executor(indexes))
		CatalogTupleUpdateWithInfo(rel, tid, tuple, indexes);
	else if (compat_heap_update(rel, tid, tuple, &only_summarizing))
		index_row(rel, tuple, indexes, only_summarizing);
}

void
table_rows_insert(Relation rel, TupleTableSlot **slots, int n, CatalogIndexState indexes)
{
	if (!needs_executor(indexes))
	{
		CatalogTuplesMultiInsertWithInfo(rel, slots, n, indexes);
		return;
	}
	for (int i = 0; i < n; i++)
	{
		bool should_free;
		HeapTuple tuple = ExecFetchSlotHeapTuple(slots[i], true, &should_free);

		simple_heap_insert(rel, tuple);
		index_row(rel, tuple, indexes, false);
		if (should_free)
			heap_freetuple(tuple);
	}
}

bool
table_has_rows(Oid relid)
{
	Relation rel = table_open(relid, AccessShareLock);
	bool any = false;

	if (RelationGetNumberOfBlocks(rel) > 0)
	{
		Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
		SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);

		any = HeapTupleIsValid(systable_getnext(scan));
		systable_endscan(scan);
		UnregisterSnapshot(snapshot);
	}
	table_close(rel, AccessShareLock);
	return any;
}

/*
 * table_row.c
 *		Writing rows of the extension's own tables, whatever indexes somebody added to them.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/xact.h"
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

void
table_row_insert(Relation rel, HeapTuple tuple, CatalogIndexState indexes)
{
	CatalogIndexState opened = indexes != NULL ? indexes : CatalogOpenIndexes(rel);

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

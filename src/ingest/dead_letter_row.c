/*
 * dead_letter_row.c
 *		Writes rows of behavior.dead_letter and their entries in its indexes.
 *
 * Index by index, and in the order of the entries: those by event are at random, so the letters of
 * one flush, sorted, meet each leaf once and while it is in the processor's cache.  Indexes that
 * somebody has added are entered the same way, or by the executor where they are of another kind.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "executor/executor.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "core/compat.h"
#include "core/table_row.h"
#include "ingest/dead_letter_row.h"

/* A row that stands in the table. */
typedef struct Placed
{
	HeapTuple row;
	ItemPointerData tid;
	const char *event_id; /* NULL: none */
	int length;
} Placed;

static int
compare_event_ids(const Placed *a, const Placed *b)
{
	int order;

	if (a->event_id == NULL || b->event_id == NULL)
		return (a->event_id == NULL) - (b->event_id == NULL);
	order = memcmp(a->event_id, b->event_id, Min(a->length, b->length));
	return order != 0 ? order : (a->length > b->length) - (a->length < b->length);
}

#define ST_SORT			 sort_by_event_id
#define ST_ELEMENT_TYPE	 Placed
#define ST_COMPARE(a, b) compare_event_ids(a, b)
#define ST_SCOPE		 static
#define ST_DECLARE
#define ST_DEFINE
#include "lib/sort_template.h"

/* Whether all indexes are of columns. */
static bool
are_plain(CatalogIndexState indexes)
{
	for (int i = 0; i < indexes->ri_NumIndices; i++)
	{
		const IndexInfo *info = indexes->ri_IndexRelationInfo[i];

		if (info->ii_Predicate != NIL || info->ii_Expressions != NIL ||
			info->ii_ExclusionOps != NULL ||
			!indexes->ri_IndexRelationDescs[i]->rd_index->indimmediate)
			return false;
	}
	return true;
}

static bool
has_column(const IndexInfo *info, int column)
{
	for (int i = 0; i < info->ii_NumIndexKeyAttrs; i++)
	{
		if (info->ii_IndexAttrNumbers[i] == column)
			return true;
	}
	return false;
}

static void
enter_rows(Relation rel, Relation index, IndexInfo *info, const Placed *placed, int n)
{
	Datum values[INDEX_MAX_KEYS];
	bool isnull[INDEX_MAX_KEYS];

	for (int i = 0; i < n; i++)
	{
		for (int k = 0; k < info->ii_NumIndexAttrs; k++)
			values[k] = heap_getattr(placed[i].row, info->ii_IndexAttrNumbers[k],
									 RelationGetDescr(rel), &isnull[k]);
		index_insert(index, values, isnull, (ItemPointer) &placed[i].tid, rel,
					 index->rd_index->indisunique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO, false,
					 info);
	}
}

/* Puts rows into the table; the slots own them from then on. */
static void
place_rows(Relation rel, HeapTuple *rows, int n, TupleTableSlot **slots, Placed *placed)
{
	/* A copy, which is not counted: a resource owner takes n^2 steps to count n equal ones. */
	TupleDesc desc = CreateTupleDescCopy(RelationGetDescr(rel));

	for (int i = 0; i < n; i++)
	{
		slots[i] = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
		ExecStoreHeapTuple(rows[i], slots[i], true);
	}
	heap_multi_insert(rel, slots, n, GetCurrentCommandId(true), 0, NULL);
	for (int i = 0; i < n; i++)
	{
		bool isnull;
		Datum value = heap_getattr(rows[i], DEAD_LETTER_EVENT_ID, desc, &isnull);

		placed[i].row = rows[i];
		placed[i].tid = slots[i]->tts_tid;
		placed[i].event_id = isnull ? NULL : VARDATA_ANY(DatumGetPointer(value));
		placed[i].length = isnull ? 0 : VARSIZE_ANY_EXHDR(DatumGetPointer(value));
	}
}

static void
insert_plain(Relation rel, HeapTuple *rows, int n, CatalogIndexState indexes)
{
	TupleTableSlot **slots = palloc(n * sizeof(TupleTableSlot *));
	Placed *placed = palloc(n * sizeof(Placed));

	place_rows(rel, rows, n, slots, placed);
	for (int by_event = 0; by_event < 2; by_event++)
	{
		if (by_event == 1)
			sort_by_event_id(placed, n);
		for (int i = 0; i < indexes->ri_NumIndices; i++)
		{
			IndexInfo *info = indexes->ri_IndexRelationInfo[i];

			if (info->ii_ReadyForInserts &&
				has_column(info, DEAD_LETTER_EVENT_ID) == (by_event == 1))
				enter_rows(rel, indexes->ri_IndexRelationDescs[i], info, placed, n);
		}
	}
	for (int i = 0; i < n; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
}

void
dead_letter_rows_insert(Relation rel, HeapTuple *rows, int n)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "dead letter rows", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	CatalogIndexState indexes = CatalogOpenIndexes(rel);

	if (are_plain(indexes))
		insert_plain(rel, rows, n, indexes);
	else
	{
		for (int i = 0; i < n; i++)
		{
			table_row_insert(rel, rows[i], indexes);
			heap_freetuple(rows[i]);
		}
	}
	CatalogCloseIndexes(indexes);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

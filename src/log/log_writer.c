/*
 * log_writer.c
 *		Appends events to the log's partitions and notes where they went.
 *
 * Rows go through one array of slots that lives as long as the writer: a slot per event made the
 * same code twice as slow.  The rows come as ready-made tuples: heap_multi_insert would copy the
 * values of a virtual slot before it makes a tuple of them.  Free space is not searched:
 * it would scatter a flush over old pages, and a fold reads by extents.
 *
 * BRIN: an insert into a range that is summarised already has to widen the range's
 * minimum and maximum.  For our own index it is enough to show it the
 * smallest and the largest values that a flush put into each range; every
 * other index gets every row.
 */
#include "postgres.h"

#include "access/brin.h"
#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type_d.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "log/log_writer_internal.h"

/* Rows given to heap_multi_insert at a time. */
#define WRITE_CHUNK 256

/* Operator families integer_minmax_ops and datetime_minmax_ops, of which the server headers have no
 * symbols. */
#define INTEGER_MINMAX_FAMILY  4054
#define DATETIME_MINMAX_FAMILY 4059
#define MAX_MINMAX_COLUMNS	   2

/* An extent may swallow a gap this small: reading it costs less than remembering it. */
#define EXTENT_JOIN_GAP	 4
#define EXTENT_LIST_LONG 512 /* from here on, gaps of any size are swallowed */
#define EXTENT_LOOK_BACK 64

struct LogWriter
{
	MemoryContext context;		 /* the writer's own */
	MemoryContext group_context; /* reset after each partition; NULL until needed */
	MemoryContext chunk_context; /* reset after each chunk */
	TupleDesc desc;
	int nslots;
	TupleTableSlot *slots[WRITE_CHUNK];
	const LogRow *rows[WRITE_CHUNK]; /* what the slots hold */
};

static const Oid column_types[LOG_NATTS] = {
	[LOG_OCCURRED_AT - 1] = TIMESTAMPTZOID,
	[LOG_RECEIVED_AT - 1] = TIMESTAMPTZOID,
	[LOG_BATCH_ID - 1] = INT8OID,
	[LOG_SEQUENCE - 1] = INT8OID,
	[LOG_EVENT_ID - 1] = TEXTOID,
	[LOG_SOURCE - 1] = TEXTOID,
	[LOG_TYPE - 1] = TEXTOID,
	[LOG_USER_ID - 1] = TEXTOID,
	[LOG_ANONYMOUS_ID - 1] = TEXTOID,
	[LOG_PROPERTIES - 1] = JSONBOID,
	[LOG_CONTEXT - 1] = JSONBOID,
	[LOG_HOPS - 1] = INT2OID,
};

/* True when rows of behavior.log can be read from and written to a table as they are. */
bool
log_partition_fits(Relation rel)
{
	TupleDesc desc = RelationGetDescr(rel);

	if (rel->rd_rel->relkind != RELKIND_RELATION || rel->rd_rel->relam != HEAP_TABLE_AM_OID ||
		desc->natts < LOG_NATTS)
		return false;
	for (int i = 0; i < LOG_NATTS; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (attribute->atttypid != column_types[i] || attribute->attisdropped)
			return false;
	}
	return true;
}

int32
log_partition_day(const LogPartition *part)
{
	if (part->is_default)
		return PG_INT32_MAX;
	if (TIMESTAMP_IS_NOBEGIN(part->lower))
		return PG_INT32_MIN;
	return (int32) (part->lower / USECS_PER_DAY);
}

void
extent_list_add(ExtentList *list, int32 partition_day, BlockNumber first, BlockNumber last,
				uint32 rows)
{
	int stop = Max(0, list->count - EXTENT_LOOK_BACK);
	Extent *extent;

	for (int i = list->count - 1; i >= stop; i--)
	{
		extent = &list->extents[i];
		if (extent->partition_day != partition_day)
			continue;
		if (list->count < EXTENT_LIST_LONG &&
			((uint64) first > (uint64) extent->last_block + EXTENT_JOIN_GAP ||
			 (uint64) last + EXTENT_JOIN_GAP < (uint64) extent->first_block))
			continue;
		extent->first_block = Min(extent->first_block, first);
		extent->last_block = Max(extent->last_block, last);
		extent->rows += rows;
		return;
	}

	if (list->count == list->max)
	{
		list->max = Max(8, list->max * 2);
		list->extents = list->extents == NULL
							? (Extent *) palloc(list->max * sizeof(Extent))
							: (Extent *) repalloc(list->extents, list->max * sizeof(Extent));
	}
	extent = &list->extents[list->count++];
	extent->partition_day = partition_day;
	extent->first_block = first;
	extent->last_block = last;
	extent->rows = rows;
}

/* Of the columns that all partitions have in common; made once per backend. */
static TupleDesc
row_descriptor(void)
{
	static TupleDesc desc = NULL;

	if (desc == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
		TupleDesc made = CreateTemplateTupleDesc(LOG_NATTS);

		for (int i = 0; i < LOG_NATTS; i++)
			TupleDescInitEntry(made, i + 1, NULL, column_types[i], -1, 0);
		desc = made;
		MemoryContextSwitchTo(old);
	}
	return desc;
}

LogWriter *
log_writer_begin(void)
{
	LogWriter *writer = (LogWriter *) palloc(sizeof(LogWriter));

	writer->context = CurrentMemoryContext;
	writer->group_context = NULL;
	writer->chunk_context = NULL;
	writer->desc = NULL;
	writer->nslots = 0;
	return writer;
}

void
log_writer_end(LogWriter *writer)
{
	for (int i = 0; i < writer->nslots; i++)
		ExecDropSingleTupleTableSlot(writer->slots[i]);
	if (writer->group_context != NULL)
	{
		MemoryContextDelete(writer->chunk_context);
		MemoryContextDelete(writer->group_context);
	}
	pfree(writer);
}

/* Makes what a single row does without. */
static void
make_contexts(LogWriter *writer)
{
	if (writer->group_context != NULL)
		return;
	writer->desc = row_descriptor();
	writer->chunk_context =
		AllocSetContextCreate(writer->context, "log writer chunk", ALLOCSET_DEFAULT_SIZES);
	writer->group_context =
		AllocSetContextCreate(writer->context, "log writer partition", ALLOCSET_DEFAULT_SIZES);
}

/* Makes the slots that a chunk needs, those of earlier chunks included. */
static void
need_slots(LogWriter *writer, int n)
{
	MemoryContext old = MemoryContextSwitchTo(writer->context);

	while (writer->nslots < n)
		writer->slots[writer->nslots++] = MakeSingleTupleTableSlot(writer->desc, &TTSOpsHeapTuple);
	MemoryContextSwitchTo(old);
}

bool
log_index_is_summary(Relation index)
{
	Form_pg_index form = index->rd_index;

	if (index->rd_rel->relam != BRIN_AM_OID || form->indnatts > MAX_MINMAX_COLUMNS ||
		!heap_attisnull(index->rd_indextuple, Anum_pg_index_indexprs, NULL) ||
		!heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL))
		return false;
	for (int i = 0; i < form->indnatts; i++)
	{
		if (!(form->indkey.values[i] == LOG_BATCH_ID &&
			  index->rd_opfamily[i] == INTEGER_MINMAX_FAMILY) &&
			!(form->indkey.values[i] == LOG_OCCURRED_AT &&
			  index->rd_opfamily[i] == DATETIME_MINMAX_FAMILY))
			return false;
	}
	return true;
}

void
log_check_partition(Relation rel)
{
	if (!log_partition_fits(rel))
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg(
				 "partition \"%s\" of behavior.log does not have the columns of behavior.log in their order",
				 RelationGetRelationName(rel)),
			 errhint("Detach the partition; behavior makes its own.")));
}

/* Shows the index the smallest and largest values of the rows in each block range. */
static void
insert_brin(LogWriter *writer, Relation rel, Relation index, IndexInfo *info, int n)
{
	TupleTableSlot **slots = writer->slots;
	const LogRow **rows = writer->rows;
	BrinStatsData stats;
	BlockNumber pages_per_range;
	int ncolumns = info->ii_NumIndexKeyAttrs;
	int i = 0;

	/* As the index was made: ALTER INDEX changes the option now, the index with a REINDEX. */
	brinGetStats(index, &stats);
	pages_per_range = stats.pagesPerRange;
	while (i < n)
	{
		ItemPointer tid = &slots[i]->tts_tid;
		BlockNumber range = ItemPointerGetBlockNumber(tid) / pages_per_range;
		Datum least[MAX_MINMAX_COLUMNS];
		Datum greatest[MAX_MINMAX_COLUMNS];
		bool isnull[MAX_MINMAX_COLUMNS] = {false};
		bool differ = false;

		for (int c = 0; c < ncolumns; c++)
			least[c] = greatest[c] = rows[i]->values[info->ii_IndexAttrNumbers[c] - 1];
		for (i++; i < n; i++)
		{
			if (ItemPointerGetBlockNumber(&slots[i]->tts_tid) / pages_per_range != range)
				break;
			for (int c = 0; c < ncolumns; c++)
			{
				Datum value = rows[i]->values[info->ii_IndexAttrNumbers[c] - 1];

				if (DatumGetInt64(value) < DatumGetInt64(least[c]))
					least[c] = value;
				else if (DatumGetInt64(value) > DatumGetInt64(greatest[c]))
					greatest[c] = value;
			}
		}
		for (int c = 0; c < ncolumns; c++)
			differ = differ || least[c] != greatest[c];

		/* Of the row the index wants to know no more than the range. */
		(void) index_insert(index, least, isnull, tid, rel, UNIQUE_CHECK_NO, false, info);
		if (differ)
			(void) index_insert(index, greatest, isnull, tid, rel, UNIQUE_CHECK_NO, false, info);
	}

	/*
	 * 17 keeps how long the range map was: the next rows must stand in the table before it is
	 * looked at, or a summary made in between would miss them.
	 */
	compat_index_insert_end(index, info);
}

static void
insert_index_entries(LogWriter *writer, ResultRelInfo *result, EState *estate, int n)
{
	bool *shown = (bool *) palloc0(Max(result->ri_NumIndices, 1) * sizeof(bool));
	bool others = false;

	for (int i = 0; i < result->ri_NumIndices; i++)
	{
		IndexInfo *info = result->ri_IndexRelationInfo[i];

		/* One that CONCURRENTLY has just begun to build may not even have its first block yet. */
		if (!info->ii_ReadyForInserts)
			continue;
		if (log_index_is_summary(result->ri_IndexRelationDescs[i]))
		{
			insert_brin(writer, result->ri_RelationDesc, result->ri_IndexRelationDescs[i], info, n);
			/* Makes ExecInsertIndexTuples leave it out. */
			info->ii_ReadyForInserts = false;
			shown[i] = true;
		}
		else
			others = true;
	}
	for (int i = 0; others && i < n; i++)
	{
		List *recheck = compat_insert_index_tuples(result, writer->slots[i], estate);

		if (recheck != NIL)
			ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							errmsg("deferrable constraint on partition \"%s\" of behavior.log",
								   RelationGetRelationName(result->ri_RelationDesc)),
							errhint("Drop the constraint, or make it NOT DEFERRABLE.")));
		ResetPerTupleExprContext(estate);
	}
	for (int i = 0; i < result->ri_NumIndices; i++)
	{
		if (shown[i])
			result->ri_IndexRelationInfo[i]->ii_ReadyForInserts = true;
	}
	pfree(shown);
}

/* Notes the blocks that a chunk went to. */
static void
note_extents(ExtentList *extents, int32 day, TupleTableSlot **slots, int n)
{
	BlockNumber first = ItemPointerGetBlockNumber(&slots[0]->tts_tid);
	BlockNumber last = first;
	uint32 rows = 1;

	for (int i = 1; i < n; i++)
	{
		BlockNumber block = ItemPointerGetBlockNumber(&slots[i]->tts_tid);

		if (block != last && block != last + 1)
		{
			extent_list_add(extents, day, first, last, rows);
			first = block;
			rows = 0;
		}
		last = block;
		rows++;
	}
	extent_list_add(extents, day, first, last, rows);
}

/* Appends rows[order[0..n)] (or rows[0..n) when there is no order) to one partition. */
static void
write_group(LogWriter *writer, const LogPartition *part, const LogRow *rows, const int *order,
			int n, ExtentList *extents)
{
	Relation rel = table_open(part->relid, RowExclusiveLock);
	int32 day = log_partition_day(part);
	ResultRelInfo *result;
	EState *estate = NULL;
	MemoryContext old;

	log_check_partition(rel);
	make_contexts(writer);
	old = MemoryContextSwitchTo(writer->group_context);
	result = makeNode(ResultRelInfo);
	InitResultRelInfo(result, rel, 0, NULL, 0);
	ExecOpenIndices(result, false);
	for (int i = 0; i < result->ri_NumIndices; i++)
	{
		if (estate == NULL && !log_index_is_summary(result->ri_IndexRelationDescs[i]))
			estate = CreateExecutorState();
	}

	for (int done = 0; done < n;)
	{
		int chunk = Min(n - done, WRITE_CHUNK);

		CHECK_FOR_INTERRUPTS();
		need_slots(writer, chunk);
		MemoryContextSwitchTo(writer->chunk_context);
		for (int i = 0; i < chunk; i++)
		{
			const LogRow *row = &rows[order != NULL ? order[done + i] : done + i];

			/* As the slot's own: heap_multi_insert() would copy one that is not. */
			writer->rows[i] = row;
			ExecStoreHeapTuple(row->tuple, writer->slots[i], true);
		}
		heap_multi_insert(rel, writer->slots, chunk, GetCurrentCommandId(true),
						  HEAP_INSERT_SKIP_FSM, NULL);
		insert_index_entries(writer, result, estate, chunk);
		MemoryContextSwitchTo(writer->context);
		note_extents(extents, day, writer->slots, chunk);
		for (int i = 0; i < chunk; i++)
		{
			writer->slots[i]->tts_flags &= ~TTS_FLAG_SHOULDFREE;
			ExecClearTuple(writer->slots[i]);
		}
		MemoryContextReset(writer->chunk_context);
		done += chunk;
	}

	ExecCloseIndices(result);
	if (estate != NULL)
		FreeExecutorState(estate);
	MemoryContextSwitchTo(old);
	MemoryContextReset(writer->group_context);
	table_close(rel, NoLock);
}

/* Writes the rows of each partition in turn, each partition's in their given order. */
static void
write_groups(LogWriter *writer, const LogRow *rows, const LogPartition *parts, int nrows,
			 ExtentList *extents)
{
	int *order = (int *) palloc(nrows * sizeof(int));
	bool *written = (bool *) palloc0(nrows * sizeof(bool));

	for (int start = 0; start < nrows; start++)
	{
		int n = 0;

		if (written[start])
			continue;
		for (int i = start; i < nrows; i++)
		{
			if (!written[i] && parts[i].relid == parts[start].relid)
			{
				order[n++] = i;
				written[i] = true;
			}
		}
		write_group(writer, &parts[start], rows, order, n, extents);
	}
	pfree(written);
	pfree(order);
}

void
log_writer_append(LogWriter *writer, const LogRow *rows, const LogPartition *parts, int nrows,
				  ExtentList *extents)
{
	int same = 1;

	if (nrows <= 0 || (nrows == 1 && log_write_single(&parts[0], &rows[0], extents)))
		return;
	while (same < nrows && parts[same].relid == parts[0].relid)
		same++;
	if (same == nrows)
		write_group(writer, &parts[0], rows, NULL, nrows, extents);
	else
		write_groups(writer, rows, parts, nrows, extents);
}

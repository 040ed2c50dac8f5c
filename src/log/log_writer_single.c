/*
 * log_writer_single.c
 *		Appends one event: what a statement of one event pays for.
 *
 * Slots, memory contexts and a ResultRelInfo pay off for thousands of rows; for one they cost more
 * than to write it.  So this knows a partition as the extension makes it, with our own BRIN index
 * or none, and leaves all others to the writer.
 *
 * The block range that takes the newest rows is summarised only when it is full, so most rows
 * have nothing to tell the index.  Whether that is so is looked up by BRIN's own rules, at the
 * place where an insert would begin: whoever summarises a range first makes a placeholder there,
 * then reads the range.  A row that is in the table before the look is read, or finds the
 * placeholder.
 */
#include "postgres.h"

#include "access/brin.h"
#include "access/brin_page.h"
#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "storage/bufmgr.h"
#include "storage/predicate.h"
#include "utils/rel.h"

#include "core/compat.h"
#include "log/log_writer_internal.h"

/* Whether the range that a block is in has a summary, or is being given one. */
static bool
range_has_summary(Relation index, BlockNumber block)
{
	BrinStatsData stats;
	BlockNumber range;
	BlockNumber map;
	Buffer buffer;
	RevmapContents *contents;
	bool result;

	/* One that summarises ranges by itself wants to hear of each row. */
	if (BrinGetAutoSummarize(index))
		return true;
	brinGetStats(index, &stats);
	range = block / stats.pagesPerRange;
	map = range / REVMAP_PAGE_MAXITEMS + 1;
	/* As the last page of the map is given: what is before it, of which there are none at first. */
	if (map > (BlockNumber) (stats.revmapNumPages + 1))
		return false;
	buffer = ReadBuffer(index, map);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	contents = (RevmapContents *) PageGetContents(BufferGetPage(buffer));
	result = ItemPointerIsValid(&contents->rm_tids[range % REVMAP_PAGE_MAXITEMS]);
	UnlockReleaseBuffer(buffer);
	return result;
}

/* Shows the index a row that stands in the partition. */
static void
enter_row(Relation rel, Relation index, const LogRow *row)
{
	IndexInfo *info;
	Datum values[INDEX_MAX_KEYS];
	bool isnull[INDEX_MAX_KEYS] = {false};

	if (!range_has_summary(index, ItemPointerGetBlockNumber(&row->tuple->t_self)))
	{
		/* As index_insert() does: SERIALIZABLE readers through the index have a lock on all of it.
		 */
		CheckForSerializableConflictIn(index, NULL, InvalidBlockNumber);
		return;
	}
	info = BuildIndexInfo(index);
	for (int i = 0; i < IndexRelationGetNumberOfKeyAttributes(index); i++)
		values[i] = row->values[index->rd_index->indkey.values[i] - 1];
	(void) index_insert(index, values, isnull, &row->tuple->t_self, rel, UNIQUE_CHECK_NO, false,
						info);
	compat_index_insert_end(index, info);
}

bool
log_write_single(const LogPartition *part, const LogRow *row, ExtentList *extents)
{
	/* log_partition_for() has locked it. */
	Relation rel = table_open(part->relid, NoLock);
	List *indexes = RelationGetIndexList(rel);
	Relation index = NULL;
	bool known = list_length(indexes) <= 1;

	if (known && indexes != NIL)
	{
		index = index_open(linitial_oid(indexes), RowExclusiveLock);
		known = log_index_is_summary(index);
	}
	list_free(indexes);

	if (known)
	{
		BlockNumber block;

		log_check_partition(rel);
		heap_insert(rel, row->tuple, GetCurrentCommandId(true), HEAP_INSERT_SKIP_FSM, NULL);
		block = ItemPointerGetBlockNumber(&row->tuple->t_self);
		/* One that CONCURRENTLY has just begun to build may not even have its first block yet. */
		if (index != NULL && index->rd_index->indisready)
			enter_row(rel, index, row);
		extent_list_add(extents, log_partition_day(part), block, block, 1);
	}

	if (index != NULL)
		index_close(index, RowExclusiveLock);
	table_close(rel, NoLock);
	return known;
}

/*
 * log_summary.c
 *		Sizes of partitions, and keeping their BRIN indexes summarised.
 *
 * A range that is not summarised is read by every scan through the index, so ranges
 * are summarised at the tick at which they are full.  Not sooner: every insert into a range that is
 * summarised has to look whether it widens it, and to write that down.
 */
#include "postgres.h"

#include "access/brin.h"
#include "access/genam.h"
#include "access/relation.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/spi.h"
#include "log/log_reader.h"
#include "log/partition.h"

BlockNumber
log_blocks(Oid relid)
{
	Relation rel = try_relation_open(relid, AccessShareLock);
	BlockNumber blocks = 0;

	if (rel == NULL)
		return 0;
	if (RELKIND_HAS_STORAGE(rel->rd_rel->relkind))
		blocks = RelationGetNumberOfBlocks(rel);
	relation_close(rel, AccessShareLock);
	return blocks;
}

Oid
log_filenode(Oid relid)
{
	Relation rel = try_relation_open(relid, AccessShareLock);
	Oid filenode;

	if (rel == NULL)
		return InvalidOid;
	filenode = rel->rd_rel->relfilenode;
	relation_close(rel, AccessShareLock);
	return filenode;
}

/*
 * Full block ranges of one BRIN index, backwards from the end: those behind "first", and before it
 * as far as they are not summarised yet, since a lock or a crash may have kept an earlier tick from
 * it.
 */
static void
summarize_index(Relation rel, Relation index, BlockNumber first)
{
	BrinStatsData stats;
	BlockNumber pages_per_range;
	BlockNumber range;
	bool more = true;

	/* As the index was made: ALTER INDEX changes the option now, the index with a REINDEX. */
	brinGetStats(index, &stats);
	pages_per_range = stats.pagesPerRange;
	range = RelationGetNumberOfBlocks(rel) / pages_per_range;
	while (more && range-- > 0)
	{
		int64 block = (int64) range * pages_per_range;
		Datum made;

		CHECK_FOR_INTERRUPTS();
		made = DirectFunctionCall2(brin_summarize_range, ObjectIdGetDatum(RelationGetRelid(index)),
								   Int64GetDatum(block));
		more = DatumGetInt32(made) > 0 || block > first;
	}
}

/* Full block ranges of one partition's BRIN indexes. */
static void
summarize_partition(Oid relid, BlockNumber first)
{
	Relation rel;
	List *indexes;
	ListCell *cell;

	/* The lock that the function above takes: it would wait for a VACUUM. */
	if (!ConditionalLockRelationOid(relid, ShareUpdateExclusiveLock))
		return;
	rel = try_relation_open(relid, NoLock);
	if (rel != NULL)
	{
		indexes = RelationGetIndexList(rel);
		foreach (cell, indexes)
		{
			Relation index = index_open(lfirst_oid(cell), AccessShareLock);

			if (index->rd_rel->relam == BRIN_AM_OID && index->rd_index->indisvalid)
				summarize_index(rel, index, first);
			index_close(index, AccessShareLock);
		}
		list_free(indexes);
		relation_close(rel, NoLock);
	}
	UnlockRelationOid(relid, ShareUpdateExclusiveLock);
}

void
log_summarize(const ExtentList *extents)
{
	int nparts;
	LogPartition *parts = log_partitions(&nparts);
	SecureContext secure;

	secure_begin(&secure, behavior_owner());
	for (int i = 0; i < nparts; i++)
	{
		int32 day = log_partition_day(&parts[i]);
		BlockNumber first = InvalidBlockNumber;

		for (int j = 0; j < extents->count; j++)
		{
			if (extents->extents[j].partition_day == day)
				first = Min(first, extents->extents[j].first_block);
		}
		if (BlockNumberIsValid(first))
			summarize_partition(parts[i].relid, first);
	}
	secure_end(&secure);
	pfree(parts);
}

/*
 * log_summary.c
 *		Sizes of partitions, and keeping their BRIN indexes summarised.
 *
 * A range that is not summarised is read by every scan through the index, so new
 * ranges are summarised at each tick; from then on inserts keep them right.
 */
#include "postgres.h"

#include "access/brin.h"
#include "access/genam.h"
#include "access/relation.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_class.h"
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

/* New block ranges of one partition's BRIN indexes. */
static void
summarize_partition(Oid relid)
{
	Relation rel;
	List *indexes;
	ListCell *cell;

	/* The lock that the function below takes: it would wait for a VACUUM. */
	if (!ConditionalLockRelationOid(relid, ShareUpdateExclusiveLock))
		return;
	rel = try_relation_open(relid, NoLock);
	if (rel != NULL)
	{
		indexes = RelationGetIndexList(rel);
		foreach (cell, indexes)
		{
			Oid index = lfirst_oid(cell);
			Relation index_rel = index_open(index, AccessShareLock);
			bool brin = index_rel->rd_rel->relam == BRIN_AM_OID;

			index_close(index_rel, AccessShareLock);
			if (brin)
				(void) DirectFunctionCall1(brin_summarize_new_values, ObjectIdGetDatum(index));
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

		for (int j = 0; j < extents->count; j++)
		{
			if (extents->extents[j].partition_day == day)
			{
				summarize_partition(parts[i].relid);
				break;
			}
		}
	}
	secure_end(&secure);
	pfree(parts);
}

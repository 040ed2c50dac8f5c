/*
 * log_reader.h
 *		Reads the events of given batches without trusting the planner.
 *
 * A batch row says where its events went: a list of extents, each a partition
 * (by the start of its range, which outlives dump and restore), a first and last block and a number
 * of rows.  Extents of many batches are joined, each block is read once, and rows are kept when
 * their batch_id is in the set.  An extent is a hint: when the rows found are not as many as the
 * batches say, the batches concerned are read through BRIN, and when that does not bring them all,
 * by a scan of every partition.
 */
#ifndef BEHAVIOR_LOG_READER_H
#define BEHAVIOR_LOG_READER_H

#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "storage/block.h"
#include "utils/snapshot.h"

#include "log/batch_set.h"

/* On disk, in behavior._batch.extents: an array of these, in native byte order of 4-byte words. */
typedef struct Extent
{
	int32 partition_day; /* lower bound in days since 2000-01-01; PG_INT32_MIN open, PG_INT32_MAX
							DEFAULT */
	uint32 first_block;
	uint32 last_block; /* inclusive */
	uint32 rows;
} Extent;

typedef struct ExtentList
{
	int count;
	int max;
	Extent *extents;
} ExtentList;

/* Adds an extent, joining it with the last of the same partition when they touch. */
extern void extent_list_add(ExtentList *list, int32 partition_day, BlockNumber first,
							BlockNumber last, uint32 rows);

/* Called for each event; the slot holds a row of behavior.log and is valid until it returns. */
typedef void (*LogRowCallback)(TupleTableSlot *slot, void *arg);

/*
 * Hands every event of the batches in "set" that "snapshot" sees to the callback, in no
 * particular order.  Returns how many.  Batch rows themselves are read under the
 * same snapshot.
 */
extern uint64
log_read_batches(const BatchSet *set, Snapshot snapshot, LogRowCallback callback, void *arg);

/*
 * The same for batches whose rows may be gone (behavior.batch_retention): through the BRIN indexes
 * of every partition, so the set should be small.
 */
extern uint64
log_read_indexed(const BatchSet *set, Snapshot snapshot, LogRowCallback callback, void *arg);

/* The same of one partition, an Oid from log_partitions(). */
extern uint64 log_read_partition(Oid relid, const BatchSet *set, Snapshot snapshot,
								 LogRowCallback callback, void *arg);

/*
 * Hands every row of one partition with lower <= occurred_at < upper that "snapshot" sees to the
 * callback, through its BRIN index.  Returns how many rows had to be looked at for them.
 */
extern uint64 log_read_time(Oid relid, TimestampTz lower, TimestampTz upper, Snapshot snapshot,
							LogRowCallback callback, void *arg);

/*
 * Hands every row that "snapshot" sees in blocks first..last of one partition (an Oid from
 * log_partitions()) to the callback; blocks behind its end are no error.  Returns how many rows.
 */
extern uint64 log_walk(Oid relid, BlockNumber first, BlockNumber last, Snapshot snapshot,
					   LogRowCallback callback, void *arg);

/* Blocks of one partition now; 0 when it is gone. */
extern BlockNumber log_blocks(Oid relid);

/* The file a partition is in; another one after a rewrite, which moves rows.  InvalidOid when it is
 * gone. */
extern Oid log_filenode(Oid relid);

/*
 * Summarises new block ranges of the BRIN indexes of the partitions that these extents name.
 * A partition whose lock is not free is left for the next time.
 */
extern void log_summarize(const ExtentList *extents);

#endif

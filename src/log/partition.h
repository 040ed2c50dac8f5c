/*
 * partition.h
 *		Partitions of behavior.log: which holds a time, and making them.
 *
 * Days (UTC) for the last 90 days and the days ahead, gap-filling coarse ones
 * (at most a year each) before that, one for everything before 1970, and a
 * DEFAULT partition for what has no other: so a wrong clock cannot make
 * thousands of partitions.
 *
 * No DDL in the sender's transaction: creating a partition there deadlocks with
 * key waits and fails when the session is reading the log.  The worker and
 * tick() make the days ahead; a missing one is made by a short dynamic
 * worker, which gives up when a reader's lock holds it back; then the rows go to
 * the DEFAULT partition, from which maintenance moves them.  A new partition
 * is a table built apart, with its BRIN index, and attached.
 *
 * Partitions, DEFAULT included, are ordinary objects, not members of the
 * extension, and their BRIN indexes belong to them alone.  The DEFAULT
 * partition and today's are made at first use.
 */
#ifndef BEHAVIOR_PARTITION_H
#define BEHAVIOR_PARTITION_H

#include "datatype/timestamp.h"
#include "utils/relcache.h"

typedef struct LogPartition
{
	Oid relid;
	TimestampTz lower; /* inclusive; DT_NOBEGIN for open or DEFAULT */
	TimestampTz upper; /* exclusive; DT_NOEND for open or DEFAULT */
	bool is_default;
} LogPartition;

/*
 * The partition that takes events of "occurred_at", made through a dynamic
 * worker when it is missing and one can be had, else the DEFAULT one.  Called
 * with no key bucket and no generation lock held.  A cached lookup when the
 * partition is there: no catalog access, no lock taken.
 */
extern void log_partition_for(TimestampTz occurred_at, LogPartition *result);

/* How an extent names a partition: see log_reader.h. */
extern int32 log_partition_day(const LogPartition *part);

/* Every partition, in the order of time, DEFAULT last.  Palloc'd array. */
extern LogPartition *log_partitions(int *count);

/* True when a table holds the columns of behavior.log as they are, in a heap. */
extern bool log_partition_fits(Relation rel);

/*
 * Makes the partitions from yesterday to "days_ahead" days from now where events have come lately:
 * in the caller's transaction, or through a dynamic worker when that is a transaction block. Only
 * for tick() and workers, never for a sender.
 */
extern void log_make_partitions_ahead(int days_ahead);

/*
 * Moves rows out of the DEFAULT partition into those that should hold them, in the caller's
 * transaction, which should end soon: it locks the DEFAULT partition against readers.
 * Skips (returns false) when locks cannot be had at once, or while the log is being walked.
 */
extern bool log_empty_default(void);

/* True when a restore is under way: some partition still lacks its BRIN indexes. */
extern bool log_restore_in_progress(void);

#endif

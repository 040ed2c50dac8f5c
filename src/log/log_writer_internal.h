/*
 * log_writer_internal.h
 *		Inside of the writer of the log: shared by log_writer*.c only.
 */
#ifndef BEHAVIOR_LOG_WRITER_INTERNAL_H
#define BEHAVIOR_LOG_WRITER_INTERNAL_H

#include "utils/relcache.h"

#include "log/log_writer.h"

/* Our own BRIN index: plain columns that only grow with the range's extremes. */
extern bool log_index_is_summary(Relation index);

/* Raises unless rows of behavior.log can be written to the partition as they are. */
extern void log_check_partition(Relation rel);

/*
 * Appends one row to a partition that log_partition_for() returned, in a memory context that is
 * reset soon.  False, with nothing done, when it has indexes other than ours.
 */
extern bool log_write_single(const LogPartition *part, const LogRow *row, ExtentList *extents);

#endif

/*
 * log_writer.h
 *		Appends events to the log's partitions and notes where they went.
 *
 * Uses heap_multi_insert, for one row heap_insert, with HEAP_INSERT_SKIP_FSM, so that what one
 * flush writes is contiguous, or nearly; updates whatever indexes a partition has.
 * Slots, bulk state and the EState live as long as the writer: a frame makes one and reuses
 * it over its flushes.
 */
#ifndef BEHAVIOR_LOG_WRITER_H
#define BEHAVIOR_LOG_WRITER_H

#include "log/log_reader.h"
#include "log/log_row.h"
#include "log/partition.h"

typedef struct LogWriter LogWriter;

/* In the current memory context; relations are opened per flush and closed after it. */
extern LogWriter *log_writer_begin(void);

/*
 * Appends rows[0..nrows) whose partitions are parts[0..nrows), with any number of
 * distinct partitions among them.  Adds to *extents.
 */
extern void log_writer_append(LogWriter *writer, const LogRow *rows, const LogPartition *parts,
							  int nrows, ExtentList *extents);

extern void log_writer_end(LogWriter *writer);

#endif

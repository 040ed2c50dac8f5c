/*
 * partition_make.h
 *		The DDL of partitions, and the dynamic worker that carries it out: private to partition*.c.
 */
#ifndef BEHAVIOR_PARTITION_MAKE_H
#define BEHAVIOR_PARTITION_MAKE_H

#include "datatype/timestamp.h"

/*
 * A day here is a number of days since 2000-01-01 UTC.  Days later than
 * this many from today get no partition yet: they are a wrong clock's, mostly.
 */
#define LOG_DAYS_AHEAD_MAX 7
#define LOG_DAYS_KEPT	   90 /* days back from today that have a partition each */
#define LOG_DAYS_FIRST	   2  /* days ahead that are made at first use */

#define LOG_NO_TIME DT_NOBEGIN

extern int32 partition_day_of(TimestampTz at);
extern int32 partition_today(void);

/* Is there a partition to make for "at", or should it be left to those there are? */
extern bool partition_wanted(TimestampTz at);

/*
 * Locks what ATTACH PARTITION will lock, the parent and the DEFAULT partition, without ever
 * standing in the lock's queue, where it would hold up every later reader.  Tries for
 * "patience" milliseconds; false when one of them is not to be had.
 */
extern bool partition_lock(int patience);

/*
 * Makes what is missing: the DEFAULT partition, yesterday to days_ahead days from now (-1: none of
 * them) and, unless it is LOG_NO_TIME, what takes "at".  Locks are held.
 */
extern void partition_make(TimestampTz at, int days_ahead);

/*
 * Has a dynamic worker make what partition_make() would, and waits for it, a few seconds at
 * most.  False when there is no worker to be had.
 */
extern bool partition_request(TimestampTz at, int days_ahead);

#endif

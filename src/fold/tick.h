/*
 * tick.h
 *		Cuts the log into ticks: numbers batches in the order in which they became visible.
 *
 * The tick lock, number 0 on behavior.tick (core/lock.h), exclusive, is taken before the snapshot:
 * whoever holds it numbers.  See tick.c for how batches are found without a
 * queue.
 */
#ifndef BEHAVIOR_TICK_H
#define BEHAVIOR_TICK_H

#include "fmgr.h"
#include "utils/snapshot.h"

#include "log/batch_set.h"

#define TICK_ALL PG_INT64_MAX /* "up to": those not yet numbered as well */

/*
 * Cuts a tick when batches with accepted events wait, in the caller's
 * transaction (READ COMMITTED).  Returns the number of the last tick.  With wait = false
 * returns -1 when somebody else holds the tick lock.
 */
extern int64 tick_cut(bool wait);

/*
 * Brings the BRIN indexes of the partitions that this backend's last cut found events in up to
 * date. In a transaction of its own, or the caller's.
 */
extern void tick_summarize(void);

/* Batches of ticks after_tick < tick <= upto_tick, as "snapshot" sees them. */
extern BatchSet *tick_batches(Snapshot snapshot, int64 after_tick, int64 upto_tick);

/* Events accepted and not yet numbered, counted up to "limit": is a tick due early? */
extern int64 tick_waiting(int64 limit);

/* The last tick that "snapshot" sees; 0 when there is none. */
extern int64 tick_last(Snapshot snapshot);

/* behavior._tick_id(), which keeps in its call site what it has looked up. */
extern Datum behavior_tick_id(PG_FUNCTION_ARGS);

#endif

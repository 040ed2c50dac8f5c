/*
 * match_sort.h
 *		Matched events on their way into queues, in the order of events.
 *
 * Sorted by tick, then (occurred_at, sequence NULLS FIRST, event_id COLLATE "C", source), on disk
 * when maintenance_work_mem does not hold them.
 */
#ifndef BEHAVIOR_MATCH_SORT_H
#define BEHAVIOR_MATCH_SORT_H

#include "datatype/timestamp.h"
#include "executor/tuptable.h"

#include "log/batch_set.h"
#include "route/queue.h"

typedef struct MatchSort MatchSort;

typedef struct Match
{
	int64 tick;
	TimestampTz occurred_at;
	EventRef ref;
	int nrules;
	const int *rules; /* valid until the next match */
} Match;

/* In the current context; after the snapshot under which the events are read was taken. */
extern MatchSort *match_sort_begin(void);

/* Adds an event, a row of behavior.log as the log reader hands it over, and the rules it matched.
 */
extern void
match_sort_put(MatchSort *sort, TupleTableSlot *slot, int64 tick, const int *rules, int nrules);
extern int64 match_sort_count(const MatchSort *sort);

/* Sorts; then match_sort_next() gives them one by one, until it returns false. */
extern void match_sort_finish(MatchSort *sort);
extern bool match_sort_next(MatchSort *sort, Match *match);
extern void match_sort_end(MatchSort *sort);

/* Which batch is of which tick. */
typedef struct TickRanges TickRanges;

/* Of ticks after_tick < tick <= upto_tick, in the current context. */
extern TickRanges *tick_ranges_read(Snapshot snapshot, int64 after_tick, int64 upto_tick);

/* The tick of a batch of theirs; -1 for another one. */
extern int64 tick_ranges_find(TickRanges *ranges, int64 batch_id);
extern BatchSet *tick_ranges_batches(const TickRanges *ranges);

#endif

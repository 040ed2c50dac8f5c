/*
 * tick_events.h
 *		The events of some ticks, read once and handed to every projection that lacks them.
 */
#ifndef BEHAVIOR_TICK_EVENTS_H
#define BEHAVIOR_TICK_EVENTS_H

#include "datatype/timestamp.h"
#include "utils/snapshot.h"

#include "fold/projection.h"
#include "fold/tick_rows.h"
#include "log/batch_set.h"

/* Most events that are handed over at once; more come in several chunks. */
#define TICK_EVENTS_CHUNK 500000

/* What a cut has to know of its events. */
typedef struct TickEventsSummary
{
	int64 events;
	TimestampTz first_occurred_at; /* meaningless without events */
	TimestampTz last_occurred_at;
} TickEventsSummary;

/*
 * Reads the events of "batches", those of one tick that is about to be numbered, and
 * keeps them for tick_events_each() when they fit in a chunk.
 */
extern void tick_events_load(const BatchSet *batches, int64 tick_id, Snapshot snapshot,
							 TickEventsSummary *summary);

/*
 * Hands the events of ticks after_tick < tick <= upto_tick to the callback, in chunks of
 * at most TICK_EVENTS_CHUNK; not at all when there are none.  What fits in memory is
 * kept for the next caller, over commits too.
 */
typedef void (*TickEventsCallback)(const TickEvents *events, void *arg);
extern void tick_events_each(int64 after_tick, int64 upto_tick, Snapshot snapshot,
							 TickEventsCallback callback, void *arg);

/* Are the events behind "after_tick" kept, up to some tick? */
extern bool tick_events_kept(int64 after_tick);

/*
 * The rows of a tuplestore of events that a callback has before it; NULL for another one, or when
 * making the list is not worth it.  by_type: types are asked for.
 */
extern const TickRows *tick_events_rows(Tuplestorestate *store, bool by_type);

/* Frees what is kept. */
extern void tick_events_forget(void);

#endif

/*
 * projection.h
 *		Anything folded from the log: progress, state, and the loop that folds.
 *
 * projection_fold_all() brings every projection to a tick.  The events of the ticks that a
 * projection lacks are read once into a tuplestore that all projections with the same progress
 * share; each projection folds it and advances its progress in one transaction
 * (or, inside a caller's transaction, one subtransaction).  One that fails is a WARNING
 * and its own state; the others go on.
 */
#ifndef BEHAVIOR_PROJECTION_H
#define BEHAVIOR_PROJECTION_H

#include "executor/tuptable.h"
#include "storage/itemptr.h"
#include "utils/snapshot.h"
#include "utils/tuplestore.h"

/* Events of some ticks: rows of behavior.log in a tuplestore that can be read many times. */
typedef struct TickEvents
{
	Tuplestorestate *store;
	TupleDesc desc; /* that of behavior.log */
	int64 count;
	int64 after_tick; /* exclusive */
	int64 upto_tick;  /* inclusive */
	bool more;		  /* others of these ticks follow, and these stay until those are folded */
} TickEvents;

/*
 * Folds the events into the projection's state; SPI is not connected.  Sessions are written when no
 * more follow; until then *unfinished, NULL at first, holds them.
 */
typedef struct SessionFold SessionFold;
extern void session_fold(const char *name, const TickEvents *events, SessionFold **unfinished);
extern void rollup_fold(const char *name, const TickEvents *events);

/*
 * Builds what is not there yet, backfills and rebuilds, one step: returns true when there is more
 * to do. In the caller's transaction; progress is kept in tables, so a step may be followed by a
 * commit.
 */
extern bool session_build_step(void);
extern bool rollup_build_step(const char *name);

/* A build that is under way starts again: the functions it calls may have changed since. */
extern void rollup_build_anew(const char *name);

/*
 * At the start of each tick: gives rollups that a schema-only restore brought, and the built-in
 * one, their catalog rows and a backfill; forgets those whose relation was dropped.  Writes nothing
 * when all is well.
 */
extern void rollup_adopt(void);

/* The role that owns a rollup: who may rebuild it.  Raises 42704 for an unknown name. */
extern Oid rollup_owner(const char *name);

/* Makes the row of projection "sessions" at first use.  Writes nothing when it is there. */
extern void session_prepare(void);

/*
 * Brings every projection to "tick".  own_transactions: each commits by itself (CALL at top
 * level, workers); called with a transaction open or without one, and leaves it so.  Else each is a
 * subtransaction.  wait: wait for projections that somebody else is folding, and
 * try those that failed a moment ago, instead of skipping them.
 */
extern void projection_fold_all(int64 tick, bool own_transactions, bool wait);

/*
 * Carries out backfills and rebuilds of every projection until there is nothing left to do, with
 * the same conventions.  A build that fails is a WARNING.
 */
extern void projection_build_all(bool own_transactions);

/*
 * The tick that a projection is folded up to, as the snapshot sees it; -1 when it sees none.  The
 * caller of projection_advance() has the lock of the projection's row, or has just inserted it.
 */
extern int64 projection_progress(const char *name, Snapshot snapshot);
extern void projection_advance(const char *name, int64 tick);

/* The same in two: what was read under the lock is where projection_progress_move() goes on from.
 */
typedef struct ProjectionProgress
{
	int64 tick_id; /* -1: there is no row */
	ItemPointerData tid;
} ProjectionProgress;

extern void
projection_progress_read(const char *name, Snapshot snapshot, ProjectionProgress *progress);
extern void projection_progress_move(const char *name, ProjectionProgress *progress, int64 tick);

/* Where a step that begins behind "progress" and goes to "tick" at most should end. */
extern int64 projection_choose_ticks(int64 progress, int64 tick);

/* A WARNING that a projection could not be folded (else: built), noted with the projection. */
extern void projection_failed(const char *name, bool folding, const ErrorData *edata);

#endif

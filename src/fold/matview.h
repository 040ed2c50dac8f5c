/*
 * matview.h
 *		Materialized views that are refreshed on a cadence.
 *
 * A refresh is three steps, each in a transaction (or subtransaction) of its own, so
 * that its start is known while it runs and its error is kept:
 * matview_refresh_begin(), matview_refresh_run(), and when that raised,
 * matview_refresh_failed().
 */
#ifndef BEHAVIOR_MATVIEW_H
#define BEHAVIOR_MATVIEW_H

#include "nodes/pg_list.h"

/* Is any refresh due?  Reads a few rows, takes no lock. */
extern bool matview_any_due(void);

/* Those that are due, the longest waiting first: a list of oids in the current context. */
extern List *matview_due(void);

/* Notes the start; false when it is not due any more, or somebody else is at it. */
extern bool matview_refresh_begin(Oid matview);

/* Refreshes, as the view's owner.  False when somebody else is at it. */
extern bool matview_refresh_run(Oid matview);

extern void matview_refresh_failed(Oid matview, const char *message);

#endif

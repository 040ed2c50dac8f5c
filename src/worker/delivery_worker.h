/*
 * delivery_worker.h
 *		Delivery workers, as the database's worker sees them.
 */
#ifndef BEHAVIOR_DELIVERY_WORKER_H
#define BEHAVIOR_DELIVERY_WORKER_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

/*
 * In a turn, with no transaction open: looks what is due, wakes delivery workers for it, and starts
 * one where more are wanted and allowed.  *next_due: when something is due next that is not now;
 * PG_INT64_MAX: only new events bring work.
 */
extern void delivery_workers_wake(TimestampTz *next_due);

/* How many of behavior.delivery_workers are kept for these subscriptions. */
extern int delivery_workers_reserved(const List *reserved);

#endif

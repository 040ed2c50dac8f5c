/*
 * subscription_reserve.h
 *		Subscriptions that have a delivery worker of their own.
 */
#ifndef BEHAVIOR_SUBSCRIPTION_RESERVE_H
#define BEHAVIOR_SUBSCRIPTION_RESERVE_H

#include "nodes/pg_list.h"

/*
 * For who makes or changes a subscription so that it has a reserved worker: raises 53400 when there
 * are as many others already as behavior.delivery_workers allows, which is one less, so that a
 * worker for all is left.  id: of this one, 0 when it has none yet.  Until the end of the
 * transaction nobody else can reserve one.
 */
extern void subscription_check_reserved(int64 id);

/* Those that are to have one now, by id, as a list of palloc'd int64 * in the current context. */
extern List *subscription_reserved(void);

#endif

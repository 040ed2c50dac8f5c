/*
 * router.h
 *		Routing: matches the events of new ticks against all subscriptions at once.
 *
 * Under the router's lock (0 on behavior._subscription).  Progress is behavior._route_progress,
 * the tick up to which events have been routed, replaced by each step.
 */
#ifndef BEHAVIOR_ROUTER_H
#define BEHAVIOR_ROUTER_H

#include "route/subscription.h"

/*
 * Routes everything up to "tick", in steps.  own_transactions and wait: as projection_fold_all()
 * (fold/projection.h).  A subscription that nobody has routed for joins here.  Writes nothing when
 * there are no subscriptions.  Returns false when a step failed, which a WARNING has said: whoever
 * calls again and again waits for a while.
 */
extern bool route_all(int64 tick, bool own_transactions, bool wait);

/*
 * One step of replaying a subscription that has a start_at: queues events of ticks up to
 * joined_tick that occurred from progress->replay_at on, some 10,000, or none when few match.
 * Call it when progress->replaying, the subscription has joined, and its queue runs short; under
 * the subscription's lock.  It moves *progress in memory: the caller writes it, found something or
 * not.  False: all are queued, *progress says so.
 */
extern bool replay_step(const Subscription *subscription, SubscriptionProgress *progress);

#endif

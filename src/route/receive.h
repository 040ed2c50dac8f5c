/*
 * receive.h
 *		What receive() and ack(), nack() share.
 */
#ifndef BEHAVIOR_RECEIVE_H
#define BEHAVIOR_RECEIVE_H

#include "datatype/timestamp.h"

#include "route/subscription.h"

/* In microseconds; raises 22023 with the argument's name. */
extern int64 receive_interval(const Interval *interval, const char *argument, bool positive);

/* Counts a failed attempt of an event that will be given out again. */
extern void receive_note_failure(SubscriptionProgress *progress, const char *error);

/* Is there an event that has failed and has not been settled since? */
extern bool receive_is_failing(const Subscription *subscription);

#endif

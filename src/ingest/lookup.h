/*
 * lookup.h
 *		What became of an event: behavior.last_batch() and behavior.find_event().
 */
#ifndef BEHAVIOR_LOOKUP_H
#define BEHAVIOR_LOOKUP_H

#include "access/xact.h"

/* A sending statement has ended; batch_id 0: it sent nothing. */
extern void last_batch_set(int64 batch_id);

/* Forget the batch when what wrote it is rolled back. */
extern void
last_batch_on_subxact(SubXactEvent event, SubTransactionId subid, SubTransactionId parent);
extern void last_batch_on_xact(XactEvent event);

#endif

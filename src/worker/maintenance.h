/*
 * maintenance.h
 *		What is done beside numbering and folding: builds, refreshes, keys, partitions.
 */
#ifndef BEHAVIOR_MAINTENANCE_H
#define BEHAVIOR_MAINTENANCE_H

/* Is a build or a refresh due?  In the caller's transaction; takes no lock. */
extern bool maintenance_pending(void);

/*
 * The parts of CALL behavior.tick() that are not numbering and folding.
 * own_transactions: called with a transaction open, commits after each step and leaves one open; else
 * each is a subtransaction.  What fails is a WARNING; the rest goes on.
 */
extern void maintenance_before_tick(bool own_transactions);
extern void maintenance_after_tick(bool own_transactions);

#endif

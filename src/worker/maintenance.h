/*
 * maintenance.h
 *		What is done beside numbering and folding: builds, refreshes, keys, partitions.
 */
#ifndef BEHAVIOR_MAINTENANCE_H
#define BEHAVIOR_MAINTENANCE_H

/* Is a build or a refresh due?  In the caller's transaction; takes no lock. */
extern bool maintenance_pending(void);

#endif

/*
 * lock.h
 *		Our own heavyweight locks: a number on one of the extension's relations.
 *
 * Not LockPage(): PostgreSQL 13 to 16 leave page locks out of deadlock detection (deadlock.c,
 * FindLockCycleRecurseMember), so a cycle through one would hang for ever, and builds with
 * assertions refuse any other lock while one is held.  An object lock on (pg_class, relation,
 * number) is seen by the detector, shows in pg_locks as classid, objid and objsubid, belongs to
 * the (sub)transaction and cannot be taken by users.  Core takes no such lock on relations.  Not
 * for use on a standby, where object locks this strong are refused.
 *
 * On behavior._key: 0..63 key buckets, 65 first use, 66 maintenance of generations.
 * On behavior.tick: 0 the tick lock.
 * On behavior._projection: 1 building sessions, 2 names of projections that are being made, 1024
 * and above builds.
 * On behavior._subscription: 0 the router, 1 to 32767 delivery of a subscription, by its id, 32769
 * who reserves a delivery worker.
 */
#ifndef BEHAVIOR_LOCK_H
#define BEHAVIOR_LOCK_H

#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "storage/lock.h"

#define PROJECTION_NAMES_LOCK 2

static inline void
behavior_lock(Oid relid, uint16 number, LOCKMODE mode)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, relid, number);
	(void) LockAcquire(&tag, mode, false, false);
}

/* False when the lock cannot be had at once. */
static inline bool
behavior_lock_conditional(Oid relid, uint16 number, LOCKMODE mode)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, relid, number);
	return LockAcquire(&tag, mode, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

static inline void
behavior_unlock(Oid relid, uint16 number, LOCKMODE mode)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, relid, number);
	(void) LockRelease(&tag, mode, false);
}

#endif

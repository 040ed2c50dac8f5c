/*
 * shared_delivery.c
 *		Who delivers for which subscription: delivery workers' part of shared memory.
 *
 * The protocol stands in shared.h.  Subscriptions are taken up in the order of their ids, round and
 * round, by all workers of a database together: whatever one of them has to deliver, each other one
 * gets its turn before it has a second.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "worker/shared.h"

static bool
is_delivery(const WorkerEntry *entry, Oid dboid)
{
	return entry->kind == WORKER_DELIVERY && entry->dboid == dboid && worker_is_live(entry);
}

/* Where the turn of this database's subscriptions is noted; NULL while it has no worker.  Caller
 * has the lock. */
static WorkerEntry *
turn_entry(void)
{
	for (int i = 0; i < worker_shared->nentries; i++)
	{
		WorkerEntry *entry = &worker_shared->entries[i];

		if (entry->kind == WORKER_DATABASE && entry->dboid == MyDatabaseId && worker_is_live(entry))
			return entry;
	}
	return NULL;
}

/* Does a delivery worker have this subscription, or is it kept for one?  Caller has the lock. */
static bool
is_taken(Oid dboid, int64 id)
{
	for (int i = 0; i < worker_shared->nentries; i++)
	{
		const WorkerEntry *entry = &worker_shared->entries[i];

		if (is_delivery(entry, dboid) && (entry->serves == id || entry->reserved == id))
			return true;
	}
	return false;
}

static bool
is_listed(const int64 *ids, int n, int64 id)
{
	for (int i = 0; i < n; i++)
	{
		if (ids[i] == id)
			return true;
	}
	return false;
}

int64
worker_claim_subscription(const int64 *ids, int n)
{
	WorkerEntry *mine = worker_entry();
	WorkerEntry *turn;
	int first = 0;
	int64 claimed = 0;

	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	turn = turn_entry();
	mine->idle = false;
	if (mine->reserved != 0)
	{
		if (is_listed(ids, n, mine->reserved))
			claimed = mine->reserved;
	}
	else
	{
		while (turn != NULL && first < n && ids[first] <= turn->last_served)
			first++;
		for (int i = 0; i < n && claimed == 0; i++)
		{
			int64 id = ids[(first + i) % n];

			if (!is_taken(MyDatabaseId, id))
				claimed = id;
		}
		if (claimed != 0 && turn != NULL)
			turn->last_served = claimed;
	}
	mine->serves = claimed;
	LWLockRelease(worker_shared->lock);
	return claimed;
}

void
worker_release_subscription(void)
{
	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	worker_entry()->serves = 0;
	LWLockRelease(worker_shared->lock);
}

void
worker_set_idle(void)
{
	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	worker_entry()->idle = true;
	LWLockRelease(worker_shared->lock);
}

int64
worker_reserved(void)
{
	return worker_entry()->reserved; /* never changes while we have the entry */
}

/*
 * One that is not idle gets its latch set as well: it may have looked before the events came.
 */
int
worker_wake_delivery(Oid dboid, const int64 *due, int n)
{
	int wanted = 0;

	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
	{
		if (!is_taken(dboid, due[i]))
			wanted++;
	}
	for (int i = 0; i < worker_shared->nentries; i++)
	{
		WorkerEntry *entry = &worker_shared->entries[i];

		if (!is_delivery(entry, dboid))
			continue;
		if (entry->reserved != 0)
		{
			if (entry->idle && !is_listed(due, n, entry->reserved))
				continue;
		}
		else if (entry->idle || entry->state != WORKER_SERVING)
		{
			if (wanted == 0)
				continue;
			wanted--;
		}
		if (entry->latch != NULL)
			SetLatch(entry->latch);
		entry->idle = false;
	}
	LWLockRelease(worker_shared->lock);
	return wanted;
}

/* How many there are for this subscription, or, with 0, for all. */
int
worker_count_delivery(Oid dboid, int64 reserved)
{
	int count = 0;

	LWLockAcquire(worker_shared->lock, LW_SHARED);
	for (int i = 0; i < worker_shared->nentries; i++)
	{
		const WorkerEntry *entry = &worker_shared->entries[i];

		if (is_delivery(entry, dboid) && entry->reserved == reserved)
			count++;
	}
	LWLockRelease(worker_shared->lock);
	return count;
}

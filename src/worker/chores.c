/*
 * chores.c
 *		What the storage needs done now and then: partitions, keys, batches.
 *
 * A lock of ours on each chore keeps two processes from doing the same: its number
 * on behavior._refresh is the chore's.
 */
#include "postgres.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/lock.h"
#include "ingest/event_key.h"
#include "log/batch.h"
#include "log/partition.h"
#include "worker/chores.h"

#define DAYS_AHEAD	   3	 /* partitions are there this long before their first event is due */
#define EXPIRE_BATCHES 10000 /* rows a step */

static const char *const activities[CHORE_COUNT] = {
	[CHORE_PARTITIONS] = "making partitions",
	[CHORE_DEFAULT_PARTITION] = "emptying the default partition",
	[CHORE_BATCHES] = "expiring batches",
	[CHORE_KEYS] = "packing keys",
};

const char *
chore_activity(ChoreKind chore)
{
	return activities[chore];
}

ChoreResult
chore_step(ChoreKind chore)
{
	int count;

	if (!behavior_lock_conditional(behavior_relid(REL_REFRESH), chore, ExclusiveLock))
		return CHORE_BUSY;

	switch (chore)
	{
		case CHORE_PARTITIONS:
			/* None yet: nothing was ever sent, or a restore is about to bring them. */
			(void) log_partitions(&count);
			if (count > 0)
				log_make_partitions_ahead(DAYS_AHEAD);
			return CHORE_DONE;
		case CHORE_DEFAULT_PARTITION:
			return log_empty_default() ? CHORE_DONE : CHORE_BUSY;
		case CHORE_BATCHES:
			return batch_expire(EXPIRE_BATCHES) >= EXPIRE_BATCHES ? CHORE_MORE : CHORE_DONE;
		case CHORE_KEYS:
			return event_key_maintain() ? CHORE_MORE : CHORE_DONE;
		case CHORE_COUNT:
			break;
	}
	return CHORE_DONE;
}

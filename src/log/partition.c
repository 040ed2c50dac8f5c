/*
 * partition.c
 *		Which partition of behavior.log takes a time: a cached lookup for senders.
 *
 * The bounds stand in an array per backend, built from the parent's partition
 * descriptor and rebuilt after a relcache invalidation of the parent.  Every
 * change of the partitions sends one.
 *
 * The lookup also takes the writer's lock on the partition, once per transaction,
 * and looks again when that brought an invalidation.  That matters for
 * the DEFAULT partition: ATTACH PARTITION locks it exclusively, so whoever holds
 * the lock and has looked since may write what the lookup sent there; without it
 * rows could end up in DEFAULT that a new partition should have.
 *
 * A sender asks for a missing partition only where waiting can do good: not when
 * its own transaction holds locks that the worker needs, and not again for
 * ten seconds after it was to no avail: for the same day, or for any when it was so twice.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/invalidation.h"
#include "log/log_row.h"
#include "log/partition.h"
#include "log/partition_make.h"

#define ASK_AGAIN_AFTER (10 * USECS_PER_SEC)
#define ASK_TWICE		2

typedef struct CachedPartition
{
	LogPartition part;
	uint64 locked_in; /* the lock epoch in which this backend locked it for writing */
} CachedPartition;

/* Valid until the parent changes; "complete" until one of the partitions does. */
static struct
{
	bool valid;
	bool complete; /* every partition is known to have its BRIN index */
	bool has_default;
	int nranges;
	int last_hit;
	Oid parent;
	CachedPartition *ranges; /* ascending */
	CachedPartition default_partition;
	int nrelids;
	Oid *relids; /* of all of them, ascending */
	MemoryContext context;
} cache;

/* Locks are held until the transaction or the subtransaction that took them ends: then another
 * epoch begins. */
static uint64 lock_epoch = 1;

/* Of requests to no avail since the last one that helped. */
static struct
{
	int count;
	int32 day;		   /* of the last */
	TimestampTz until; /* they count until then */
} failed;

static bool callbacks_registered = false;

static int
compare_oids(const void *a, const void *b)
{
	Oid left = *(const Oid *) a;
	Oid right = *(const Oid *) b;

	return left < right ? -1 : left > right;
}

static void
on_relcache_inval(Datum arg, Oid relid)
{
	if (!OidIsValid(relid) || relid == cache.parent)
	{
		cache.valid = false;
		cache.complete = false;
	}
	else if (cache.complete && cache.nrelids > 0 &&
			 bsearch(&relid, cache.relids, cache.nrelids, sizeof(Oid), compare_oids) != NULL)
		cache.complete = false;
}

static void
on_xact(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		lock_epoch++;
}

static void
on_subxact(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		lock_epoch++;
}

/* Copies one partition of the descriptor. */
static void
fill_partition(CachedPartition *entry, Oid relid, TimestampTz lower, TimestampTz upper)
{
	memset(entry, 0, sizeof(*entry));
	entry->part.relid = relid;
	entry->part.lower = lower;
	entry->part.upper = upper;
}

/* Reads the bounds of every partition from the parent's descriptor. */
static void
build_cache(Relation parent)
{
	PartitionDesc desc;
	PartitionBoundInfo bounds;

	MemoryContextReset(cache.context);
	cache.nranges = 0;
	cache.last_hit = 0;
	cache.nrelids = 0;
	cache.has_default = false;
	cache.complete = false;
	desc = RelationGetPartitionDesc(parent, true);
	bounds = desc->boundinfo;
	if (desc->nparts == 0 || bounds == NULL)
		return;

	cache.ranges = (CachedPartition *) MemoryContextAlloc(cache.context,
														  desc->nparts * sizeof(CachedPartition));
	for (int i = 1; i < bounds->ndatums; i++)
	{
		int index = bounds->indexes[i]; /* of the partition below this bound */
		TimestampTz lower = DT_NOBEGIN;
		TimestampTz upper = DT_NOEND;

		if (index < 0)
			continue;
		if (bounds->kind[i - 1][0] == PARTITION_RANGE_DATUM_VALUE)
			lower = DatumGetTimestampTz(bounds->datums[i - 1][0]);
		if (bounds->kind[i][0] == PARTITION_RANGE_DATUM_VALUE)
			upper = DatumGetTimestampTz(bounds->datums[i][0]);
		fill_partition(&cache.ranges[cache.nranges++], desc->oids[index], lower, upper);
	}
	if (bounds->default_index >= 0)
	{
		fill_partition(&cache.default_partition, desc->oids[bounds->default_index], DT_NOBEGIN,
					   DT_NOEND);
		cache.default_partition.part.is_default = true;
		cache.has_default = true;
	}

	cache.relids = (Oid *) MemoryContextAlloc(cache.context, desc->nparts * sizeof(Oid));
	memcpy(cache.relids, desc->oids, desc->nparts * sizeof(Oid));
	cache.nrelids = desc->nparts;
	qsort(cache.relids, cache.nrelids, sizeof(Oid), compare_oids);
}

static void
ensure_cache(void)
{
	while (!cache.valid)
	{
		Relation parent;

		if (!callbacks_registered)
		{
			invalidation_call(on_relcache_inval);
			RegisterXactCallback(on_xact, NULL);
			RegisterSubXactCallback(on_subxact, NULL);
			cache.context = AllocSetContextCreate(TopMemoryContext, "partitions of behavior.log",
												  ALLOCSET_SMALL_SIZES);
			callbacks_registered = true;
		}
		cache.parent = behavior_relid(REL_LOG);
		parent = table_open(cache.parent, AccessShareLock);
		/* An invalidation that comes while it is built makes it invalid again. */
		cache.valid = true;
		build_cache(parent);
		table_close(parent, AccessShareLock);
	}
}

/* The range that holds "at", or NULL. */
static CachedPartition *
find_range(TimestampTz at)
{
	int low = 0;
	int high = cache.nranges;

	if (cache.last_hit < cache.nranges && at >= cache.ranges[cache.last_hit].part.lower &&
		at < cache.ranges[cache.last_hit].part.upper)
		return &cache.ranges[cache.last_hit];

	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (cache.ranges[middle].part.upper <= at)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == cache.nranges || cache.ranges[low].part.lower > at)
		return NULL;
	cache.last_hit = low;
	return &cache.ranges[low];
}

/* Does this transaction hold a lock on the relation that is at least as strong? */
static bool
holds_lock(Oid relid, LOCKMODE weakest)
{
	LOCKTAG tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	for (LOCKMODE mode = weakest; mode <= AccessExclusiveLock; mode++)
	{
		if (compat_lock_held_by_me(&tag, mode))
			return true;
	}
	return false;
}

/* Was it to no avail a short while ago? */
static bool
failed_lately(TimestampTz at)
{
	if (failed.count == 0)
		return false;
	if (GetCurrentTimestamp() >= failed.until)
	{
		failed.count = 0;
		return false;
	}
	return failed.count >= ASK_TWICE || failed.day == partition_day_of(at);
}

static void
note_outcome(TimestampTz at, bool helped)
{
	if (helped)
	{
		failed.count = 0;
		return;
	}
	failed.count++;
	failed.day = partition_day_of(at);
	failed.until = GetCurrentTimestamp() + ASK_AGAIN_AFTER;
}

/* Would a worker get anywhere? */
static bool
worth_asking(TimestampTz at)
{
	if (holds_lock(cache.parent, ShareUpdateExclusiveLock))
		return false;
	if (!cache.has_default)
		return true;
	/* The worker needs DEFAULT to itself. */
	return !failed_lately(at) && !holds_lock(cache.default_partition.part.relid, AccessShareLock) &&
		   partition_wanted(at);
}

/*
 * First use, and no worker to be had: makes the DEFAULT partition in the
 * sender's own transaction.  The lock makes another first sender wait for this one.
 */
static void
make_first_inline(TimestampTz at)
{
	LockRelationOid(cache.parent, ShareUpdateExclusiveLock);
	ensure_cache();
	if (!cache.has_default)
		partition_make(at, LOG_DAYS_FIRST);
}

void
log_partition_for(TimestampTz occurred_at, LogPartition *result)
{
	bool asked = false;

	for (;;)
	{
		CachedPartition *entry;

		ensure_cache();
		entry = find_range(occurred_at);
		if (entry == NULL && cache.has_default && cache.default_partition.locked_in == lock_epoch)
			entry = &cache.default_partition;
		if (entry == NULL && !asked)
		{
			asked = true;
			if (worth_asking(occurred_at))
			{
				/* Whatever comes of it shows in what the next lookup finds. */
				(void) partition_request(occurred_at, cache.has_default ? -1 : LOG_DAYS_FIRST);
				AcceptInvalidationMessages();
				ensure_cache();
				note_outcome(occurred_at,
							 find_range(occurred_at) != NULL || !partition_wanted(occurred_at));
				continue;
			}
		}
		if (entry == NULL)
		{
			if (!cache.has_default)
			{
				make_first_inline(occurred_at);
				continue;
			}
			entry = &cache.default_partition;
		}

		if (entry->locked_in != lock_epoch)
		{
			LockRelationOid(entry->part.relid, RowExclusiveLock);
			if (!cache.valid)
				continue;
			entry->locked_in = lock_epoch;
		}
		*result = entry->part;
		return;
	}
}

LogPartition *
log_partitions(int *count)
{
	LogPartition *parts;
	int n = 0;

	ensure_cache();
	parts = (LogPartition *) palloc((cache.nranges + 1) * sizeof(LogPartition));
	for (; n < cache.nranges; n++)
		parts[n] = cache.ranges[n].part;
	if (cache.has_default)
		parts[n++] = cache.default_partition.part;
	*count = n;
	return parts;
}

/* Has the relation a valid BRIN index whose first column is batch_id? Takes no lock on it. */
static bool
has_batch_brin(Relation pg_index, Oid relid)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;
	bool found = false;

	ScanKeyInit(&key, Anum_pg_index_indrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(pg_index, IndexIndrelidIndexId, true, NULL, 1, &key);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_index index = (Form_pg_index) GETSTRUCT(tuple);
		HeapTuple class_tuple;

		if (!index->indisvalid || index->indkey.values[0] != LOG_BATCH_ID)
			continue;
		class_tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(index->indexrelid));
		if (HeapTupleIsValid(class_tuple))
		{
			found = ((Form_pg_class) GETSTRUCT(class_tuple))->relam == BRIN_AM_OID;
			ReleaseSysCache(class_tuple);
		}
	}
	systable_endscan(scan);
	return found;
}

bool
log_restore_in_progress(void)
{
	Relation pg_index;
	bool complete = true;
	Oid *relids;
	int nrelids;

	ensure_cache();
	if (cache.complete)
		return false;

	nrelids = cache.nrelids;
	relids = (Oid *) palloc(Max(nrelids, 1) * sizeof(Oid));
	if (nrelids > 0)
		memcpy(relids, cache.relids, nrelids * sizeof(Oid));

	/* Set before looking: an invalidation on the way takes it back. */
	cache.complete = true;
	pg_index = table_open(IndexRelationId, AccessShareLock);
	for (int i = 0; i < nrelids && complete; i++)
		complete = has_batch_brin(pg_index, relids[i]);
	table_close(pg_index, AccessShareLock);
	pfree(relids);
	if (!complete)
		cache.complete = false;
	return !complete;
}

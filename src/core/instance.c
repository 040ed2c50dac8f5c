/*
 * instance.c
 *		What exists once per database: the seed of every hash.
 *
 * The row is read with SnapshotSelf: the latest committed state and what the own transaction
 * did, in every isolation level, and without predicate locks that could make a SERIALIZABLE
 * sender fail because of somebody else's first event.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_inherits.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/instance.h"
#include "core/invalidation.h"
#include "core/lock.h"

#define SEED_BYTES	   16
#define FIRST_USE_LOCK 65 /* on behavior._key; see core/lock.h */

/* Columns of behavior._instance. */
#define ATT_SINGLETON	 1
#define ATT_HASH_SEED	 2
#define ATT_CREATED_AT	 3
#define INSTANCE_COLUMNS 3

static uint8 seed[SEED_BYTES];
static Oid seed_relid = InvalidOid; /* relation that seed came from; invalid: not cached */
static bool seed_is_ours = false;	/* made by the transaction that is still open */
static bool callbacks_registered = false;

static void
forget_seed(void)
{
	seed_relid = InvalidOid;
	seed_is_ours = false;
}

static void
on_xact(XactEvent event, void *arg)
{
	if (!seed_is_ours)
		return;
	if (event == XACT_EVENT_COMMIT)
		seed_is_ours = false;
	else if (event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		forget_seed();
}

static void
on_subxact(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (seed_is_ours && event == SUBXACT_EVENT_ABORT_SUB)
		forget_seed();
}

static void
on_relcache_inval(Datum arg, Oid relid)
{
	if (!OidIsValid(relid) || relid == seed_relid)
		forget_seed();
}

/* Reads the row into the cache; false when there is none. */
static bool
read_seed(Oid relid)
{
	Relation rel = table_open(relid, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, SnapshotSelf, 0, NULL);
	bool found = table_scan_getnextslot(scan, ForwardScanDirection, slot);

	if (found)
	{
		bool isnull;
		Datum value = slot_getattr(slot, ATT_HASH_SEED, &isnull);
		bytea *bytes = DatumGetByteaPP(value);
		Datum xmin = slot_getsysattr(slot, MinTransactionIdAttributeNumber, &isnull);

		if (VARSIZE_ANY_EXHDR(bytes) != SEED_BYTES)
			ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
							errmsg("the seed in behavior._instance has %d bytes instead of %d",
								   (int) VARSIZE_ANY_EXHDR(bytes), SEED_BYTES)));
		memcpy(seed, VARDATA_ANY(bytes), SEED_BYTES);
		seed_relid = relid;
		seed_is_ours = TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin));
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	return found;
}

bool
instance_awaits_restore(void)
{
	static const BehaviorRel parents[] = {REL_KEY, REL_KEY_RUN, REL_KEY_PAGE, REL_KEY_FILTER};
	bool awaits = false;

	for (int i = 0; i < lengthof(parents); i++)
	{
		List *children = find_inheritance_children(behavior_relid(parents[i]), AccessShareLock);
		ListCell *lc;

		foreach (lc, children)
		{
			Relation rel = table_open(lfirst_oid(lc), NoLock);

			if (RelationGetNumberOfBlocks(rel) > 0 ||
				((parents[i] == REL_KEY || parents[i] == REL_KEY_RUN) &&
				 RelationGetIndexList(rel) == NIL))
				awaits = true;
			table_close(rel, AccessShareLock);
		}
	}
	return awaits;
}

/* Makes the row, in the current transaction. */
static void
make_seed(Oid relid)
{
	Relation rel;
	Datum values[INSTANCE_COLUMNS];
	bool nulls[INSTANCE_COLUMNS] = {false};
	bytea *bytes = palloc(VARHDRSZ + SEED_BYTES);

	/* A restore makes the partitions first and brings the row later: another seed would lose every
	 * key. */
	if (instance_awaits_restore())
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg(
				 "behavior cannot take events yet: its keys are there but behavior._instance is empty"),
			 errhint("Wait until the restore of this database has ended.")));

	SET_VARSIZE(bytes, VARHDRSZ + SEED_BYTES);
	if (!pg_strong_random(VARDATA(bytes), SEED_BYTES))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate a random seed")));
	values[ATT_SINGLETON - 1] = BoolGetDatum(true);
	values[ATT_HASH_SEED - 1] = PointerGetDatum(bytes);
	values[ATT_CREATED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());

	rel = table_open(relid, RowExclusiveLock);
	CatalogTupleInsert(rel, heap_form_tuple(RelationGetDescr(rel), values, nulls));
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

const uint8 *
instance_seed(void)
{
	static const uint8 no_seed[SEED_BYTES] = {0};
	Oid relid = behavior_relid(REL_INSTANCE);

	if (seed_relid == relid)
		return seed;

	if (!callbacks_registered)
	{
		RegisterXactCallback(on_xact, NULL);
		RegisterSubXactCallback(on_subxact, NULL);
		invalidation_call(on_relcache_inval);
		callbacks_registered = true;
	}

	if (read_seed(relid))
		return seed;

	/* Who may not write can only be looking for a key, and there is none: any seed will do. */
	if (XactReadOnly || RecoveryInProgress())
		return no_seed;

	/*
	 * The lock is kept until the transaction ends: other first senders wait
	 * for that and find the row then, or make it when it was rolled back.
	 */
	behavior_lock(behavior_relid(REL_KEY), FIRST_USE_LOCK, ExclusiveLock);
	if (read_seed(relid))
	{
		behavior_unlock(behavior_relid(REL_KEY), FIRST_USE_LOCK, ExclusiveLock);
		return seed;
	}
	make_seed(relid);
	if (!read_seed(relid))
		elog(ERROR, "the row just made in behavior._instance is not there");
	return seed;
}

/*
 * subscription_catalog.c
 *		Rows of behavior._subscription, and the locks of subscriptions.
 *
 * Read by index under a given snapshot, each time anew: whoever acts on a row has the
 * subscription's lock and wants to see what was changed until now.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/lock.h"
#include "core/table_row.h"
#include "route/subscription.h"

/* Columns of behavior._subscription. */
enum
{
	SUBSCRIPTION_ID = 1,
	SUBSCRIPTION_NAME,
	SUBSCRIPTION_OWNER,
	SUBSCRIPTION_PATTERN,
	SUBSCRIPTION_HANDLER,
	SUBSCRIPTION_TAKES_DELIVERY,
	SUBSCRIPTION_BATCH_SIZE,
	SUBSCRIPTION_BATCH_WINDOW,
	SUBSCRIPTION_ORDERED,
	SUBSCRIPTION_REORDER_WINDOW,
	SUBSCRIPTION_MAX_ATTEMPTS,
	SUBSCRIPTION_MAX_AGE,
	SUBSCRIPTION_START_AT,
	SUBSCRIPTION_RESERVED_WORKER,
	SUBSCRIPTION_PAUSED,
	SUBSCRIPTION_CREATED_TICK,
	SUBSCRIPTION_SKIP_BATCHES,
	SUBSCRIPTION_CREATED_AT,
	SUBSCRIPTION_NATTS = SUBSCRIPTION_CREATED_AT
};

enum
{
	JOIN_SUBSCRIPTION_ID = 1,
	JOIN_TICK,
	JOIN_FAILING_SINCE,
	JOIN_ERROR
};

/* 0 is the router's; object locks have 16 bits for the number, shown signed. */
#define LOCK_NUMBERS 32767

/* Microseconds; what stands in the table was checked when it was written. */
static int64
microseconds(Datum value)
{
	const Interval *interval = DatumGetIntervalP(value);

	return interval->time +
		   (interval->day + (int64) interval->month * DAYS_PER_MONTH) * USECS_PER_DAY;
}

static BatchSet *
batch_set_from_array(ArrayType *array)
{
	int nitems = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	const int64 *items = (const int64 *) ARR_DATA_PTR(array);
	BatchSet *set = batch_set_make();

	if (ARR_HASNULL(array) || ARR_ELEMTYPE(array) != INT8OID || nitems % 2 != 0)
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("behavior._subscription.skip_batches is not a list of runs")));
	for (int i = 0; i < nitems; i += 2)
		batch_set_add(set, items[i], items[i + 1]);
	batch_set_normalize(set);
	return set;
}

/* What the router knows of it: joined_tick, -1 when it has not seen it, and route_error. */
static void
read_join(Subscription *subscription, Snapshot snapshot)
{
	Relation rel = table_open(behavior_relid(REL_SUBSCRIPTION_JOIN), AccessShareLock);
	Relation index = index_open(behavior_relid(REL_SUBSCRIPTION_JOIN_PKEY), AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	subscription->joined_tick = -1;
	ScanKeyInit(&key, JOIN_SUBSCRIPTION_ID, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(subscription->id));
	scan = systable_beginscan_ordered(rel, index, snapshot, 1, &key);
	tuple = systable_getnext_ordered(scan, ForwardScanDirection);
	if (HeapTupleIsValid(tuple))
	{
		bool isnull;
		Datum error = heap_getattr(tuple, JOIN_ERROR, RelationGetDescr(rel), &isnull);

		if (!isnull)
			subscription->route_error = TextDatumGetCString(error);
		subscription->joined_tick =
			DatumGetInt64(heap_getattr(tuple, JOIN_TICK, RelationGetDescr(rel), &isnull));
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
}

static Subscription *
subscription_from_tuple(HeapTuple tuple, TupleDesc desc, Snapshot snapshot)
{
	Subscription *subscription = palloc0(sizeof(Subscription));
	Datum values[SUBSCRIPTION_NATTS];
	bool nulls[SUBSCRIPTION_NATTS];

#define VALUE(column)	values[(column) -1]
#define IS_NULL(column) nulls[(column) -1]
	heap_deform_tuple(tuple, desc, values, nulls);
	subscription->id = DatumGetInt64(VALUE(SUBSCRIPTION_ID));
	subscription->name = TextDatumGetCString(VALUE(SUBSCRIPTION_NAME));
	subscription->owner_name = TextDatumGetCString(VALUE(SUBSCRIPTION_OWNER));
	subscription->owner = get_role_oid(subscription->owner_name, true);
	subscription->pattern = DatumGetJsonbPCopy(VALUE(SUBSCRIPTION_PATTERN));
	if (!IS_NULL(SUBSCRIPTION_HANDLER))
		subscription->handler = TextDatumGetCString(VALUE(SUBSCRIPTION_HANDLER));
	subscription->takes_delivery = DatumGetBool(VALUE(SUBSCRIPTION_TAKES_DELIVERY));
	subscription->batch_size = DatumGetInt32(VALUE(SUBSCRIPTION_BATCH_SIZE));
	subscription->batch_window = microseconds(VALUE(SUBSCRIPTION_BATCH_WINDOW));
	subscription->ordered = DatumGetBool(VALUE(SUBSCRIPTION_ORDERED));
	subscription->reorder_window = microseconds(VALUE(SUBSCRIPTION_REORDER_WINDOW));
	subscription->max_attempts = DatumGetInt32(VALUE(SUBSCRIPTION_MAX_ATTEMPTS));
	subscription->max_age = microseconds(VALUE(SUBSCRIPTION_MAX_AGE));
	if (!IS_NULL(SUBSCRIPTION_START_AT))
	{
		subscription->has_start_at = true;
		subscription->start_at = DatumGetTimestampTz(VALUE(SUBSCRIPTION_START_AT));
	}
	subscription->reserved_worker = DatumGetBool(VALUE(SUBSCRIPTION_RESERVED_WORKER));
	subscription->paused = DatumGetBool(VALUE(SUBSCRIPTION_PAUSED));
	subscription->created_tick = DatumGetInt64(VALUE(SUBSCRIPTION_CREATED_TICK));
	if (!IS_NULL(SUBSCRIPTION_SKIP_BATCHES))
		subscription->skip_batches =
			batch_set_from_array(DatumGetArrayTypeP(VALUE(SUBSCRIPTION_SKIP_BATCHES)));
#undef VALUE
#undef IS_NULL
	read_join(subscription, snapshot);
	return subscription;
}

/* By one of the indexes; all without a key. */
static List *
scan_subscriptions(BehaviorRel index_rel, ScanKey key, Snapshot snapshot)
{
	Relation rel = table_open(behavior_relid(REL_SUBSCRIPTION), AccessShareLock);
	Relation index = index_open(behavior_relid(index_rel), AccessShareLock);
	SysScanDesc scan = systable_beginscan_ordered(rel, index, snapshot, key != NULL ? 1 : 0, key);
	List *subscriptions = NIL;
	HeapTuple tuple;

	while (HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
		subscriptions =
			lappend(subscriptions, subscription_from_tuple(tuple, RelationGetDescr(rel), snapshot));
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return subscriptions;
}

Subscription *
subscription_find(const char *name, Snapshot snapshot)
{
	ScanKeyData key;
	List *found;

	ScanKeyInit(&key, SUBSCRIPTION_NAME, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(name));
	key.sk_collation = DEFAULT_COLLATION_OID;
	found = scan_subscriptions(REL_SUBSCRIPTION_NAME, &key, snapshot);
	return found != NIL ? linitial(found) : NULL;
}

Subscription *
subscription_get(int64 id, Snapshot snapshot)
{
	ScanKeyData key;
	List *found;

	ScanKeyInit(&key, SUBSCRIPTION_ID, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(id));
	found = scan_subscriptions(REL_SUBSCRIPTION_PKEY, &key, snapshot);
	return found != NIL ? linitial(found) : NULL;
}

List *
subscription_list(Snapshot snapshot)
{
	return scan_subscriptions(REL_SUBSCRIPTION_PKEY, NULL, snapshot);
}

Subscription *
subscription_of_caller(const char *name, Snapshot snapshot)
{
	Subscription *subscription = subscription_find(name, snapshot);
	bool owned;

	if (subscription == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("subscription \"%s\" does not exist", name),
						errhint("Create it with behavior.create_subscription().")));
	owned = OidIsValid(subscription->owner);
	if (!(owned && has_privs_of_role(GetUserId(), subscription->owner)) &&
		!has_privs_of_role(GetUserId(), behavior_owner()))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("must be owner of subscription \"%s\"", name),
						owned ? 0
							  : errdetail("Its owner, role \"%s\", does not exist.",
										  subscription->owner_name),
						owned ? 0 : errhint(MISSING_OWNER_HINT)));
	return subscription;
}

bool
subscription_any(void)
{
	return table_has_rows(behavior_relid(REL_SUBSCRIPTION));
}

static uint16
lock_number(int64 id)
{
	return 1 + (uint16) (id % LOCK_NUMBERS);
}

bool
subscription_lock(int64 id, bool wait)
{
	Oid relid = behavior_relid(REL_SUBSCRIPTION);

	if (!wait)
		return behavior_lock_conditional(relid, lock_number(id), ExclusiveLock);
	behavior_lock(relid, lock_number(id), ExclusiveLock);
	return true;
}

void
subscription_unlock(int64 id)
{
	behavior_unlock(behavior_relid(REL_SUBSCRIPTION), lock_number(id), ExclusiveLock);
}

bool
subscription_may_read(Oid role)
{
	return pg_class_aclcheck(behavior_relid(REL_EVENT), role, ACL_SELECT) == ACLCHECK_OK;
}

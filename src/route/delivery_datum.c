/*
 * delivery_datum.c
 *		Events as SQL sees them: rows of type behavior.event and behavior.delivery.
 *
 * The columns of behavior.event are found in behavior.log by their names, except those that are
 * computed.  What was found is kept until either relation changes.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/invalidation.h"
#include "fold/tick.h"
#include "log/log_row.h"
#include "route/delivery_internal.h"

#define DELIVERY_NATTS 6

/* Where a column of behavior.event comes from: a column of behavior.log, or one of these. */
enum
{
	FROM_NOWHERE = 0, /* NULL */
	FROM_ACTOR = -1,
	FROM_TICK_ID = -2
};

static MemoryContext shape_context = NULL;
static Oid shape_log = InvalidOid; /* what it is made of; InvalidOid: not made */
static Oid shape_event = InvalidOid;
static uint64 changes = 0;		/* of any relation */
static TupleDesc log_desc;		/* of behavior.log */
static TupleDesc event_desc;	/* of behavior.event, blessed */
static TupleDesc delivery_desc; /* of behavior.delivery, blessed */
static int *from;				/* for each column of behavior.event */

static void
on_relcache_inval(Datum arg, Oid relid)
{
	changes++;
	if (!OidIsValid(relid) || relid == shape_log || relid == shape_event)
		shape_log = shape_event = InvalidOid;
}

static AttrNumber
log_column(const char *name)
{
	for (int i = 0; i < log_desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(log_desc, i);

		if (!column->attisdropped && strcmp(NameStr(column->attname), name) == 0)
			return column->attnum;
	}
	return FROM_NOWHERE;
}

/* A copy of a row type's description that is kept. */
static TupleDesc
keep_row_type(Oid type)
{
	TupleDesc desc = lookup_rowtype_tupdesc(type, -1);
	TupleDesc copy = CreateTupleDescCopy(desc);

	ReleaseTupleDesc(desc);
	return BlessTupleDesc(copy);
}

static Oid
delivery_type(void)
{
	return GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum("delivery"),
						   ObjectIdGetDatum(behavior_schema_oid()));
}

static void
find_shape(void)
{
	static bool registered = false;
	Oid log_relid = behavior_relid(REL_LOG);
	Oid event_relid = behavior_relid(REL_EVENT);
	MemoryContext old_context;
	Relation log;
	uint64 before;

	if (OidIsValid(shape_log) && shape_log == log_relid && shape_event == event_relid)
		return;
	if (!registered)
	{
		invalidation_call(on_relcache_inval);
		registered = true;
	}
	if (shape_context == NULL)
		shape_context =
			AllocSetContextCreate(TopMemoryContext, "behavior delivery", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(shape_context);
	old_context = MemoryContextSwitchTo(shape_context);

	shape_log = shape_event = InvalidOid;
	before = changes;
	log = table_open(log_relid, AccessShareLock);
	log_desc = CreateTupleDescCopy(RelationGetDescr(log));
	table_close(log, AccessShareLock);
	event_desc = keep_row_type(get_rel_type_id(event_relid));
	delivery_desc = keep_row_type(delivery_type());
	if (delivery_desc->natts != DELIVERY_NATTS)
		elog(ERROR, "type behavior.delivery has %d attributes", delivery_desc->natts);
	from = palloc(sizeof(int) * event_desc->natts);
	for (int i = 0; i < event_desc->natts; i++)
	{
		const char *name = NameStr(TupleDescAttr(event_desc, i)->attname);

		if (strcmp(name, "actor") == 0)
			from[i] = FROM_ACTOR;
		else if (strcmp(name, "tick_id") == 0)
			from[i] = FROM_TICK_ID;
		else
			from[i] = log_column(name);
	}
	MemoryContextSwitchTo(old_context);
	/* What has changed meanwhile is looked up again the next time. */
	if (changes == before)
	{
		shape_log = log_relid;
		shape_event = event_relid;
	}
}

/* behavior._tick_id(), which remembers the last runs of batches in its call site. */
static Datum
tick_id_of(Datum batch_id, bool *isnull)
{
	static FmgrInfo *flinfo = NULL;
	LOCAL_FCINFO(fcinfo, 1);
	Datum result;

	if (flinfo == NULL)
	{
		flinfo = MemoryContextAllocZero(TopMemoryContext, sizeof(FmgrInfo));
		flinfo->fn_addr = behavior_tick_id;
		flinfo->fn_nargs = 1;
		flinfo->fn_strict = true;
		flinfo->fn_mcxt = TopMemoryContext;
	}
	InitFunctionCallInfoData(*fcinfo, flinfo, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = batch_id;
	fcinfo->args[0].isnull = false;
	result = behavior_tick_id(fcinfo);
	if (fcinfo->isnull)
	{
		/* The statement began before the tick was cut. */
		PushActiveSnapshot(GetLatestSnapshot());
		fcinfo->isnull = false;
		result = behavior_tick_id(fcinfo);
		PopActiveSnapshot();
	}
	*isnull = fcinfo->isnull;
	return result;
}

int
delivery_item_hops(const DeliveryItem *item)
{
	bool isnull;
	Datum hops;

	find_shape();
	hops = heap_getattr(item->entry.row, LOG_HOPS, log_desc, &isnull);
	return isnull ? 0 : DatumGetInt16(hops);
}

Datum
delivery_event_datum(const DeliveryItem *item)
{
	Datum *row;
	bool *row_null;
	Datum *values;
	bool *nulls;
	HeapTuple tuple;

	find_shape();
	row = palloc(sizeof(Datum) * log_desc->natts);
	row_null = palloc(sizeof(bool) * log_desc->natts);
	values = palloc0(sizeof(Datum) * event_desc->natts);
	nulls = palloc(sizeof(bool) * event_desc->natts);
	heap_deform_tuple(item->entry.row, log_desc, row, row_null);

	for (int i = 0; i < event_desc->natts; i++)
	{
		int column = from[i];

		if (column == FROM_ACTOR)
			column = row_null[LOG_USER_ID - 1] ? LOG_ANONYMOUS_ID : LOG_USER_ID;
		if (column > 0)
		{
			values[i] = row[column - 1];
			nulls[i] = row_null[column - 1];
		}
		else if (column == FROM_TICK_ID)
			values[i] = tick_id_of(row[LOG_BATCH_ID - 1], &nulls[i]);
		else
			nulls[i] = true;
	}
	tuple = heap_form_tuple(event_desc, values, nulls);
	pfree(row);
	pfree(row_null);
	pfree(values);
	pfree(nulls);
	return HeapTupleGetDatum(tuple);
}

Datum
delivery_datum(const Subscription *subscription, const DeliveryItem *item)
{
	Datum values[DELIVERY_NATTS];
	bool nulls[DELIVERY_NATTS] = {0};

	find_shape();
	values[0] = Int64GetDatum(item->entry.delivery_id);
	values[1] = CStringGetTextDatum(subscription->name);
	values[2] = Int32GetDatum(item->attempt);
	values[3] = BoolGetDatum(item->late);
	values[4] = Int32GetDatum(delivery_item_hops(item));
	values[5] = delivery_event_datum(item);
	return HeapTupleGetDatum(heap_form_tuple(delivery_desc, values, nulls));
}

Oid
delivery_element_type(bool delivery)
{
	return delivery ? delivery_type() : get_rel_type_id(behavior_relid(REL_EVENT));
}

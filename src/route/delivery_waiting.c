/*
 * delivery_waiting.c
 *		Events of a subscription with a state of their own, counted for its view.
 *
 * A function, since in SQL the planner, which knows little about these tables, thinks of the view
 * as of one to compile code for.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/table.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "route/delivery_row.h"

PG_FUNCTION_INFO_V1(behavior__delivery_waiting);

/* Columns of behavior._delivery that are looked at here. */
enum
{
	ROW_SUBSCRIPTION_ID = 2,
	ROW_STATE = 3,
	ROW_FIRST_ATTEMPT_AT = 7
};

/* Counts the rows in a state; *since: when the first of them was tried first. */
static int64
count_state(Relation rel, Relation index, int64 subscription_id, char state, TimestampTz *since)
{
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple tuple;
	int64 count = 0;

	ScanKeyInit(&keys[0], ROW_SUBSCRIPTION_ID, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(subscription_id));
	ScanKeyInit(&keys[1], ROW_STATE, BTEqualStrategyNumber, F_CHAREQ, CharGetDatum(state));
	scan = systable_beginscan_ordered(rel, index, GetActiveSnapshot(), 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		bool isnull;
		Datum at = heap_getattr(tuple, ROW_FIRST_ATTEMPT_AT, RelationGetDescr(rel), &isnull);

		CHECK_FOR_INTERRUPTS();
		if (!isnull)
			*since = Min(*since, DatumGetTimestampTz(at));
		count++;
	}
	systable_endscan_ordered(scan);
	return count;
}

/*
 * behavior._delivery_waiting(subscription_id bigint, held boolean, OUT events bigint,
 * OUT since timestamptz)
 */
Datum
behavior__delivery_waiting(PG_FUNCTION_ARGS)
{
	int64 id = PG_GETARG_INT64(0);
	Relation rel = table_open(behavior_relid(REL_DELIVERY), AccessShareLock);
	Relation index = index_open(behavior_relid(REL_DELIVERY_DUE), AccessShareLock);
	TimestampTz since = DT_NOEND;
	TupleDesc desc;
	Datum values[2];
	bool nulls[2] = {false, false};
	int64 count;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	count = count_state(rel, index, id, DELIVERY_RETRY, &since) +
			count_state(rel, index, id, DELIVERY_IN_FLIGHT, &since);
	if (PG_GETARG_BOOL(1))
		count += count_state(rel, index, id, DELIVERY_HELD, &since);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);

	values[0] = Int64GetDatum(count);
	values[1] = TimestampTzGetDatum(since);
	nulls[1] = since == DT_NOEND;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * log_read_function.c
 *		behavior._log_read(): the log reader for tests.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/multirangetypes.h"
#include "utils/rangetypes.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

#include "log/log_reader.h"

PG_FUNCTION_INFO_V1(behavior__log_read);

static void
put_row(TupleTableSlot *slot, void *arg)
{
	tuplestore_puttupleslot((Tuplestorestate *) arg, slot);
}

/* Rows of the batches in an int8multirange: SRF for tests. */
Datum
behavior__log_read(PG_FUNCTION_ARGS)
{
	MultirangeType *ids = PG_GETARG_MULTIRANGE_P(0);
	bool indexed = PG_GETARG_BOOL(1);
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	TypeCacheEntry *type = lookup_type_cache(MultirangeTypeGetOid(ids), TYPECACHE_MULTIRANGE_INFO);
	BatchSet *set = batch_set_make();
	RangeType **ranges;
	int32 nranges;

	InitMaterializedSRF(fcinfo, 0);
	multirange_deserialize(type->rngtype, ids, &nranges, &ranges);
	for (int i = 0; i < nranges; i++)
	{
		RangeBound lower;
		RangeBound upper;
		bool empty;

		range_deserialize(type->rngtype, ranges[i], &lower, &upper, &empty);
		if (!empty)
			batch_set_append(set, lower.infinite ? 0 : DatumGetInt64(lower.val),
							 upper.infinite ? PG_INT64_MAX : DatumGetInt64(upper.val) - 1);
	}
	if (indexed)
		(void) log_read_indexed(set, GetActiveSnapshot(), put_row, result->setResult);
	else
		(void) log_read_batches(set, GetActiveSnapshot(), put_row, result->setResult);
	return (Datum) 0;
}

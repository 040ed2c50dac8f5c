/*
 * tick_id.c
 *		behavior._tick_id(): the tick that a batch belongs to.
 *
 * A lookup in behavior._tick_range under the caller's snapshot.  The last few runs
 * that were found are kept in the call site: the rows of a scan come in
 * clusters of few batches.  What is kept holds for one snapshot in one
 * subtransaction only, since an expression may live longer than either and a
 * tick may be rolled back and its number given again.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/xact.h"
#include "fmgr.h"
#include "storage/proc.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "fold/tick.h"

#define KEPT_RUNS 8

typedef struct KeptRun
{
	int64 first;
	int64 last;
	int64 tick_id; /* 0: in no tick */
} KeptRun;

typedef struct TickIdCache
{
	/* What the runs below hold for. */
	LocalTransactionId lxid;
	SubTransactionId subid;
	TransactionId xmin;
	TransactionId xmax;
	uint32 xcnt;
	CommandId curcid;
	int nruns;
	KeptRun runs[KEPT_RUNS]; /* most recently used first */
} TickIdCache;

PG_FUNCTION_INFO_V1(behavior_tick_id);

/* Finds the run of "batch_id", or a run of this one id when it is in no tick. */
static void
look_up(int64 batch_id, Snapshot snapshot, KeptRun *run)
{
	Relation rel = table_open(behavior_relid(REL_TICK_RANGE), AccessShareLock);
	Relation index = index_open(behavior_relid(REL_TICK_RANGE_PKEY), AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	run->first = run->last = batch_id;
	run->tick_id = 0;

	ScanKeyInit(&key, 1, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(batch_id));
	scan = systable_beginscan_ordered(rel, index, snapshot, 1, &key);
	tuple = systable_getnext_ordered(scan, BackwardScanDirection);
	if (HeapTupleIsValid(tuple))
	{
		Datum values[3];
		bool nulls[3];

		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		if (batch_id <= DatumGetInt64(values[1]))
		{
			run->first = DatumGetInt64(values[0]);
			run->last = DatumGetInt64(values[1]);
			run->tick_id = DatumGetInt64(values[2]);
		}
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
}

/* behavior._tick_id(batch_id bigint) returns bigint */
Datum
behavior_tick_id(PG_FUNCTION_ARGS)
{
	int64 batch_id = PG_GETARG_INT64(0);
	Snapshot snapshot = GetActiveSnapshot();
	TickIdCache *cache = fcinfo->flinfo->fn_extra;
	KeptRun run;
	int i;

	if (cache == NULL)
	{
		cache = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(TickIdCache));
		fcinfo->flinfo->fn_extra = cache;
	}
	if (cache->lxid != MY_LXID || cache->subid != GetCurrentSubTransactionId() ||
		cache->xmin != snapshot->xmin || cache->xmax != snapshot->xmax ||
		cache->xcnt != snapshot->xcnt || cache->curcid != snapshot->curcid)
	{
		cache->lxid = MY_LXID;
		cache->subid = GetCurrentSubTransactionId();
		cache->xmin = snapshot->xmin;
		cache->xmax = snapshot->xmax;
		cache->xcnt = snapshot->xcnt;
		cache->curcid = snapshot->curcid;
		cache->nruns = 0;
	}

	for (i = 0; i < cache->nruns; i++)
	{
		if (cache->runs[i].first <= batch_id && batch_id <= cache->runs[i].last)
			break;
	}
	if (i < cache->nruns)
		run = cache->runs[i];
	else
	{
		look_up(batch_id, snapshot, &run);
		if (cache->nruns < KEPT_RUNS)
			cache->nruns++;
		i = cache->nruns - 1;
	}
	if (i > 0)
		memmove(&cache->runs[1], &cache->runs[0], sizeof(KeptRun) * i);
	cache->runs[0] = run;

	if (run.tick_id == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(run.tick_id);
}

/*
 * tick_ranges.c
 *		Which batch is of which tick, for many batches of a few ticks.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "core/catalog.h"
#include "route/match_sort.h"

/* Columns of behavior._tick_range. */
enum
{
	RANGE_FIRST_BATCH = 1,
	RANGE_LAST_BATCH,
	RANGE_TICK_ID,
	RANGE_NATTS = RANGE_TICK_ID
};

typedef struct TickRange
{
	int64 first;
	int64 last;
	int64 tick;
} TickRange;

struct TickRanges
{
	int count;
	int max;
	int last_hit;
	TickRange *ranges; /* by first batch: they are disjoint */
};

static int
compare_ranges(const void *a, const void *b)
{
	int64 left = ((const TickRange *) a)->first;
	int64 right = ((const TickRange *) b)->first;

	return left < right ? -1 : left > right;
}

TickRanges *
tick_ranges_read(Snapshot snapshot, int64 after_tick, int64 upto_tick)
{
	TickRanges *ranges = palloc0(sizeof(TickRanges));
	Relation rel = table_open(behavior_relid(REL_TICK_RANGE), AccessShareLock);
	Relation index = index_open(behavior_relid(REL_TICK_RANGE_TICK_ID), AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple tuple;

	ranges->max = 64;
	ranges->ranges = palloc(sizeof(TickRange) * ranges->max);
	ScanKeyInit(&keys[0], RANGE_TICK_ID, BTGreaterStrategyNumber, F_INT8GT,
				Int64GetDatum(after_tick));
	ScanKeyInit(&keys[1], RANGE_TICK_ID, BTLessEqualStrategyNumber, F_INT8LE,
				Int64GetDatum(upto_tick));
	scan = systable_beginscan_ordered(rel, index, snapshot, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		Datum values[RANGE_NATTS];
		bool nulls[RANGE_NATTS];
		TickRange *range;

		if (ranges->count == ranges->max)
		{
			ranges->max *= 2;
			ranges->ranges = repalloc_huge(ranges->ranges, sizeof(TickRange) * ranges->max);
		}
		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		range = &ranges->ranges[ranges->count++];
		range->first = DatumGetInt64(values[RANGE_FIRST_BATCH - 1]);
		range->last = DatumGetInt64(values[RANGE_LAST_BATCH - 1]);
		range->tick = DatumGetInt64(values[RANGE_TICK_ID - 1]);
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	qsort(ranges->ranges, ranges->count, sizeof(TickRange), compare_ranges);
	return ranges;
}

int64
tick_ranges_find(TickRanges *ranges, int64 batch_id)
{
	int low = 0;
	int high = ranges->count;

	if (ranges->count == 0)
		return -1;
	if (batch_id >= ranges->ranges[ranges->last_hit].first &&
		batch_id <= ranges->ranges[ranges->last_hit].last)
		return ranges->ranges[ranges->last_hit].tick;
	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (ranges->ranges[middle].last < batch_id)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == ranges->count || ranges->ranges[low].first > batch_id)
		return -1;
	ranges->last_hit = low;
	return ranges->ranges[low].tick;
}

BatchSet *
tick_ranges_batches(const TickRanges *ranges)
{
	BatchSet *set = batch_set_make();

	for (int i = 0; i < ranges->count; i++)
		batch_set_add(set, ranges->ranges[i].first, ranges->ranges[i].last);
	batch_set_normalize(set);
	return set;
}

/*
 * block_ranges.c
 *		Blocks of partitions as joined ranges.
 */
#include "postgres.h"

#include "log/block_ranges.h"

/* Gaps this small are read along: that is cheaper than a jump. */
#define JOIN_GAP 2

static int
compare_ranges(const void *a, const void *b)
{
	const BlockRange *left = (const BlockRange *) a;
	const BlockRange *right = (const BlockRange *) b;

	if (left->partition_day != right->partition_day)
		return left->partition_day < right->partition_day ? -1 : 1;
	if (left->first != right->first)
		return left->first < right->first ? -1 : 1;
	return 0;
}

void
block_ranges_init(BlockRanges *ranges)
{
	ranges->count = 0;
	ranges->max = 64;
	ranges->ranges = (BlockRange *) palloc(ranges->max * sizeof(BlockRange));
}

void
block_ranges_add(BlockRanges *ranges, int32 partition_day, BlockNumber first, BlockNumber last)
{
	BlockRange *tail = ranges->count > 0 ? &ranges->ranges[ranges->count - 1] : NULL;

	/* Mostly they come in order: join at once what touches the one before. */
	if (tail != NULL && tail->partition_day == partition_day && first >= tail->first &&
		(uint64) first <= (uint64) tail->last + JOIN_GAP)
	{
		tail->last = Max(tail->last, last);
		return;
	}
	if (ranges->count == ranges->max)
	{
		ranges->max *= 2;
		ranges->ranges =
			(BlockRange *) repalloc_huge(ranges->ranges, ranges->max * sizeof(BlockRange));
	}
	tail = &ranges->ranges[ranges->count++];
	tail->partition_day = partition_day;
	tail->first = first;
	tail->last = last;
}

void
block_ranges_join(BlockRanges *ranges)
{
	int kept = 0;

	qsort(ranges->ranges, ranges->count, sizeof(BlockRange), compare_ranges);
	for (int i = 0; i < ranges->count; i++)
	{
		BlockRange range = ranges->ranges[i];
		BlockRange *tail = kept > 0 ? &ranges->ranges[kept - 1] : NULL;

		if (tail != NULL && tail->partition_day == range.partition_day &&
			(uint64) range.first <= (uint64) tail->last + JOIN_GAP)
			tail->last = Max(tail->last, range.last);
		else
			ranges->ranges[kept++] = range;
	}
	ranges->count = kept;
}

bool
block_ranges_contain(const BlockRanges *ranges, int32 partition_day, BlockNumber block)
{
	int low = 0;
	int high = ranges->count;

	while (low < high)
	{
		int middle = low + (high - low) / 2;
		const BlockRange *range = &ranges->ranges[middle];

		if (range->partition_day < partition_day ||
			(range->partition_day == partition_day && range->last < block))
			low = middle + 1;
		else
			high = middle;
	}
	return low < ranges->count && ranges->ranges[low].partition_day == partition_day &&
		   ranges->ranges[low].first <= block;
}

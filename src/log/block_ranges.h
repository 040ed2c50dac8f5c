/*
 * block_ranges.h
 *		Blocks of partitions as joined ranges: what was read, or is to be.
 */
#ifndef BEHAVIOR_BLOCK_RANGES_H
#define BEHAVIOR_BLOCK_RANGES_H

#include "storage/block.h"

typedef struct BlockRange
{
	int32 partition_day; /* as in Extent */
	BlockNumber first;
	BlockNumber last; /* inclusive */
} BlockRange;

typedef struct BlockRanges
{
	int count;
	int max;
	BlockRange *ranges; /* once joined: by partition, ascending, disjoint */
} BlockRanges;

extern void block_ranges_init(BlockRanges *ranges);
/* Adds a range in any order; block_ranges_join() must follow. */
extern void
block_ranges_add(BlockRanges *ranges, int32 partition_day, BlockNumber first, BlockNumber last);
extern void block_ranges_join(BlockRanges *ranges);
extern bool block_ranges_contain(const BlockRanges *ranges, int32 partition_day, BlockNumber block);

#endif

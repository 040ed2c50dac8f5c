/*
 * replay.c
 *		Queues the events of the past for a subscription that starts there.
 *
 * Which: those of ticks up to the one behind which the router goes on, so that there is no gap and
 * no repetition at the seam; that occurred at start_at or later; and that match.  They are queued
 * in the order of events, a part of time at a time.  The cursor is a time, so that it does not
 * matter where rows lie or whether they are moved from one step to the next; and within a step,
 * rows are read under one snapshot from the partitions that there are after it was taken: what is
 * moved meanwhile is still seen where it was.
 *
 * A slice of time is so long that about SLICE_BLOCKS of its partition are in it, if they lie in the
 * order of time.  Where they do not, a slice costs more to read; then more is queued of it at once,
 * in proportion to what was read, so that a replay reads a log in any order a few times at most.
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "miscadmin.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "fold/tick.h"
#include "log/log_reader.h"
#include "log/log_row.h"
#include "log/partition.h"
#include "route/event_pattern.h"
#include "route/match_sort.h"
#include "route/queue.h"
#include "route/router.h"

#define SLICE_BLOCKS 1024
#define STEP_ROWS	 100000		 /* looked at, then a step ends */
#define STEP_QUEUED	 10000		 /* at least so many are queued when there are so many */
#define QUEUED_PART	 8			 /* or this part of those looked at */
#define BUFFERED	 QUEUE_CHUNK /* references */

typedef struct Replay
{
	int64 joined_tick;
	BatchSet *later; /* behind joined_tick: the router's */
	PatternSet *patterns;
	MatchSort *sort;
	LogPartition *parts;
	int nparts;
	uint64 looked_at;
} Replay;

/* LogRowCallback */
static void
replay_row(TupleTableSlot *slot, void *arg)
{
	Replay *replay = arg;
	const int *matches;

	slot_getallattrs(slot);
	if (batch_set_contains(replay->later, DatumGetInt64(slot->tts_values[LOG_BATCH_ID - 1])))
		return;
	if (pattern_set_match_row(replay->patterns, slot->tts_values, slot->tts_isnull, &matches) > 0)
		match_sort_put(replay->sort, slot, replay->joined_tick, matches, 1);
}

/* Where a slice of time ends, given the partition that it begins in or before. */
static TimestampTz
slice_end(const LogPartition *part, TimestampTz from)
{
	BlockNumber blocks = log_blocks(part->relid);
	TimestampTz begin = Max(from, part->lower);
	TimestampTz length;

	if (blocks <= SLICE_BLOCKS || TIMESTAMP_NOT_FINITE(part->lower) ||
		TIMESTAMP_NOT_FINITE(part->upper))
		return part->upper;
	length = (part->upper - part->lower) / blocks * SLICE_BLOCKS;
	return part->upper - begin <= length ? part->upper : begin + Max(length, 1);
}

/* Reads the next slice of time, and returns its end. */
static TimestampTz
read_slice(Replay *replay, TimestampTz from, Snapshot snapshot)
{
	const LogPartition *part = NULL;
	TimestampTz end = DT_NOEND;

	for (int i = 0; i < replay->nparts && part == NULL; i++)
	{
		if (!replay->parts[i].is_default && replay->parts[i].upper > from)
			part = &replay->parts[i];
	}
	if (part != NULL)
	{
		end = slice_end(part, from);
		replay->looked_at += log_read_time(part->relid, from, end, snapshot, replay_row, replay);
	}
	/* In DEFAULT may be anything. */
	if (replay->nparts > 0 && replay->parts[replay->nparts - 1].is_default)
		replay->looked_at += log_read_time(replay->parts[replay->nparts - 1].relid, from, end,
										   snapshot, replay_row, replay);
	return end;
}

/* Queues what was found up to "end", or less when it is much; returns up to where. */
static TimestampTz
queue_found(const Replay *replay, int64 subscription_id, TimestampTz end)
{
	int64 most = Max(STEP_QUEUED, (int64) (replay->looked_at / QUEUED_PART));
	EventRef *refs = palloc(sizeof(EventRef) * BUFFERED);
	int nrefs = 0;
	int64 queued = 0;
	TimestampTz last = DT_NOBEGIN;
	Match match;

	match_sort_finish(replay->sort);
	while (match_sort_next(replay->sort, &match))
	{
		CHECK_FOR_INTERRUPTS();
		/* The cursor is a time: all that occurred at the same one go together. */
		if (queued >= most && match.occurred_at != last)
		{
			end = match.occurred_at;
			break;
		}
		last = match.occurred_at;
		refs[nrefs++] = match.ref;
		queued++;
		if (nrefs == BUFFERED)
		{
			queue_append(subscription_id, false, replay->joined_tick, refs, nrefs);
			nrefs = 0;
		}
	}
	if (nrefs > 0)
		queue_append(subscription_id, false, replay->joined_tick, refs, nrefs);
	return end;
}

bool
replay_step(const Subscription *subscription, SubscriptionProgress *progress)
{
	MemoryContext context;
	MemoryContext caller;
	Snapshot snapshot;
	Replay replay = {0};
	TimestampTz from = progress->replay_at;

	if (!progress->replaying || subscription->joined_tick < 0)
		return false;
	context =
		AllocSetContextCreate(CurrentMemoryContext, "behavior replay", ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(context);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	PushActiveSnapshot(snapshot);
	AcceptInvalidationMessages();
	replay.parts = log_partitions(&replay.nparts);
	replay.joined_tick = subscription->joined_tick;
	replay.later = tick_batches(snapshot, subscription->joined_tick, TICK_ALL);
	replay.patterns = pattern_set_make();
	pattern_set_add(replay.patterns, subscription->pattern, 0);
	replay.sort = match_sort_begin();

	do
	{
		CHECK_FOR_INTERRUPTS();
		from = read_slice(&replay, from, snapshot);
	} while (!TIMESTAMP_IS_NOEND(from) && replay.looked_at < STEP_ROWS &&
			 match_sort_count(replay.sort) < STEP_QUEUED);

	progress->replay_at = queue_found(&replay, subscription->id, from);
	if (TIMESTAMP_IS_NOEND(progress->replay_at))
	{
		progress->replaying = false;
		progress->replay_at = 0;
	}
	match_sort_end(replay.sort);
	pattern_set_free(replay.patterns);
	PopActiveSnapshot();
	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return progress->replaying;
}

/*
 * letter_events.c
 *		Finds the events that dead letters of stages delivery and fold are about in the log.
 */
#include "postgres.h"

#include "access/table.h"
#include "executor/tuptable.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "ingest/event_key.h"
#include "log/log_reader.h"
#include "log/log_row.h"
#include "log/partition.h"
#include "route/letter_events.h"

typedef struct Search
{
	LetterEvent **sorted; /* by batch, source and event_id */
	int n;
	LogPartition *partitions;
	int npartitions;
	MemoryContext caller;
} Search;

static int
compare(int64 batch_id, const char *source, const char *event_id, const LetterEvent *event)
{
	int order;

	if (batch_id != event->batch_id)
		return batch_id < event->batch_id ? -1 : 1;
	order = strcmp(source, event->source);
	return order != 0 ? order : strcmp(event_id, event->event_id);
}

static int
compare_events(const void *a, const void *b)
{
	const LetterEvent *event = *(LetterEvent *const *) a;

	return compare(event->batch_id, event->source, event->event_id, *(LetterEvent *const *) b);
}

/* How an extent, and a reference, names the partition. */
static int32
day_of(const Search *search, Oid relid)
{
	for (int i = 0; i < search->npartitions; i++)
		if (search->partitions[i].relid == relid)
			return log_partition_day(&search->partitions[i]);
	elog(ERROR, "relation %u is no partition of behavior.log", relid);
}

/* LogRowCallback */
static void
look_at(TupleTableSlot *slot, void *arg)
{
	Search *search = arg;
	bool isnull;
	int64 batch_id = DatumGetInt64(slot_getattr(slot, LOG_BATCH_ID, &isnull));
	char *source = TextDatumGetCString(slot_getattr(slot, LOG_SOURCE, &isnull));
	char *event_id = TextDatumGetCString(slot_getattr(slot, LOG_EVENT_ID, &isnull));
	int low = 0;
	int high = search->n;

	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (compare(batch_id, source, event_id, search->sorted[middle]) > 0)
			low = middle + 1;
		else
			high = middle;
	}
	while (low < search->n && compare(batch_id, source, event_id, search->sorted[low]) == 0)
	{
		LetterEvent *event = search->sorted[low++];
		MemoryContext context = MemoryContextSwitchTo(search->caller);
		uint8 key[16];

		if (event->row == NULL)
		{
			event_key_hash(source, strlen(source), event_id, strlen(event_id), key);
			event->row = ExecCopySlotHeapTuple(slot);
			event->ref =
				event_ref_make(day_of(search, slot->tts_tableOid), &slot->tts_tid, batch_id, key);
		}
		MemoryContextSwitchTo(context);
	}
	pfree(source);
	pfree(event_id);
}

/* The batches of which some event has not been found. */
static BatchSet *
missing_batches(const Search *search)
{
	BatchSet *set = batch_set_make();

	for (int i = 0; i < search->n; i++)
		if (search->sorted[i]->row == NULL)
			batch_set_append(set, search->sorted[i]->batch_id, search->sorted[i]->batch_id);
	return set;
}

LetterEvent *
letter_events_of(RedriveLetter **letters, int n)
{
	LetterEvent *events = palloc0(sizeof(LetterEvent) * n);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "behavior letter events",
												  ALLOCSET_DEFAULT_SIZES);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	Search search = {0};
	BatchSet *set;

	search.caller = MemoryContextSwitchTo(context);
	search.sorted = palloc(sizeof(LetterEvent *) * n);
	for (int i = 0; i < n; i++)
	{
		events[i].batch_id = letters[i]->batch_id;
		events[i].source = letters[i]->source;
		events[i].event_id = letters[i]->event_id;
		if (events[i].source != NULL && events[i].event_id != NULL)
			search.sorted[search.n++] = &events[i];
	}
	qsort(search.sorted, search.n, sizeof(LetterEvent *), compare_events);
	search.partitions = log_partitions(&search.npartitions);

	(void) log_read_batches(missing_batches(&search), snapshot, look_at, &search);
	/* Rows of batches are kept for a while only. */
	set = missing_batches(&search);
	if (set->nruns > 0)
		(void) log_read_indexed(set, snapshot, look_at, &search);

	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(search.caller);
	MemoryContextDelete(context);
	return events;
}

static const char *
projection_of(const RedriveLetter *letter)
{
	return letter->projection != NULL ? letter->projection : "";
}

static int
compare_letters(const void *a, const void *b)
{
	const RedriveLetter *left = *(RedriveLetter *const *) a;
	const RedriveLetter *right = *(RedriveLetter *const *) b;
	int order = strcmp(projection_of(left), projection_of(right));

	if (order != 0)
		return order;
	return (left->dead_letter_id > right->dead_letter_id) -
		   (left->dead_letter_id < right->dead_letter_id);
}

void
redrive_by_projection(RedriveLetter **letters, int n,
					  void (*redrive)(RedriveLetter **letters, int n))
{
	int first = 0;

	qsort(letters, n, sizeof(RedriveLetter *), compare_letters);
	while (first < n)
	{
		int count = 1;

		while (first + count < n &&
			   strcmp(projection_of(letters[first]), projection_of(letters[first + count])) == 0)
			count++;
		redrive(letters + first, count);
		first += count;
	}
}

/*
 * queue_fetch.c
 *		From references to events.
 *
 * A reference's place is looked at first, and believed when the row there is of the batch and has
 * the key.  Rows that are elsewhere (VACUUM FULL, CLUSTER, a restore, a move out of the DEFAULT
 * partition) are looked for by batch through BRIN: in the partition that was named, which a rewrite
 * and a restore leave them in, then in all.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/heaptoast.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/inval.h"
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
#include "route/queue.h"

/* What is looked for by its key. */
typedef struct Search
{
	QueueEntry **missing; /* by reference */
	int count;
	int found;
	MemoryContext context; /* of the rows */
} Search;

static int
compare_places(const void *a, const void *b)
{
	const EventRef *left = &(*(QueueEntry *const *) a)->ref;
	const EventRef *right = &(*(QueueEntry *const *) b)->ref;

	if (left->partition_day != right->partition_day)
		return left->partition_day < right->partition_day ? -1 : 1;
	if (left->block != right->block)
		return left->block < right->block ? -1 : 1;
	return left->line < right->line ? -1 : left->line > right->line;
}

/* By batch and key, whatever the place. */
static int
compare_keys(const EventRef *left, const EventRef *right)
{
	int64 left_batch = event_ref_batch(left);
	int64 right_batch = event_ref_batch(right);

	if (left_batch != right_batch)
		return left_batch < right_batch ? -1 : 1;
	if (left->key_high != right->key_high)
		return left->key_high < right->key_high ? -1 : 1;
	return left->key_low < right->key_low ? -1 : left->key_low > right->key_low;
}

static int
compare_missing(const void *a, const void *b)
{
	return compare_keys(&(*(QueueEntry *const *) a)->ref, &(*(QueueEntry *const *) b)->ref);
}

/* A reference with the batch and the key of this event. */
static EventRef
ref_of_values(Datum batch_id, Datum source, Datum event_id)
{
	struct varlena *source_text = PG_DETOAST_DATUM_PACKED(source);
	struct varlena *event_id_text = PG_DETOAST_DATUM_PACKED(event_id);
	ItemPointerData nowhere;
	uint8 key[16];

	event_key_hash(VARDATA_ANY(source_text), VARSIZE_ANY_EXHDR(source_text),
				   VARDATA_ANY(event_id_text), VARSIZE_ANY_EXHDR(event_id_text), key);
	ItemPointerSet(&nowhere, 0, FirstOffsetNumber);
	return event_ref_make(0, &nowhere, DatumGetInt64(batch_id), key);
}

/* A copy that needs neither the page nor the toast table. */
static HeapTuple
copy_row(HeapTuple tuple, TupleDesc desc)
{
	return HeapTupleHasExternal(tuple) ? toast_flatten_tuple(tuple, desc) : heap_copytuple(tuple);
}

/* The row at the place of a reference; NULL when another or none is there. */
static HeapTuple
fetch_row(Relation rel, BlockNumber blocks, const EventRef *ref, Snapshot snapshot)
{
	TupleDesc desc = RelationGetDescr(rel);
	HeapTupleData tuple;
	HeapTuple copy = NULL;
	Buffer buffer;
	EventRef found;
	bool isnull;

	if (ref->block >= blocks || ref->line < FirstOffsetNumber || ref->line > MaxOffsetNumber)
		return NULL;
	ItemPointerSet(&tuple.t_self, ref->block, (OffsetNumber) ref->line);
	if (!heap_fetch(rel, snapshot, &tuple, &buffer, false))
		return NULL;
	found = ref_of_values(heap_getattr(&tuple, LOG_BATCH_ID, desc, &isnull),
						  heap_getattr(&tuple, LOG_SOURCE, desc, &isnull),
						  heap_getattr(&tuple, LOG_EVENT_ID, desc, &isnull));
	if (compare_keys(&found, ref) == 0)
		copy = copy_row(&tuple, desc);
	ReleaseBuffer(buffer);
	return copy;
}

/* LogRowCallback: is it one of those that are missing? */
static void
take_row(TupleTableSlot *slot, void *arg)
{
	Search *search = arg;
	bool isnull;
	EventRef ref = ref_of_values(slot_getattr(slot, LOG_BATCH_ID, &isnull),
								 slot_getattr(slot, LOG_SOURCE, &isnull),
								 slot_getattr(slot, LOG_EVENT_ID, &isnull));
	int low = 0;
	int high = search->count;

	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (compare_keys(&search->missing[middle]->ref, &ref) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < search->count && compare_keys(&search->missing[low]->ref, &ref) == 0; low++)
	{
		MemoryContext old;

		if (search->missing[low]->row != NULL)
			continue;
		old = MemoryContextSwitchTo(search->context);
		search->missing[low]->row =
			copy_row(((BufferHeapTupleTableSlot *) slot)->base.tuple, slot->tts_tupleDescriptor);
		search->found++;
		MemoryContextSwitchTo(old);
	}
}

/* The batches of missing[first..count) that are still to be found. */
static BatchSet *
batches_of(QueueEntry **missing, int count)
{
	BatchSet *set = batch_set_make();

	for (int i = 0; i < count; i++)
	{
		int64 batch_id = event_ref_batch(&missing[i]->ref);

		if (missing[i]->row == NULL)
			batch_set_add(set, batch_id, batch_id);
	}
	batch_set_normalize(set);
	return set;
}

static Oid
relid_of_day(const LogPartition *parts, int nparts, int32 day)
{
	for (int i = 0; i < nparts; i++)
	{
		if (log_partition_day(&parts[i]) == day)
			return parts[i].relid;
	}
	return InvalidOid;
}

/* Finds what is not at its place: "missing" is in the order of places. */
static void
search_missing(QueueEntry **missing, int count, const LogPartition *parts, int nparts,
			   Snapshot snapshot, MemoryContext context)
{
	Search all = {missing, count, 0, context};
	int i = 0;

	while (i < count)
	{
		int32 day = missing[i]->ref.partition_day;
		Oid relid = relid_of_day(parts, nparts, day);
		Search search = {&missing[i], 0, 0, context};

		while (i < count && missing[i]->ref.partition_day == day)
		{
			search.count++;
			i++;
		}
		if (!OidIsValid(relid))
			continue;
		qsort(search.missing, search.count, sizeof(QueueEntry *), compare_missing);
		(void) log_read_partition(relid, batches_of(search.missing, search.count), snapshot,
								  take_row, &search);
		all.found += search.found;
	}
	if (all.found == count)
		return;
	qsort(missing, count, sizeof(QueueEntry *), compare_missing);
	(void) log_read_indexed(batches_of(missing, count), snapshot, take_row, &all);
}

void
queue_fetch(QueueEntry *entries, int n, Snapshot snapshot)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "behavior queue fetch", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	QueueEntry **order = palloc(Max(n, 1) * sizeof(QueueEntry *));
	QueueEntry **missing = palloc(Max(n, 1) * sizeof(QueueEntry *));
	LogPartition *parts;
	int nparts;
	int nmissing = 0;
	int i = 0;

	for (int j = 0; j < n; j++)
	{
		entries[j].row = NULL;
		order[j] = &entries[j];
	}
	qsort(order, n, sizeof(QueueEntry *), compare_places);

	/* After the snapshot was taken: what it sees is in a partition that is known now. */
	AcceptInvalidationMessages();
	parts = log_partitions(&nparts);
	while (i < n)
	{
		int32 day = order[i]->ref.partition_day;
		Oid relid = relid_of_day(parts, nparts, day);
		Relation rel = OidIsValid(relid) ? try_relation_open(relid, AccessShareLock) : NULL;
		bool fits = rel != NULL && log_partition_fits(rel);
		BlockNumber blocks = fits ? RelationGetNumberOfBlocks(rel) : 0;

		for (; i < n && order[i]->ref.partition_day == day; i++)
		{
			CHECK_FOR_INTERRUPTS();
			MemoryContextSwitchTo(caller);
			if (fits)
				order[i]->row = fetch_row(rel, blocks, &order[i]->ref, snapshot);
			MemoryContextSwitchTo(context);
			if (order[i]->row == NULL)
				missing[nmissing++] = order[i];
		}
		if (rel != NULL)
			relation_close(rel, AccessShareLock);
	}
	if (nmissing > 0)
	{
		/* They may be still to come, and nobody is to take them for gone. */
		if (log_restore_in_progress())
			ereport(
				ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a restore of this database is not complete"),
				 errdetail("A partition of behavior.log lacks its BRIN indexes."),
				 errhint("Let pg_restore create indexes (section post-data), then try again.")));
		ereport(DEBUG1,
				(errmsg_internal("%d events are not where their references say", nmissing)));
		search_missing(missing, nmissing, parts, nparts, snapshot, caller);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

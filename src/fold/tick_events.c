/*
 * tick_events.c
 *		The events of some ticks, read once and handed to every projection that lacks them.
 *
 * A cut reads its events anyway, to say when the first and the last occurred,
 * and keeps them; the folds that follow take them from there.  They are kept in
 * a few chunks in memory, each a tuplestore that never goes to disk: the log is on
 * disk already, and reading it again costs no more than reading a copy would.  So
 * a tick that does not fit is read by each projection anew, chunk by chunk.
 *
 * Each projection commits by itself, so what is kept outlives transactions:
 * rows are stored without pointers to toast, and the tuplestores live in contexts
 * of their own.  They are dropped when the (sub)transaction that cut the tick aborts, since
 * the tick's number is then given again to other batches.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "fold/tick.h"
#include "fold/tick_events.h"
#include "log/log_reader.h"
#include "log/log_row.h"

/*
 * What is kept at most: this many chunks, each of TICK_EVENTS_CHUNK events or so many times
 * maintenance_work_mem.  That is a million events and more by default.
 */
#define MAX_CHUNKS		   3
#define CHUNK_MEMORY_TIMES 2

/* Blocks of a chunk's context: rows lie side by side in them. */
#define CHUNK_BLOCK_SIZE (1024 * 1024)

typedef struct Chunk
{
	MemoryContext context; /* holds the store, and below it the rows: both are dropped with it */
	Tuplestorestate *store;
	int64 count;
	TickRows *rows; /* NULL: not made yet */
	bool scanned;
} Chunk;

typedef struct Chunks
{
	MemoryContext context; /* NULL: there are none */
	TupleDesc desc;
	int64 after_tick;
	int64 upto_tick;
	int count;
	Chunk chunks[MAX_CHUNKS];
} Chunks;

/* What is kept, and the subtransaction that it falls with, invalid once committed. */
static Chunks kept;
static SubTransactionId kept_subid = InvalidSubTransactionId;

/* Those that a callback has before it. */
static Chunks *handed = NULL;

static bool callbacks_registered = false;

/* Events on their way from the log into chunks. */
typedef struct Filling
{
	Chunks chunks;
	TupleTableSlot *flat; /* for rows with toasted values */
	bool summarize;		  /* a cut */
	bool overflow;		  /* there is more than can be kept */
	TickEventsSummary summary;
	TickEventsCallback callback; /* NULL: what cannot be kept is not stored */
	void *arg;
} Filling;

void
tick_events_forget(void)
{
	MemoryContext context = kept.context;

	if (context == NULL)
		return;
	memset(&kept, 0, sizeof(kept));
	MemoryContextDelete(context);
}

static void
on_xact_event(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
			kept_subid = InvalidSubTransactionId;
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PARALLEL_ABORT:
		case XACT_EVENT_PREPARE:
			tick_events_forget();
			break;
		default:
			break;
	}
}

static void
on_subxact_event(SubXactEvent event, SubTransactionId subid, SubTransactionId parent, void *arg)
{
	if (kept.context == NULL || kept_subid == InvalidSubTransactionId)
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB && kept_subid == subid)
		kept_subid = parent;
	else if (event == SUBXACT_EVENT_ABORT_SUB && subid <= kept_subid)
		tick_events_forget();
}

static void
keep(Filling *filling)
{
	if (!callbacks_registered)
	{
		RegisterXactCallback(on_xact_event, NULL);
		RegisterSubXactCallback(on_subxact_event, NULL);
		callbacks_registered = true;
	}
	tick_events_forget();
	kept = filling->chunks;
	kept_subid = GetCurrentSubTransactionId();
	MemoryContextSetParent(kept.context, TopMemoryContext);
}

/* No chunks, in a context of their own, below the current one until they are kept. */
static void
filling_begin(Filling *filling, int64 after_tick, int64 upto_tick)
{
	Relation log = table_open(behavior_relid(REL_LOG), AccessShareLock);
	MemoryContext old;

	memset(filling, 0, sizeof(*filling));
	/* Of the subtransaction: where it fails, what is not kept goes with it. */
	filling->chunks.context = AllocSetContextCreate(CurTransactionContext, "behavior tick events",
													ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(filling->chunks.context);
	filling->chunks.desc = CreateTupleDescCopy(RelationGetDescr(log));
	filling->chunks.after_tick = after_tick;
	filling->chunks.upto_tick = upto_tick;
	filling->flat = MakeSingleTupleTableSlot(filling->chunks.desc, &TTSOpsVirtual);
	MemoryContextSwitchTo(old);
	table_close(log, AccessShareLock);
}

/* Hands all chunks to the callback, as often as it likes. */
static void
hand_over(Chunks *chunks, TickEventsCallback callback, void *arg)
{
	Chunks *before = handed;

	handed = chunks;
	PG_TRY();
	{
		for (int i = 0; i < chunks->count; i++)
		{
			TickEvents events = {0};

			events.store = chunks->chunks[i].store;
			events.desc = chunks->desc;
			events.count = chunks->chunks[i].count;
			events.after_tick = chunks->after_tick;
			events.upto_tick = chunks->upto_tick;
			events.more = i + 1 < chunks->count;
			callback(&events, arg);
		}
	}
	PG_FINALLY();
	{
		handed = before;
	}
	PG_END_TRY();
}

static void
drop_chunks(Chunks *chunks)
{
	while (chunks->count > 0)
		MemoryContextDelete(chunks->chunks[--chunks->count].context);
}

/* Starts another chunk; NULL when there are as many as may be, and nobody takes them. */
static Chunk *
next_chunk(Filling *filling)
{
	Chunks *chunks = &filling->chunks;
	Chunk *chunk;
	MemoryContext old;

	if (chunks->count == MAX_CHUNKS)
	{
		filling->overflow = true;
		if (filling->callback != NULL)
			hand_over(chunks, filling->callback, filling->arg);
		drop_chunks(chunks);
		if (filling->callback == NULL)
			return NULL;
	}
	chunk = &chunks->chunks[chunks->count++];
	chunk->context =
		GenerationContextCreate(chunks->context, "behavior tick events chunk",
								ALLOCSET_DEFAULT_MINSIZE, CHUNK_BLOCK_SIZE, CHUNK_BLOCK_SIZE);
	old = MemoryContextSwitchTo(chunk->context);
	chunk->store = tuplestore_begin_heap(false, true, MAX_KILOBYTES);
	tuplestore_set_eflags(chunk->store, EXEC_FLAG_REWIND);
	chunk->count = 0;
	chunk->rows = NULL;
	chunk->scanned = false;
	MemoryContextSwitchTo(old);
	return chunk;
}

/* The chunk for the next event; NULL when it is not to be stored. */
static Chunk *
chunk_with_room(Filling *filling)
{
	Chunks *chunks = &filling->chunks;
	Chunk *chunk = chunks->count > 0 ? &chunks->chunks[chunks->count - 1] : NULL;
	Size limit = (Size) maintenance_work_mem * 1024 * CHUNK_MEMORY_TIMES;

	if (filling->overflow && filling->callback == NULL)
		return NULL;
	if (chunk != NULL && chunk->count < TICK_EVENTS_CHUNK &&
		MemoryContextMemAllocated(chunk->context, true) < limit)
		return chunk;
	return next_chunk(filling);
}

/* The row with its toasted values fetched (compressed ones stay so); the caller frees them. */
static void
store_flat(Filling *filling, Tuplestorestate *store, TupleTableSlot *slot)
{
	void *fetched[LOG_NATTS];
	int nfetched = 0;

	slot_getallattrs(slot);
	ExecClearTuple(filling->flat);
	for (int i = 0; i < LOG_NATTS; i++)
	{
		filling->flat->tts_values[i] = slot->tts_values[i];
		filling->flat->tts_isnull[i] = slot->tts_isnull[i];
		if (i >= LOG_EVENT_ID - 1 && !slot->tts_isnull[i] &&
			VARATT_IS_EXTERNAL(DatumGetPointer(slot->tts_values[i])))
		{
			fetched[nfetched] =
				detoast_external_attr((struct varlena *) DatumGetPointer(slot->tts_values[i]));
			filling->flat->tts_values[i] = PointerGetDatum(fetched[nfetched++]);
		}
	}
	ExecStoreVirtualTuple(filling->flat);
	tuplestore_puttupleslot(store, filling->flat);
	ExecClearTuple(filling->flat);
	while (nfetched > 0)
		pfree(fetched[--nfetched]);
}

/* LogRowCallback */
static void
take_row(TupleTableSlot *slot, void *arg)
{
	Filling *filling = arg;
	TickEventsSummary *summary = &filling->summary;
	Chunk *chunk = chunk_with_room(filling);

	if (filling->summarize)
	{
		bool isnull;
		TimestampTz at = DatumGetTimestampTz(slot_getattr(slot, LOG_OCCURRED_AT, &isnull));

		if (summary->events == 0 || at < summary->first_occurred_at)
			summary->first_occurred_at = at;
		if (summary->events == 0 || at > summary->last_occurred_at)
			summary->last_occurred_at = at;
	}
	summary->events++;
	if (chunk == NULL)
		return;
	/* The reader's slot has a tuple, which tells without being deformed. */
	if (HeapTupleHasExternal(((BufferHeapTupleTableSlot *) slot)->base.tuple))
		store_flat(filling, chunk->store, slot);
	else
		tuplestore_puttupleslot(chunk->store, slot);
	chunk->count++;
}

void
tick_events_load(const BatchSet *batches, int64 tick_id, Snapshot snapshot,
				 TickEventsSummary *summary)
{
	Filling filling;

	filling_begin(&filling, tick_id - 1, tick_id);
	filling.summarize = true;
	log_read_batches(batches, snapshot, take_row, &filling);
	*summary = filling.summary;
	if (filling.overflow)
		MemoryContextDelete(filling.chunks.context);
	else
		keep(&filling);
}

void
tick_events_each(int64 after_tick, int64 upto_tick, Snapshot snapshot, TickEventsCallback callback,
				 void *arg)
{
	Filling filling;

	if (!tick_events_kept(after_tick) || kept.upto_tick != upto_tick)
	{
		filling_begin(&filling, after_tick, upto_tick);
		filling.callback = callback;
		filling.arg = arg;
		log_read_batches(tick_batches(snapshot, after_tick, upto_tick), snapshot, take_row,
						 &filling);
		if (filling.overflow)
		{
			hand_over(&filling.chunks, callback, arg);
			MemoryContextDelete(filling.chunks.context);
			return;
		}
		keep(&filling);
	}
	hand_over(&kept, callback, arg);
}

bool
tick_events_kept(int64 after_tick)
{
	return kept.context != NULL && kept.after_tick == after_tick;
}

const TickRows *
tick_events_rows(Tuplestorestate *store, bool by_type)
{
	for (int i = 0; handed != NULL && i < handed->count; i++)
	{
		Chunk *chunk = &handed->chunks[i];

		if (chunk->store != store)
			continue;
		/* One scan alone reads the tuplestore as fast as the list is made. */
		if (chunk->rows == NULL && (by_type || chunk->scanned))
			chunk->rows = tick_rows_make(store, handed->desc, chunk->count, chunk->context);
		chunk->scanned = true;
		return chunk->rows;
	}
	return NULL;
}

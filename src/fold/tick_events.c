/*
 * tick_events.c
 *		The events of some ticks, read once and handed to every projection that lacks them.
 *
 * A cut reads its events anyway, to say when the first and the last occurred,
 * and keeps them in a tuplestore; the folds that follow take them from there.
 * Each projection commits by itself, so what is kept outlives transactions:
 * rows are stored without pointers to toast, and the tuplestore lives in a context
 * of its own.  It is dropped when the (sub)transaction that cut the tick aborts, since
 * the tick's number is then given again to other batches.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/table.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "fold/tick.h"
#include "fold/tick_events.h"
#include "log/log_reader.h"
#include "log/log_row.h"

/* What is kept, NULL: nothing; and the subtransaction that it falls with, invalid once committed.
 */
static MemoryContext kept_context = NULL;
static TickEvents kept;
static SubTransactionId kept_subid = InvalidSubTransactionId;

static bool callbacks_registered = false;

/* Events on their way from the log into a tuplestore. */
typedef struct Filling
{
	TickEvents events;
	MemoryContext context;
	TupleTableSlot *flat; /* for rows with toasted values */
	bool keep;			  /* a cut: stop storing when there is more than a chunk */
	bool overflow;
	TickEventsSummary summary;
	TickEventsCallback callback;
	void *arg;
} Filling;

void
tick_events_forget(void)
{
	MemoryContext context = kept_context;

	if (context == NULL)
		return;
	kept_context = NULL;
	tuplestore_end(kept.store);
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
	if (kept_context == NULL || kept_subid == InvalidSubTransactionId)
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
	kept = filling->events;
	kept_context = filling->context;
	kept_subid = GetCurrentSubTransactionId();
	MemoryContextSetParent(kept_context, TopMemoryContext);
}

/* An empty tuplestore in a context of its own, below the current one until it is kept. */
static void
filling_begin(Filling *filling, int64 after_tick, int64 upto_tick)
{
	Relation log = table_open(behavior_relid(REL_LOG), AccessShareLock);
	MemoryContext old;

	memset(filling, 0, sizeof(*filling));
	filling->context =
		AllocSetContextCreate(CurrentMemoryContext, "behavior tick events", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(filling->context);
	filling->events.store = tuplestore_begin_heap(true, true, maintenance_work_mem);
	filling->events.desc = CreateTupleDescCopy(RelationGetDescr(log));
	filling->events.after_tick = after_tick;
	filling->events.upto_tick = upto_tick;
	filling->flat = MakeSingleTupleTableSlot(filling->events.desc, &TTSOpsVirtual);
	MemoryContextSwitchTo(old);
	table_close(log, AccessShareLock);
}

static void
filling_end(Filling *filling)
{
	tuplestore_end(filling->events.store);
	MemoryContextDelete(filling->context);
}

/* True when a value of the row lies in a toast table. */
static bool
has_external(TupleTableSlot *slot)
{
	for (int i = LOG_EVENT_ID - 1; i < LOG_NATTS; i++)
	{
		if (!slot->tts_isnull[i] && VARATT_IS_EXTERNAL(DatumGetPointer(slot->tts_values[i])))
			return true;
	}
	return false;
}

/* The row with its toasted values fetched (compressed ones stay so); the caller frees them. */
static void
store_flat(Filling *filling, TupleTableSlot *slot)
{
	void *fetched[LOG_NATTS];
	int nfetched = 0;

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
	tuplestore_puttupleslot(filling->events.store, filling->flat);
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

	slot_getallattrs(slot);
	if (filling->keep)
	{
		TimestampTz at = DatumGetTimestampTz(slot->tts_values[LOG_OCCURRED_AT - 1]);

		if (summary->events == 0 || at < summary->first_occurred_at)
			summary->first_occurred_at = at;
		if (summary->events == 0 || at > summary->last_occurred_at)
			summary->last_occurred_at = at;
	}
	summary->events++;
	if (filling->overflow && filling->keep)
		return;
	if (filling->events.count == TICK_EVENTS_CHUNK)
	{
		filling->overflow = true;
		if (!filling->keep)
			filling->callback(&filling->events, filling->arg);
		tuplestore_clear(filling->events.store);
		filling->events.count = 0;
		if (filling->keep)
			return;
	}

	if (has_external(slot))
		store_flat(filling, slot);
	else
		tuplestore_puttupleslot(filling->events.store, slot);
	filling->events.count++;
}

/*
 * Reads the events.  The tuplestore's files belong to no transaction, so an error has to close
 * them here.
 */
static void
fill(Filling *filling, const BatchSet *batches, Snapshot snapshot)
{
	PG_TRY();
	{
		log_read_batches(batches, snapshot, take_row, filling);
		if (filling->overflow && !filling->keep && filling->events.count > 0)
			filling->callback(&filling->events, filling->arg);
	}
	PG_CATCH();
	{
		filling_end(filling);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

void
tick_events_load(const BatchSet *batches, int64 tick_id, Snapshot snapshot,
				 TickEventsSummary *summary)
{
	Filling filling;

	filling_begin(&filling, tick_id - 1, tick_id);
	filling.keep = true;
	fill(&filling, batches, snapshot);
	*summary = filling.summary;
	if (filling.overflow)
		filling_end(&filling);
	else
		keep(&filling);
}

void
tick_events_each(int64 after_tick, int64 upto_tick, Snapshot snapshot, TickEventsCallback callback,
				 void *arg)
{
	Filling filling;
	BatchSet *batches;

	if (kept_context == NULL || kept.after_tick != after_tick || kept.upto_tick != upto_tick)
	{
		batches = tick_batches(snapshot, after_tick, upto_tick);
		filling_begin(&filling, after_tick, upto_tick);
		filling.callback = callback;
		filling.arg = arg;
		fill(&filling, batches, snapshot);
		if (filling.overflow)
		{
			filling_end(&filling);
			return;
		}
		keep(&filling);
	}
	if (kept.count > 0)
		callback(&kept, arg);
}

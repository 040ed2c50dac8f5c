/*
 * frame.c
 *		The stack of frames: what each running statement into a door has sent.
 *
 * A frame belongs to a query level.  PostgreSQL fires statement triggers once
 * per level, relation and command: of two CTEs that insert into behavior.event
 * the first to run fires BEFORE STATEMENT for both, and AFTER STATEMENT comes
 * once, when the query ends.  All triggers of one level are looked up (fmgr_info) in the
 * query's own memory context, so flinfo->fn_mcxt tells the row trigger
 * whose row it has, whatever runs in between: a function in VALUES or a trigger
 * that sends events while the outer statement runs is a level of its own.
 *
 * A query that its caller stops early (SPI with a row limit, as PL/Python's
 * plpy.execute(query, 1) uses) never fires AFTER STATEMENT.  What it sent up to there is
 * sent: the hook on ExecutorFinish finishes its frame.
 *
 * Frames live in contexts under TopTransactionContext and remember the
 * subtransaction they were pushed in; the callbacks drop those of what was aborted.
 * That no frame is left with rows at commit is checked, since losing events
 * silently would be the worst that can happen here.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/executor.h"
#include "lib/stringinfo.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "gate/event_type.h"
#include "ingest/dead_letter.h"
#include "ingest/frame_internal.h"
#include "ingest/lookup.h"

#define INITIAL_EXTENTS 4

int frame_hops = 0;
void (*frame_committed_hook)(void) = NULL;

static Frame *top_frame = NULL;
static bool accepted_events = false; /* in this transaction, perhaps rolled back since */
static bool callbacks_registered = false;
static ExecutorFinish_hook_type previous_executor_finish = NULL;

static void
unlink_frame(Frame *frame)
{
	Frame **link = &top_frame;

	while (*link != NULL && *link != frame)
		link = &(*link)->below;
	if (*link == frame)
		*link = frame->below;
}

static void
on_subxact(SubXactEvent event, SubTransactionId subid, SubTransactionId parent, void *arg)
{
	Frame **link = &top_frame;

	if (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB)
		return;

	while (*link != NULL)
	{
		Frame *frame = *link;

		if (frame->subid == subid && event == SUBXACT_EVENT_ABORT_SUB)
		{
			*link = frame->below;
			MemoryContextDelete(frame->context);
			continue;
		}
		if (frame->subid == subid)
			frame->subid = parent;
		link = &frame->below;
	}
	last_batch_on_subxact(event, subid, parent);
}

static void
on_xact(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			for (Frame *frame = top_frame; frame != NULL; frame = frame->below)
			{
				if (frame->counts.received > 0)
					elog(ERROR, "a statement that sent " INT64_FORMAT " events was never finished",
						 frame->counts.received);
			}
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			/* their memory goes with TopTransactionContext */
			top_frame = NULL;
			frame_hops = 0;
			if (accepted_events && event == XACT_EVENT_COMMIT && frame_committed_hook != NULL)
				frame_committed_hook();
			accepted_events = false;
			last_batch_on_xact(event);
			break;
		default:
			break;
	}
}

/* Finishes the frames of a query that ends without its AFTER STATEMENT triggers. */
static void
finish_query_frames(QueryDesc *query)
{
	Frame *frame;

	if (previous_executor_finish != NULL)
		previous_executor_finish(query);
	else
		standard_ExecutorFinish(query);

	if (top_frame != NULL && query->estate != NULL)
	{
		frame = frame_of_query(query->estate->es_query_cxt, REL_EVENT);
		if (frame != NULL)
			frame_finish(frame);
		frame = frame_of_query(query->estate->es_query_cxt, REL_INBOX);
		if (frame != NULL)
			frame_finish(frame);
	}
}

static void
register_callbacks(void)
{
	if (callbacks_registered)
		return;
	RegisterXactCallback(on_xact, NULL);
	RegisterSubXactCallback(on_subxact, NULL);
	previous_executor_finish = ExecutorFinish_hook;
	ExecutorFinish_hook = finish_query_frames;
	callbacks_registered = true;
}

int
frame_set_hops(int hops)
{
	int before = frame_hops;

	register_callbacks();
	frame_hops = hops;
	return before;
}

static Frame *
push(MemoryContext query, BehaviorRel door, MemoryContext receipts_context)
{
	MemoryContext context;
	Frame *frame;

	register_callbacks();

	/* the default sizes: such contexts are recycled, so that making one costs little */
	context =
		AllocSetContextCreate(TopTransactionContext, "behavior frame", ALLOCSET_DEFAULT_SIZES);
	frame = MemoryContextAllocZero(context, sizeof(Frame));
	frame->context = context;
	frame->query = query;
	frame->door = door;
	frame->receipts_context = receipts_context;
	frame->subid = GetCurrentSubTransactionId();
	frame->extents.max = INITIAL_EXTENTS;
	frame->extents.extents = MemoryContextAlloc(context, INITIAL_EXTENTS * sizeof(Extent));
	frame->below = top_frame;
	top_frame = frame;
	event_type_refresh();
	return frame;
}

Frame *
frame_push(bool keep_receipts)
{
	return push(NULL, REL_EVENT, keep_receipts ? CurrentMemoryContext : NULL);
}

Frame *
frame_push_again(void)
{
	Frame *frame = frame_push(true);

	frame->again = true;
	return frame;
}

void
frame_flush_now(Frame *frame)
{
	frame_flush(frame);
	dead_letters_write(frame->letters);
}

Frame *
frame_push_query(MemoryContext query, BehaviorRel door)
{
	Assert(query != NULL && frame_of_query(query, door) == NULL);
	return push(query, door, NULL);
}

Frame *
frame_of_query(MemoryContext query, BehaviorRel door)
{
	Frame *frame = top_frame;

	while (frame != NULL && (frame->query != query || frame->door != door))
		frame = frame->below;
	return frame;
}

/* Memory for the length of one step; whoever uses it resets it. */
MemoryContext
frame_scratch(Frame *frame)
{
	if (frame->scratch == NULL)
		frame->scratch =
			AllocSetContextCreate(frame->context, "behavior frame scratch", ALLOCSET_DEFAULT_SIZES);
	return frame->scratch;
}

int64
frame_batch_id(Frame *frame)
{
	if (frame->batch_id == 0)
		frame->batch_id = batch_next_id();
	return frame->batch_id;
}

/* Writes the batch row, with counts for each source when there are several. */
static void
write_batch(Frame *frame)
{
	Batch batch = {0};
	int64 *sender_ids = palloc(frame->nsources * sizeof(int64));
	BatchCounts *by_source = palloc(frame->nsources * sizeof(BatchCounts));

	for (int i = 0; i < frame->nsources; i++)
	{
		const SourceCounts *source = &frame->sources[i];

		sender_ids[i] = batch_sender(source->source.data, source->source.length);
		by_source[i] = source->counts;
	}

	batch.batch_id = frame->batch_id;
	batch.received_at = frame->received_at;
	batch.sender_id = sender_ids[0];
	batch.counts = frame->counts;
	batch.extents = frame->extents;
	if (frame->nsources > 1)
	{
		batch.nsources = frame->nsources;
		batch.sender_ids = sender_ids;
		batch.by_source = by_source;
	}
	batch_insert(&batch);
}

/* Tells the sender, once a statement, that something was not accepted. */
static void
report_refused(const Frame *frame)
{
	int64 refused = frame->counts.conflicts + frame->counts.dead_letters;
	StringInfoData reasons;

	if (refused == 0)
		return;

	initStringInfo(&reasons);
	for (int i = 0; i < lengthof(frame->reasons); i++)
	{
		if (frame->reasons[i] > 0)
			appendStringInfo(&reasons, "%s%s " INT64_FORMAT, reasons.len > 0 ? ", " : "",
							 reason_name((Reason) i), frame->reasons[i]);
	}
	ereport(NOTICE, (errmsg_plural("%lld event became a dead letter (%s)",
								   "%lld events became dead letters (%s)", (unsigned long) refused,
								   (long long) refused, reasons.data),
					 errhint("SELECT * FROM behavior.dead_letter WHERE batch_id = %lld shows them.",
							 (long long) frame->batch_id)));
}

void
frame_finish(Frame *frame)
{
	bool keep = frame->receipts_context != NULL;

	frame_flush_now(frame);
	accepted_events |= frame->counts.accepted > 0;
	if (frame->counts.received > 0)
	{
		MemoryContext old = MemoryContextSwitchTo(frame_scratch(frame));

		write_batch(frame);
		if (!frame->again)
			report_refused(frame);
		MemoryContextSwitchTo(old);
	}
	last_batch_set(frame->batch_id);
	if (frame->writer != NULL)
	{
		log_writer_end(frame->writer);
		frame->writer = NULL;
	}
	unlink_frame(frame);
	if (!keep)
		MemoryContextDelete(frame->context);
}

const char *
event_status_name(EventStatus status)
{
	static const char *const names[] = {[EVENT_PENDING] = "pending",
										[EVENT_ACCEPTED] = "accepted",
										[EVENT_DUPLICATE] = "duplicate",
										[EVENT_CONFLICT] = "conflict",
										[EVENT_DEAD_LETTER] = "dead_letter"};

	return names[status];
}

Receipt *
frame_receipts(Frame *frame, int *count)
{
	*count = frame->nreceipts;
	return frame->receipts;
}

/* Receipts themselves stay: they are in the caller's context. */
void
frame_free(Frame *frame)
{
	unlink_frame(frame);
	MemoryContextDelete(frame->context);
}

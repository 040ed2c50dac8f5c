/*
 * frame.h
 *		What one sending statement has sent so far: the way from every door into the log.
 *
 * BEFORE STATEMENT (or behavior.ingest()) pushes a frame, each row adds an event or a
 * dead letter to the frame of its query, AFTER STATEMENT finishes it: flush, batch row, pop.
 * Statements nest (functions, data-modifying CTEs), so there may be many at once, linked as a
 * stack; subtransaction and transaction callbacks drop the frames of what was aborted. A frame is
 * also flushed at FRAME_FLUSH_EVENTS or FRAME_FLUSH_BYTES, so a COPY of any size runs in constant
 * memory.  One frame, one batch row; no row, no batch row.
 *
 * A flush: partitions for all events -> event_key_claim, whose conflicts become dead letters ->
 * log_writer_append of the accepted ones.  Dead letters are written together, at the statement's
 * end or when they are many.  Lock order: generation
 * (shared) -> partition -> buckets ascending -> batch row.
 */
#ifndef BEHAVIOR_FRAME_H
#define BEHAVIOR_FRAME_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

#include "core/catalog.h"
#include "core/errors.h"
#include "log/batch.h"

/* Many, so that keys of one flush share pages of their index: a quarter of it costs 5 % more. */
#define FRAME_FLUSH_EVENTS 16384
#define FRAME_FLUSH_BYTES  (8 * 1024 * 1024)
#define EVENT_TEXT_MAX	   255 /* bytes of event_id, source, type, user_id, anonymous_id */

typedef struct TextField
{
	const char *data; /* NULL: not given.  UTF-8, not terminated */
	int length;
} TextField;

/* What an event that is sent again comes from. */
typedef struct EventOrigin
{
	int64 dead_letter_id;
	int attempts;			 /* so far */
	TimestampTz received_at; /* when it came first */
	TextField source;		 /* the default source then; NULL: the one of now */
} EventOrigin;

/* One event as its sender gave it; checks and defaults are frame_add_event()'s. */
typedef struct Event
{
	TextField event_id;
	TextField source;
	TextField type;
	TextField user_id;
	TextField anonymous_id;
	bool has_occurred_at;
	bool has_sequence;
	TimestampTz occurred_at;
	int64 sequence;
	Jsonb *properties;	 /* NULL: not given */
	Jsonb *context;		 /* NULL: not given */
	TextField payload;	 /* as it came, for a dead letter; NULL: made from the fields */
	TextField sent_with; /* a JSON object of what came and is not in the payload; mostly NULL */
	const EventOrigin *origin; /* stays until the frame is flushed; NULL: sent for the first time */
} Event;

typedef enum EventStatus
{
	EVENT_PENDING,
	EVENT_ACCEPTED,
	EVENT_DUPLICATE,
	EVENT_CONFLICT,
	EVENT_DEAD_LETTER
} EventStatus;

/* The name that receipts show. */
extern const char *event_status_name(EventStatus status);

typedef struct Receipt
{
	EventStatus status;
	Reason reason;
	char *event_id;		  /* generated ones too */
	int64 dead_letter_id; /* 0: none */
} Receipt;

typedef struct Frame Frame;

/* Pushes a frame.  With receipts, frame_receipts() answers after frame_finish(). */
extern Frame *frame_push(bool keep_receipts);

/*
 * The same for events that have an origin: what is wrong with them makes a dead letter whatever
 * behavior.on_invalid says, and no NOTICE tells of it.
 */
extern Frame *frame_push_again(void);

/* Brings what has been added into the log, writes the dead letters that wait, and frees it all. */
extern void frame_flush_now(Frame *frame);

/*
 * Pushes the frame of a query, which its triggers find again by the query's memory context
 * (EState.es_query_cxt) and the view.  A query level has one frame for each view, however many
 * of its nodes insert.
 */
extern Frame *frame_push_query(MemoryContext query, BehaviorRel door);
extern Frame *frame_of_query(MemoryContext query, BehaviorRel door); /* NULL when there is none */

/*
 * Adds an event: fills defaults, checks it, copies it.  Everything that is wrong with it
 * makes a dead letter, or raises under behavior.on_invalid = error.
 * event_id, received_at: out, may be NULL; what RETURNING shows.
 */
extern void
frame_add_event(Frame *frame, const Event *event, TextField *event_id, TimestampTz *received_at);

/* Adds something that never became an event (broken JSON, an unknown field). "known" holds the
 * fields found so far, for the dead letter's columns. */
extern void frame_add_invalid(Frame *frame, Reason reason, const char *detail, const Event *known);

extern int64 frame_batch_id(Frame *frame);

/* Flushes, writes the batch row, sends the NOTICE, pops.  Counts stay readable by last_batch(). */
extern void frame_finish(Frame *frame);

/* Receipts in the order of adding; valid in the context that was current at frame_push(). */
extern Receipt *frame_receipts(Frame *frame, int *count);

/*
 * Events sent from now on get this hop count: 0 outside of handlers, in a handler one more than the
 * most of the events that it was called with.  More than behavior.max_hops is refused (loop).
 * Returns what it was, for the caller to set again on whichever way the handler ends; the end of
 * the transaction sets it to 0.
 */
extern int frame_set_hops(int hops);

/* Called behind the commit of a transaction that sent accepted events, when it is set.  Must not
 * raise. */
extern void (*frame_committed_hook)(void);

/* Frees what frame_finish left for frame_receipts(). */
extern void frame_free(Frame *frame);

#endif

/*
 * frame_internal.h
 *		Inside of a frame: shared by frame.c, frame_add.c and frame_flush.c only.
 */
#ifndef BEHAVIOR_FRAME_INTERNAL_H
#define BEHAVIOR_FRAME_INTERNAL_H

#include "access/xact.h"
#include "core/errors.h"
#include "ingest/event_key.h"
#include "ingest/frame.h"
#include "log/batch.h"
#include "log/log_writer.h"

/* Memory that is handed out in sequence and taken back all at once, at the flush. */
typedef struct ArenaChunk
{
	struct ArenaChunk *next;
	size_t size; /* usable bytes behind the header */
	size_t used;
} ArenaChunk;

/* What one frame has sent of one source. */
typedef struct SourceCounts
{
	TextField source; /* in the frame's context */
	BatchCounts counts;
} SourceCounts;

/* What the flush has to know of an accepted-so-far event besides its row. */
typedef struct PendingEvent
{
	int source;			/* index into Frame.sources */
	int receipt;		/* index into Frame.receipts, -1: none kept */
	KeyVerdict verdict; /* filled by the flush */
	bool given_source;	/* which of the columns with defaults the sender gave: */
	bool given_occurred_at;
	bool given_properties;
	bool generated_id;
	TextField payload;	 /* as it came, in the arena; data NULL: made from the row */
	TextField sent_with; /* in the arena */
	const EventOrigin *origin;
} PendingEvent;

struct Frame
{
	Frame *below;
	MemoryContext context;		/* everything of the frame; child of TopTransactionContext */
	MemoryContext query;		/* es_query_cxt of the query it belongs to, NULL: of a function */
	BehaviorRel door;			/* the view that the query sends to */
	bool again;					/* of events that have an origin */
	MemoryContext scratch;		/* reset after each flush and each dead letter; NULL until needed */
	MemoryContext line_context; /* reset after each line of copy_ahead(); NULL until needed */
	SubTransactionId subid;

	/* what it has done so far */
	int64 batch_id;			 /* 0: none taken yet */
	TimestampTz received_at; /* of the first row */
	BatchCounts counts;
	int64 reasons[REASON_COUNT];
	SourceCounts *sources;
	int nsources;
	int max_sources;
	int last_source;		   /* of the row before: most statements have one */
	struct HTAB *source_index; /* NULL while sources are few */
	ExtentList extents;
	LogWriter *writer;			 /* NULL until the first flush */
	struct DeadLetters *letters; /* that wait to be written; NULL: there were none */

	/* events that wait for the flush: arrays with the same index, and their bytes */
	int npending;
	int max_pending;
	LogRow *rows;
	EventKey *keys;
	PendingEvent *pending;
	LogPartition *parts; /* where each goes; filled by the flush */
	size_t pending_bytes;
	ArenaChunk *arena;	 /* the chunk in use, linked to the full ones */
	ArenaChunk *spare;	 /* unused ones, all of the largest usual size */
	TextField sent_with; /* of the event before that had one, in the arena */

	HeapTuple empty_tuple; /* what COPY into behavior.event gets back, see event.c */

	/* receipts, in the order of adding */
	MemoryContext receipts_context; /* NULL: none are kept */
	Receipt *receipts;
	int nreceipts;
	int max_receipts;
};

/* frame.c */
extern int frame_hops; /* of events sent now; 0: no handler runs */
extern MemoryContext frame_scratch(Frame *frame);

/* frame_add.c */
extern void *frame_alloc(Frame *frame, size_t size);
extern void frame_give_back(Frame *frame, const char *end);
extern void frame_reset_arena(Frame *frame);

/* frame_row.c: fills *row, for an event that was checked; what it points to is in the arena. */
extern void frame_form_row(Frame *frame, const Event *event, const TextField *event_id,
						   const TextField *source, TimestampTz now, LogRow *row);

/*
 * Adds an event and returns its row, NULL when it became a dead letter.  The row and what it
 * points to stay until the frame's next event.
 */
extern const LogRow *
frame_add(Frame *frame, const Event *event, TextField *event_id, TimestampTz *received_at);

/*
 * Stores a dead letter for "event" as it was given and counts it; raises instead under
 * behavior.on_invalid = error.  errors: NULL, or what goes to dead_letter.errors.
 */
extern void frame_refuse(Frame *frame, Reason reason, const char *message, Jsonb *errors,
						 const Event *event, int source, int receipt);

/* frame_flush.c */
extern void frame_flush(Frame *frame);

#endif

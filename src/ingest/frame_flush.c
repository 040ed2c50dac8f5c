/*
 * frame_flush.c
 *		Brings the events that a frame has gathered into the log.
 *
 * Partitions first (making one may wait, and nothing may be held then), then the keys,
 * then the rows whose keys were new.  Conflicts become dead letters, which are written with the
 * others of the statement.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "ingest/frame_internal.h"

#define BULK_EVENTS 4096 /* accepted or known before make a statement a large one */

/* The partition of each row; neighbours mostly share one. */
static void
find_partitions(Frame *frame)
{
	LogPartition *parts = frame->parts;

	for (int i = 0; i < frame->npending; i++)
	{
		TimestampTz occurred_at = DatumGetTimestampTz(frame->rows[i].values[LOG_OCCURRED_AT - 1]);

		if (i > 0 && !parts[i - 1].is_default && occurred_at >= parts[i - 1].lower &&
			occurred_at < parts[i - 1].upper)
			parts[i] = parts[i - 1];
		else
			log_partition_for(occurred_at, &parts[i]);
	}
}

static TextField
text_field(const LogRow *row, int column)
{
	TextField field = {NULL, 0};

	if (!row->isnull[column - 1])
	{
		struct varlena *value = (struct varlena *) DatumGetPointer(row->values[column - 1]);

		field.data = VARDATA_ANY(value);
		field.length = VARSIZE_ANY_EXHDR(value);
	}
	return field;
}

/* The event as it was given, back from its row. */
static void
event_from_row(const LogRow *row, const PendingEvent *pending, Event *event)
{
	memset(event, 0, sizeof(*event));
	event->event_id = text_field(row, LOG_EVENT_ID);
	if (pending->given_source)
		event->source = text_field(row, LOG_SOURCE);
	event->type = text_field(row, LOG_TYPE);
	event->user_id = text_field(row, LOG_USER_ID);
	event->anonymous_id = text_field(row, LOG_ANONYMOUS_ID);
	event->has_occurred_at = pending->given_occurred_at;
	event->occurred_at = DatumGetTimestampTz(row->values[LOG_OCCURRED_AT - 1]);
	event->has_sequence = !row->isnull[LOG_SEQUENCE - 1];
	if (event->has_sequence)
		event->sequence = DatumGetInt64(row->values[LOG_SEQUENCE - 1]);
	if (pending->given_properties)
		event->properties = DatumGetJsonbP(row->values[LOG_PROPERTIES - 1]);
	if (!row->isnull[LOG_CONTEXT - 1])
		event->context = DatumGetJsonbP(row->values[LOG_CONTEXT - 1]);
	event->payload = pending->payload;
	event->sent_with = pending->sent_with;
	event->origin = pending->origin;
}

static void
refuse_conflict(Frame *frame, int i)
{
	Event event;

	event_from_row(&frame->rows[i], &frame->pending[i], &event);
	frame_refuse(frame, REASON_ID_CONFLICT,
				 "an event with this event_id and another payload is already there", NULL, &event,
				 frame->pending[i].source, frame->pending[i].receipt);
}

static void
set_receipt(Frame *frame, int receipt, EventStatus status)
{
	if (receipt >= 0)
		frame->receipts[receipt].status = status;
}

/* Counts what became of each event, and moves the accepted ones to the front. */
static int
settle(Frame *frame)
{
	int accepted = 0;

	for (int i = 0; i < frame->npending; i++)
		frame->pending[frame->keys[i].ordinal].verdict = frame->keys[i].verdict;

	for (int i = 0; i < frame->npending; i++)
	{
		PendingEvent *pending = &frame->pending[i];
		BatchCounts *by_source = &frame->sources[pending->source].counts;

		switch (pending->verdict)
		{
			case KEY_NEW:
				frame->counts.accepted++;
				by_source->accepted++;
				set_receipt(frame, pending->receipt, EVENT_ACCEPTED);
				if (accepted != i)
				{
					frame->rows[accepted] = frame->rows[i];
					frame->parts[accepted] = frame->parts[i];
				}
				accepted++;
				break;
			case KEY_DUPLICATE:
				frame->counts.duplicates++;
				by_source->duplicates++;
				set_receipt(frame, pending->receipt, EVENT_DUPLICATE);
				break;
			case KEY_CONFLICT:
				/* the letter is formed here, while the row still stands where it was */
				refuse_conflict(frame, i);
				break;
		}
	}
	return accepted;
}

void
frame_flush(Frame *frame)
{
	MemoryContext old;
	int accepted;

	if (frame->npending == 0)
		return;

	if (frame->writer == NULL)
	{
		old = MemoryContextSwitchTo(frame->context);
		frame->writer = log_writer_begin();
		MemoryContextSwitchTo(old);
	}

	old = MemoryContextSwitchTo(frame_scratch(frame));
	find_partitions(frame);
	event_key_claim(frame->keys, frame->npending, frame_batch_id(frame),
					frame->counts.accepted + frame->counts.duplicates >= BULK_EVENTS);
	accepted = settle(frame);
	if (accepted > 0)
		log_writer_append(frame->writer, frame->rows, frame->parts, accepted, &frame->extents);
	MemoryContextSwitchTo(old);
	MemoryContextReset(frame->scratch);

	frame->npending = 0;
	frame->pending_bytes = 0;
	frame->sent_with.length = 0;
	frame_reset_arena(frame);
}

/*
 * event.c
 *		behavior.event: the row trigger.
 *
 * Values are read from the executor's slot, without deforming the tuple that it made for the
 * trigger.  RETURNING wants the columns that the server fills in, so the trigger returns a tuple of
 * its own.  It has to be another one than it was given in any case: the executor frees the given
 * tuple only then, and otherwise keeps one for each row until the statement ends.
 *
 * COPY looks at no column of what comes back, so it gets the same empty tuple for every row.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "executor/tuptable.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "ingest/copy_ahead.h"
#include "ingest/door.h"
#include "ingest/event.h"
#include "ingest/frame_internal.h"

PG_FUNCTION_INFO_V1(behavior__event_row);

static const int event_to_log[EVENT_NATTS] = {
	[EVENT_EVENT_ID - 1] = LOG_EVENT_ID,
	[EVENT_SOURCE - 1] = LOG_SOURCE,
	[EVENT_TYPE - 1] = LOG_TYPE,
	[EVENT_USER_ID - 1] = LOG_USER_ID,
	[EVENT_ANONYMOUS_ID - 1] = LOG_ANONYMOUS_ID,
	[EVENT_OCCURRED_AT - 1] = LOG_OCCURRED_AT,
	[EVENT_SEQUENCE - 1] = LOG_SEQUENCE,
	[EVENT_PROPERTIES - 1] = LOG_PROPERTIES,
	[EVENT_CONTEXT - 1] = LOG_CONTEXT,
	[EVENT_RECEIVED_AT - 1] = LOG_RECEIVED_AT,
	[EVENT_BATCH_ID - 1] = LOG_BATCH_ID,
};

static TextField
text_column(const Datum *values, const bool *isnull, int column)
{
	TextField field = {NULL, 0};

	if (!isnull[column - 1])
	{
		text *value = DatumGetTextPP(values[column - 1]);

		field.data = VARDATA_ANY(value);
		field.length = VARSIZE_ANY_EXHDR(value);
	}
	return field;
}

static void
event_from_values(const Datum *values, const bool *isnull, Event *event)
{
	event->event_id = text_column(values, isnull, EVENT_EVENT_ID);
	event->source = text_column(values, isnull, EVENT_SOURCE);
	event->type = text_column(values, isnull, EVENT_TYPE);
	event->user_id = text_column(values, isnull, EVENT_USER_ID);
	event->anonymous_id = text_column(values, isnull, EVENT_ANONYMOUS_ID);
	event->has_occurred_at = !isnull[EVENT_OCCURRED_AT - 1];
	event->occurred_at =
		event->has_occurred_at ? DatumGetTimestampTz(values[EVENT_OCCURRED_AT - 1]) : 0;
	event->has_sequence = !isnull[EVENT_SEQUENCE - 1];
	event->sequence = event->has_sequence ? DatumGetInt64(values[EVENT_SEQUENCE - 1]) : 0;
	event->properties =
		isnull[EVENT_PROPERTIES - 1] ? NULL : DatumGetJsonbP(values[EVENT_PROPERTIES - 1]);
	event->context = isnull[EVENT_CONTEXT - 1] ? NULL : DatumGetJsonbP(values[EVENT_CONTEXT - 1]);
	event->payload.data = NULL;
	event->payload.length = 0;
	event->sent_with.data = NULL;
	event->sent_with.length = 0;
	event->origin = NULL;
}

/* Completes the row for RETURNING: as stored, or as given with what the server added. */
static void
complete_values(Datum *values, bool *isnull, const LogRow *row, TimestampTz received_at,
				int64 batch_id)
{
	if (row != NULL)
	{
		for (int i = 0; i < EVENT_NATTS; i++)
		{
			if (event_to_log[i] != 0)
			{
				values[i] = row->values[event_to_log[i] - 1];
				isnull[i] = row->isnull[event_to_log[i] - 1];
			}
		}
	}
	else
	{
		values[EVENT_RECEIVED_AT - 1] = TimestampTzGetDatum(received_at);
		isnull[EVENT_RECEIVED_AT - 1] = false;
		values[EVENT_BATCH_ID - 1] = Int64GetDatum(batch_id);
		isnull[EVENT_BATCH_ID - 1] = false;
	}
	if (!isnull[EVENT_USER_ID - 1])
		values[EVENT_ACTOR - 1] = values[EVENT_USER_ID - 1];
	else
		values[EVENT_ACTOR - 1] = values[EVENT_ANONYMOUS_ID - 1];
	isnull[EVENT_ACTOR - 1] = isnull[EVENT_USER_ID - 1] && isnull[EVENT_ANONYMOUS_ID - 1];
	values[EVENT_TICK_ID - 1] = (Datum) 0;
	isnull[EVENT_TICK_ID - 1] = true;
}

/*
 * INSTEAD OF INSERT ROW.
 */
Datum
behavior__event_row(PG_FUNCTION_ARGS)
{
	Frame *frame = door_row_frame(fcinfo, REL_EVENT);
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleTableSlot *slot = trigger->tg_trigslot;
	const LogRow *row;
	TimestampTz received_at;
	Event event;
	Datum values[EVENT_NATTS];
	bool isnull[EVENT_NATTS];

	slot_getallattrs(slot);
	event_from_values(slot->tts_values, slot->tts_isnull, &event);
	row = frame_add(frame, &event, NULL, &received_at);

	if (door_in_copy())
	{
		copy_ahead(frame, trigger->tg_relation, copy_take_event);
		return PointerGetDatum(door_empty_tuple(frame, trigger->tg_relation));
	}

	memcpy(values, slot->tts_values, sizeof(values));
	memcpy(isnull, slot->tts_isnull, sizeof(isnull));
	complete_values(values, isnull, row, received_at, frame_batch_id(frame));
	return PointerGetDatum(heap_form_tuple(RelationGetDescr(trigger->tg_relation), values, isnull));
}

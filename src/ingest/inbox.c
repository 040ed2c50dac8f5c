/*
 * inbox.c
 *		behavior.inbox: JSON events as lines of text.
 *
 * A row holds events one after the other, or arrays of them; a blank row holds
 * none.  Nothing that a row says raises, unless behavior.on_invalid asks for it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "executor/tuptable.h"
#include "fmgr.h"

#include "core/json.h"
#include "ingest/copy_ahead.h"
#include "ingest/door.h"
#include "ingest/envelope.h"

#define INBOX_MAX_ROW	(64 * 1024 * 1024) /* bytes; the limit of an event is a setting */
#define BYTE_ORDER_MARK "\xEF\xBB\xBF"

#define COPY_HINT                                                                                  \
	"COPY's text format removes backslashes before the extension sees a line: load JSON "          \
	"lines with behavior-load, or WITH (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02')"

PG_FUNCTION_INFO_V1(behavior__inbox_row);

/* Refuses text[start..length) in one piece. */
static void
refuse_rest(Frame *frame, Reason reason, const char *detail, const char *text, size_t start,
			size_t length)
{
	Event event = {0};

	event.payload.data = text + start;
	event.payload.length = length - start;
	frame_add_invalid(frame, reason, detail, &event);
}

static void
add_row(Frame *frame, const char *text, size_t length)
{
	size_t offset = 0;

	if (length >= strlen(BYTE_ORDER_MARK) &&
		memcmp(text, BYTE_ORDER_MARK, strlen(BYTE_ORDER_MARK)) == 0)
		offset = strlen(BYTE_ORDER_MARK);
	while (offset < length && strchr(" \t\r\n", text[offset]) != NULL)
		offset++;

	if (length > INBOX_MAX_ROW)
	{
		char detail[100];

		snprintf(detail, sizeof(detail), "the row has %zu bytes, more than a row may have (%d)",
				 length, INBOX_MAX_ROW);
		refuse_rest(frame, REASON_TOO_LARGE, detail, text, offset, length);
		return;
	}

	while (offset < length)
	{
		size_t start = offset;
		JsonError error;
		JsonNode *node;

		if (envelope_add_native(frame, text, length, &offset))
			continue;
		node = json_parse(text, length, &offset, &error);
		if (node == NULL)
		{
			const char *detail = error.message;

			if (door_in_copy())
				detail = psprintf("%s; %s", error.message, COPY_HINT);
			refuse_rest(frame, error.reason, detail, text, start, length);
			return;
		}
		envelope_add(frame, node, text, length, NULL);
	}
}

/* A line of a COPY that needs no parsing by COPY. */
static bool
take_line(Frame *frame, CopyFromState copy, const char *line, size_t length)
{
	if (!copy_line_is_plain(copy, line, length))
		return false;
	add_row(frame, line, length);
	return true;
}

/*
 * INSTEAD OF INSERT ROW.
 */
Datum
behavior__inbox_row(PG_FUNCTION_ARGS)
{
	Frame *frame = door_row_frame(fcinfo, REL_INBOX);
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	bool isnull;
	Datum payload = slot_getattr(trigger->tg_trigslot, 1, &isnull);

	if (isnull && door_in_copy())
	{
		/* What COPY's csv format makes of a blank line: no event. */
	}
	else if (isnull)
	{
		Event event = {0};

		event.payload.data = "";
		frame_add_invalid(frame, REASON_MISSING_FIELD, "payload is NULL", &event);
	}
	else
	{
		text *value = DatumGetTextPP(payload);

		add_row(frame, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
	}
	if (door_in_copy())
	{
		copy_ahead(frame, trigger->tg_relation, take_line);
		return PointerGetDatum(door_empty_tuple(frame, trigger->tg_relation));
	}
	return PointerGetDatum(heap_copytuple(trigger->tg_trigtuple));
}

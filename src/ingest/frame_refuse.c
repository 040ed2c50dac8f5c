/*
 * frame_refuse.c
 *		What becomes of an event that is refused: a dead letter, or an error.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "core/compat.h"
#include "core/guc.h"
#include "core/json.h"
#include "ingest/dead_letter.h"
#include "ingest/frame_internal.h"

#define MAX_JSONB_AS_TEXT (64 * 1024 * 1024) /* a larger one might not fit a string as text */

static char *
clipped(const TextField *field, int limit)
{
	int length;
	char *copy;

	if (field->data == NULL)
		return NULL;
	length =
		field->length <= limit ? field->length : pg_mbcliplen(field->data, field->length, limit);
	copy = palloc(length + 1);
	memcpy(copy, field->data, length);
	copy[length] = '\0';
	return copy;
}

static void
append_name(StringInfo json, const char *name)
{
	appendStringInfo(json, "%s\"%s\": ", json->len > 1 ? ", " : "", name);
}

static void
append_text(StringInfo json, const char *name, const TextField *field)
{
	if (field->data == NULL)
		return;
	append_name(json, name);
	escape_json(json, clipped(field, DEAD_LETTER_MAX_PAYLOAD));
}

/* False when it is too large to be shown. */
static bool
append_jsonb(StringInfo json, const char *name, Jsonb *jsonb)
{
	if (jsonb == NULL)
		return true;
	append_name(json, name);
	if (VARSIZE(jsonb) > MAX_JSONB_AS_TEXT)
	{
		appendStringInfo(json, "\"(%u bytes)\"", (unsigned int) VARSIZE(jsonb));
		return false;
	}
	(void) JsonbToCString(json, &jsonb->root, VARSIZE(jsonb));
	return true;
}

/*
 * The columns that were given, as a JSON object: what the JSON door would take.  False when
 * something is not in it.
 */
static bool
event_as_json(const Event *event, StringInfo json)
{
	bool whole;

	initStringInfo(json);
	appendStringInfoChar(json, '{');
	append_text(json, "event_id", &event->event_id);
	append_text(json, "source", &event->source);
	append_text(json, "type", &event->type);
	append_text(json, "user_id", &event->user_id);
	append_text(json, "anonymous_id", &event->anonymous_id);
	if (event->has_occurred_at)
	{
		char buffer[MAXDATELEN + 1];
		int utc = 0;

		append_name(json, "occurred_at");
		appendStringInfo(json, "\"%s\"",
						 JsonEncodeDateTime(buffer, TimestampTzGetDatum(event->occurred_at),
											TIMESTAMPTZOID, &utc));
	}
	if (event->has_sequence)
	{
		append_name(json, "sequence");
		appendStringInfo(json, INT64_FORMAT, event->sequence);
	}
	whole = append_jsonb(json, "properties", event->properties);
	whole &= append_jsonb(json, "context", event->context);
	appendStringInfoChar(json, '}');
	return whole;
}

/* What redrive has to know besides the payload: what came with it, and the default source. */
static Jsonb *
complete_sent_with(const Event *event, const TextField *source)
{
	TextField with = event->sent_with;
	StringInfoData json;
	size_t offset = 0;
	JsonError error;
	JsonNode *node;

	if (event->source.length == 0)
	{
		initStringInfo(&json);
		if (with.length > 0)
			appendBinaryStringInfo(&json, with.data, with.length - 1);
		else
			appendStringInfoChar(&json, '{');
		append_text(&json, "source", source);
		appendStringInfoChar(&json, '}');
		with.data = json.data;
		with.length = json.len;
	}
	if (with.length == 0)
		return NULL;
	node = json_parse(with.data, with.length, &offset, &error);
	return node == NULL || node->flaw != NULL ? NULL : json_to_jsonb(node);
}

/* What to do about it. */
static const char *
hint_for(Reason reason)
{
	switch (reason)
	{
		case REASON_MISSING_FIELD:
			return "Give every event a type, and leave event_id out rather than empty.";
		case REASON_TOO_LARGE:
			return "Ids and names hold at most 255 bytes, an event as many as behavior.max_event_size.";
		case REASON_IN_FUTURE:
			return "Correct the sender's clock, or raise behavior.max_future.";
		case REASON_TOO_OLD:
			return "Raise behavior.max_past, or set it to -1, to take events of any age.";
		case REASON_ID_CONFLICT:
			return "Give each event an event_id of its own; a retry must send the same payload.";
		case REASON_LOOP:
			return "Narrow the subscription's pattern so that it does not match what its handler sends, or raise behavior.max_hops.";
		case REASON_SCHEMA_VIOLATION:
			return "behavior.event_type shows the schema, behavior.alter_event_type() changes it.";
		case REASON_UNKNOWN_TYPE:
			return "Declare the type with behavior.create_event_type(), or set behavior.unknown_type to accept.";
		default:
			return "Set behavior.on_invalid to dead_letter to keep such events in behavior.dead_letter and go on.";
	}
}

pg_noreturn static void
raise_refused(Reason reason, const char *message, const Event *event)
{
	char *source = clipped(&event->source, EVENT_TEXT_MAX);
	char *event_id = clipped(&event->event_id, EVENT_TEXT_MAX);

	if (source == NULL || source[0] == '\0')
		source = behavior_default_source;
	ereport(ERROR,
			(errcode(reason_sqlstate(reason)), errmsg("event refused: %s", message),
			 event_id != NULL ? errdetail("Source is \"%s\", event_id is \"%s\", reason is %s.",
										  source, event_id, reason_name(reason))
							  : errdetail("Source is \"%s\", there is no event_id, reason is %s.",
										  source, reason_name(reason)),
			 errhint("%s", hint_for(reason))));
}

void
frame_refuse(Frame *frame, Reason reason, const char *message, Jsonb *errors, const Event *event,
			 int source, int receipt)
{
	BatchCounts *by_source = &frame->sources[source].counts;
	MemoryContext temporary;
	MemoryContext old;
	DeadLetter letter = {0};
	StringInfoData json;
	int64 id;

	if (behavior_on_invalid == ON_INVALID_ERROR && !frame->again)
		raise_refused(reason, message, event);

	temporary =
		AllocSetContextCreate(frame->context, "behavior dead letter", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(temporary);
	letter.batch_id = frame_batch_id(frame);
	letter.stage = "ingest";
	letter.reason = reason;
	letter.detail = message;
	letter.source = clipped(
		event->source.length > 0 ? &event->source : &frame->sources[source].source, EVENT_TEXT_MAX);
	letter.type = clipped(&event->type, EVENT_TEXT_MAX);
	letter.event_id = clipped(&event->event_id, EVENT_TEXT_MAX);
	if (event->payload.data != NULL)
	{
		letter.payload = event->payload.data;
		letter.payload_length = event->payload.length;
	}
	else
	{
		letter.payload_abridged = !event_as_json(event, &json);
		letter.payload = json.data;
		letter.payload_length = json.len;
	}
	letter.errors = errors;
	letter.sent_with = complete_sent_with(event, &frame->sources[source].source);
	if (event->origin != NULL)
	{
		letter.attempts = event->origin->attempts + 1;
		letter.previous = event->origin->dead_letter_id;
		letter.received_at = event->origin->received_at;
	}
	id = dead_letters_add(&frame->letters, frame->context, &letter);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(temporary);

	frame->reasons[reason]++;
	if (reason == REASON_ID_CONFLICT)
	{
		frame->counts.conflicts++;
		by_source->conflicts++;
	}
	else
	{
		frame->counts.dead_letters++;
		by_source->dead_letters++;
	}
	if (receipt >= 0)
	{
		frame->receipts[receipt].status =
			reason == REASON_ID_CONFLICT ? EVENT_CONFLICT : EVENT_DEAD_LETTER;
		frame->receipts[receipt].reason = reason;
		frame->receipts[receipt].dead_letter_id = id;
	}
}

/*
 * session_event.c
 *		An event's part in a session: who, when, which page, what brought the visitor.
 *
 * Everything is copied into the current context: the row is gone when the next one comes.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "fold/session.h"
#include "log/log_row.h"

static const char *const campaign_prefix = "utm_";

/* A text value, copied; none when it is NULL. */
static Bytes
copy_text(TupleTableSlot *slot, int attribute)
{
	Bytes bytes = {NULL, 0};
	text *value;
	char *copy;

	if (slot->tts_isnull[attribute - 1])
		return bytes;
	value = DatumGetTextPP(slot->tts_values[attribute - 1]);
	bytes.length = VARSIZE_ANY_EXHDR(value);
	copy = palloc(bytes.length + 1);
	memcpy(copy, VARDATA_ANY(value), bytes.length);
	bytes.data = copy;
	if ((Pointer) value != DatumGetPointer(slot->tts_values[attribute - 1]))
		pfree(value);
	return bytes;
}

/* Where a text value lies, for looking at it only.  These columns are too short to be toasted. */
static Bytes
peek_text(TupleTableSlot *slot, int attribute)
{
	Bytes bytes = {NULL, 0};

	if (!slot->tts_isnull[attribute - 1])
	{
		text *value = DatumGetTextPP(slot->tts_values[attribute - 1]);

		bytes.data = VARDATA_ANY(value);
		bytes.length = VARSIZE_ANY_EXHDR(value);
	}
	return bytes;
}

static bool
ignored(const SessionSettings *settings, Bytes type)
{
	ListCell *lc;

	foreach (lc, settings->ignore)
	{
		const char *name = lfirst(lc);

		if (strlen(name) == type.length && memcmp(name, type.data, type.length) == 0)
			return true;
	}
	return false;
}

/* A member that is not null. */
static JsonbValue *
member(JsonbContainer *object, const char *name, JsonbValue *result)
{
	JsonbValue *value = getKeyJsonValueFromContainer(object, name, strlen(name), result);

	return value != NULL && value->type != jbvNull ? value : NULL;
}

/* The page: the first of the names under which a string or a number stands. */
static Bytes
find_page(const SessionSettings *settings, Jsonb *properties)
{
	Bytes page = {NULL, 0};
	ListCell *lc;

	foreach (lc, settings->pages)
	{
		JsonbValue buffer;
		JsonbValue *value = member(&properties->root, lfirst(lc), &buffer);

		if (value != NULL && value->type == jbvString)
		{
			page.data = value->val.string.val;
			page.length = value->val.string.len;
			break;
		}
		if (value != NULL && value->type == jbvNumeric)
		{
			page.data = DatumGetCString(
				DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
			page.length = strlen(page.data);
			break;
		}
	}
	return page;
}

/*
 * A property by its name, else from the campaign of Segment's context, which says "source"
 * for utm_source and "name" for utm_campaign.
 */
static JsonbValue *
find_property(Jsonb *properties, JsonbContainer *campaign, const char *name, JsonbValue *buffer)
{
	JsonbValue *value = member(&properties->root, name, buffer);

	if (value == NULL && campaign != NULL)
	{
		value = member(campaign, name, buffer);
		if (value == NULL && strncmp(name, campaign_prefix, strlen(campaign_prefix)) == 0)
		{
			const char *short_name = name + strlen(campaign_prefix);

			value =
				member(campaign, strcmp(short_name, "campaign") == 0 ? "name" : short_name, buffer);
		}
	}
	return value;
}

/* The object of those session properties that the event has; NULL when it has none. */
static Jsonb *
find_properties(const SessionSettings *settings, Jsonb *properties, Jsonb *context)
{
	JsonbParseState *state = NULL;
	JsonbContainer *campaign = NULL;
	JsonbValue campaign_value;
	ListCell *lc;

	if (context != NULL && JB_ROOT_IS_OBJECT(context))
	{
		JsonbValue *value = member(&context->root, "campaign", &campaign_value);

		if (value != NULL && value->type == jbvBinary &&
			JsonContainerIsObject(value->val.binary.data))
			campaign = value->val.binary.data;
	}

	foreach (lc, settings->properties)
	{
		const char *name = lfirst(lc);
		JsonbValue buffer;
		JsonbValue key;
		JsonbValue *value = find_property(properties, campaign, name, &buffer);

		if (value == NULL)
			continue;
		if (state == NULL)
			pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		key.type = jbvString;
		key.val.string.val = unconstify(char *, name);
		key.val.string.len = strlen(name);
		pushJsonbValue(&state, WJB_KEY, &key);
		pushJsonbValue(&state, WJB_VALUE, value);
	}
	if (state == NULL)
		return NULL;
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static Jsonb *
copy_jsonb(const Jsonb *jsonb)
{
	Jsonb *copy = palloc(VARSIZE(jsonb));

	memcpy(copy, jsonb, VARSIZE(jsonb));
	return copy;
}

/* Looks for the page and the session properties; what that takes is made in "scratch". */
static void
take_properties(const SessionSettings *settings, TupleTableSlot *slot, SessionEvent *event,
				MemoryContext scratch)
{
	MemoryContext context = MemoryContextSwitchTo(scratch);
	Jsonb *properties = DatumGetJsonbP(slot->tts_values[LOG_PROPERTIES - 1]);
	Jsonb *event_context = NULL;

	event->page.data = NULL;
	event->properties = NULL;
	if (JB_ROOT_IS_OBJECT(properties))
	{
		if (!slot->tts_isnull[LOG_CONTEXT - 1])
			event_context = DatumGetJsonbP(slot->tts_values[LOG_CONTEXT - 1]);
		event->page = find_page(settings, properties);
		event->properties = find_properties(settings, properties, event_context);
	}

	MemoryContextSwitchTo(context);
	if (event->page.data != NULL)
		event->page.data = pnstrdup(event->page.data, event->page.length);
	if (event->properties != NULL)
		event->properties = copy_jsonb(event->properties);
	MemoryContextReset(scratch);
}

/*
 * Takes a row of behavior.log.  Returns false when the event belongs to no session: of
 * an ignored type, or of nobody.  visitor points into the slot, event is copied.
 */
bool
session_event_take(const SessionSettings *settings, TupleTableSlot *slot, SessionVisitor *visitor,
				   SessionEvent *event, MemoryContext scratch)
{
	slot_getallattrs(slot);
	if (ignored(settings, peek_text(slot, LOG_TYPE)))
		return false;
	visitor->visitor = peek_text(slot, LOG_ANONYMOUS_ID);
	if (visitor->visitor.data == NULL)
		visitor->visitor = peek_text(slot, LOG_USER_ID);
	if (visitor->visitor.data == NULL)
		return false;
	visitor->source = peek_text(slot, LOG_SOURCE);

	event->key.at = DatumGetTimestampTz(slot->tts_values[LOG_OCCURRED_AT - 1]);
	event->key.has_sequence = !slot->tts_isnull[LOG_SEQUENCE - 1];
	event->key.sequence =
		event->key.has_sequence ? DatumGetInt64(slot->tts_values[LOG_SEQUENCE - 1]) : 0;
	event->key.event_id = copy_text(slot, LOG_EVENT_ID);
	event->type = copy_text(slot, LOG_TYPE);
	event->user_id = copy_text(slot, LOG_USER_ID);
	take_properties(settings, slot, event, scratch);
	return true;
}

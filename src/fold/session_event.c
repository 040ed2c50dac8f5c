/*
 * session_event.c
 *		An event's part in a session: who, when, which page, what brought the visitor.
 *
 * Nothing is copied here: values point into the row where they can.  The session properties are
 * looked for apart from the rest, since only those of a session's first event that has any count.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "core/compat.h"
#include "fold/session.h"
#include "log/log_row.h"

static const char *const campaign_prefix = "utm_";

/* Where a text value lies; none when it is NULL. */
static inline Bytes
read_text(TupleTableSlot *slot, int attribute)
{
	Bytes bytes = {NULL, 0};

	if (!slot->tts_isnull[attribute - 1])
	{
		text *value = (text *) DatumGetPointer(slot->tts_values[attribute - 1]);

		if (VARATT_IS_COMPRESSED(value) || VARATT_IS_EXTERNAL(value))
			value = (text *) pg_detoast_datum_packed((struct varlena *) value);

		bytes.data = VARDATA_ANY(value);
		bytes.length = VARSIZE_ANY_EXHDR(value);
	}
	return bytes;
}

/* A jsonb value, aligned: most are short, which takes no allocation. */
static Jsonb *
read_jsonb(SessionEventReader *reader, Datum datum)
{
	struct varlena *value = (struct varlena *) DatumGetPointer(datum);

	/* A pointer to toasted bytes has a short header, too. */
	if (VARATT_IS_SHORT(value) && !VARATT_IS_EXTERNAL(value))
	{
		int length = VARSIZE_SHORT(value) - VARHDRSZ_SHORT;

		SET_VARSIZE(reader->buffer.data, length + VARHDRSZ);
		memcpy(VARDATA(reader->buffer.data), VARDATA_SHORT(value), length);
		return (Jsonb *) reader->buffer.data;
	}
	return DatumGetJsonbP(datum);
}

/* Bytes of the aligned copy of short properties, as they lie in the row. */
static Bytes
in_row(const SessionEventReader *reader, Bytes bytes)
{
	const char *copy = reader->buffer.data;

	if (bytes.data >= copy && bytes.data < copy + sizeof(reader->buffer.data))
	{
		Pointer value = DatumGetPointer(reader->slot->tts_values[LOG_PROPERTIES - 1]);

		bytes.data = VARDATA_SHORT(value) + (bytes.data - VARDATA(copy));
	}
	return bytes;
}

static bool
ignored(const SessionSettings *settings, Bytes type)
{
	ListCell *lc;

	foreach (lc, settings->ignore)
	{
		if (bytes_equal(*(Bytes *) lfirst(lc), type))
			return true;
	}
	return false;
}

/* A member that is not null. */
static JsonbValue *
member(JsonbContainer *object, const char *name, int length, JsonbValue *result)
{
	JsonbValue *value = getKeyJsonValueFromContainer(object, name, length, result);

	return value != NULL && value->type != jbvNull ? value : NULL;
}

/* The page: the first of the names under which a string or a number stands. */
static Bytes
find_page(const SessionSettings *settings, Jsonb *properties)
{
	Bytes page = {NULL, 0};
	ListCell *lc;

	if (!JB_ROOT_IS_OBJECT(properties))
		return page;
	foreach (lc, settings->pages)
	{
		const Bytes *name = lfirst(lc);
		JsonbValue buffer;
		JsonbValue *value = member(&properties->root, name->data, name->length, &buffer);

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
find_property(Jsonb *properties, JsonbContainer *campaign, const Bytes *name, JsonbValue *buffer)
{
	JsonbValue *value = member(&properties->root, name->data, name->length, buffer);
	int prefix = strlen(campaign_prefix);

	if (value == NULL && campaign != NULL)
	{
		value = member(campaign, name->data, name->length, buffer);
		if (value == NULL && name->length >= prefix &&
			memcmp(name->data, campaign_prefix, prefix) == 0)
		{
			const char *short_name = name->data + prefix;
			int length = name->length - prefix;

			if (length == strlen("campaign") && memcmp(short_name, "campaign", length) == 0)
				value = member(campaign, "name", strlen("name"), buffer);
			else
				value = member(campaign, short_name, length, buffer);
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
		JsonbValue *value = member(&context->root, "campaign", strlen("campaign"), &campaign_value);

		if (value != NULL && value->type == jbvBinary &&
			JsonContainerIsObject(value->val.binary.data))
			campaign = value->val.binary.data;
	}

	foreach (lc, settings->properties)
	{
		const Bytes *name = lfirst(lc);
		JsonbValue buffer;
		JsonbValue key;
		JsonbValue *value = find_property(properties, campaign, name, &buffer);

		if (value == NULL)
			continue;
		if (state == NULL)
			pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		key.type = jbvString;
		key.val.string.val = unconstify(char *, name->data);
		key.val.string.len = name->length;
		pushJsonbValue(&state, WJB_KEY, &key);
		pushJsonbValue(&state, WJB_VALUE, value);
	}
	if (state == NULL)
		return NULL;
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/*
 * Reads a row of behavior.log.  Returns false when the event belongs to no session: of an
 * ignored type, or of nobody.
 */
bool
session_event_read(SessionEventReader *reader, TupleTableSlot *slot)
{
	SessionEvent *event = &reader->event;
	MemoryContext old = MemoryContextSwitchTo(reader->scratch);
	bool belongs;

	reader->slot = slot;
	slot_getsomeattrs(slot, LOG_PROPERTIES);
	event->type = read_text(slot, LOG_TYPE);
	event->user_id = read_text(slot, LOG_USER_ID);
	reader->visitor.source = read_text(slot, LOG_SOURCE);
	reader->visitor.visitor = read_text(slot, LOG_ANONYMOUS_ID);
	if (reader->visitor.visitor.data == NULL)
		reader->visitor.visitor = event->user_id;
	belongs = reader->visitor.visitor.data != NULL && !ignored(reader->settings, event->type);
	if (belongs)
	{
		event->key.at = DatumGetTimestampTz(slot->tts_values[LOG_OCCURRED_AT - 1]);
		event->key.has_sequence = !slot->tts_isnull[LOG_SEQUENCE - 1];
		event->key.sequence =
			event->key.has_sequence ? DatumGetInt64(slot->tts_values[LOG_SEQUENCE - 1]) : 0;
		event->key.event_id = read_text(slot, LOG_EVENT_ID);
		reader->properties = read_jsonb(reader, slot->tts_values[LOG_PROPERTIES - 1]);
		event->page = in_row(reader, find_page(reader->settings, reader->properties));
		event->properties = NULL;
	}
	MemoryContextSwitchTo(old);
	return belongs;
}

/* Adds the session properties of the event that was read last. */
void
session_event_read_properties(SessionEventReader *reader)
{
	MemoryContext old = MemoryContextSwitchTo(reader->scratch);
	Jsonb *context = NULL;
	bool isnull;
	Datum value = slot_getattr(reader->slot, LOG_CONTEXT, &isnull);

	if (!isnull)
		context = DatumGetJsonbP(value);
	if (JB_ROOT_IS_OBJECT(reader->properties))
		reader->event.properties = find_properties(reader->settings, reader->properties, context);
	MemoryContextSwitchTo(old);
}

/*
 * envelope_map.c
 *		The four forms of a JSON event, and PutEvents' entries, field by field.
 *
 * Keys of a known envelope become columns or, under their own names, part of
 * the context; in a native event a key that is no column is refused. A value
 * of an envelope's own keys that has the wrong type is refused as well; inside
 * the payload, which is the producer's own, ids are only looked up and what cannot
 * be one is left alone.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "core/decimal.h"
#include "core/instant.h"
#include "ingest/envelope_map.h"

#define NUMBER_TEXT (EVENT_TEXT_MAX + 1) /* longer ones are too large for a column anyway */
#define SHOWN_KEY	64					 /* bytes of an unknown key in a message */

static const char *const kind_names[] = {
	[JSON_NULL] = "null",		[JSON_FALSE] = "a boolean", [JSON_TRUE] = "a boolean",
	[JSON_NUMBER] = "a number", [JSON_STRING] = "a string", [JSON_ARRAY] = "an array",
	[JSON_OBJECT] = "an object"};

void
mapping_refuse(Mapping *m, Reason reason, const char *format, ...)
{
	va_list args;

	if (m->reason != REASON_NONE)
		return;
	m->reason = reason;
	va_start(args, format);
	vsnprintf(m->detail, sizeof(m->detail), format, args);
	va_end(args);
}

void
member_list_add(MemberList *list, const JsonNode *member)
{
	if (list->count == list->size)
	{
		list->size = Max(16, list->size * 2);
		if (list->members == NULL)
			list->members = palloc(list->size * sizeof(JsonNode *));
		else
			list->members = repalloc(list->members, list->size * sizeof(JsonNode *));
	}
	list->members[list->count++] = unconstify(JsonNode *, member);
}

void
member_list_add_all(MemberList *list, const JsonNode *object)
{
	for (const JsonNode *child = object->first_child; child != NULL; child = child->next)
		member_list_add(list, child);
}

static inline bool
is_absent(const JsonNode *node)
{
	return node == NULL || node->kind == JSON_NULL;
}

static inline bool
string_is(const JsonNode *node, const char *value)
{
	return node != NULL && node->kind == JSON_STRING && node->length == strlen(value) &&
		   memcmp(node->text, value, node->length) == 0;
}

static inline bool
same_key(const JsonNode *a, const JsonNode *b)
{
	return a->key_length == b->key_length && memcmp(a->key, b->key, a->key_length) == 0;
}

/* Marks a key as gone into a column. */
static void
consume(Mapping *m, const JsonNode *member)
{
	if (member == NULL)
		return;
	Assert(m->nconsumed < MAX_CONSUMED);
	m->consumed[m->nconsumed++] = member;
}

static const JsonNode *
take(Mapping *m, const JsonNode *object, const char *name)
{
	const JsonNode *member = json_member(object, name);

	consume(m, member);
	return member;
}

/* Puts what went into no column into the context. */
static void
keep_rest(Mapping *m, const JsonNode *object)
{
	for (const JsonNode *child = object->first_child; child != NULL; child = child->next)
	{
		bool consumed = false;

		/* By name: all of a repeated key went with the last one. */
		for (int i = 0; i < m->nconsumed && !consumed; i++)
			consumed = same_key(child, m->consumed[i]);
		if (!consumed)
			member_list_add(&m->context_list, child);
	}
}

/*
 * A string, or a number as it stands; as jsonb would show it where that is not the
 * same, so that an id is one whether it came as text or as jsonb.
 */
static bool
scalar_text(const JsonNode *node, TextField *field)
{
	if (node->kind == JSON_STRING)
	{
		field->data = node->text;
		field->length = node->length;
		return true;
	}
	if (node->kind == JSON_NUMBER)
	{
		bool plain = node->text[0] != '-' || node->text[1] != '0';

		for (int i = 0; i < node->length && plain; i++)
			plain = node->text[i] != 'e' && node->text[i] != 'E';
		if (plain)
		{
			field->data = node->text;
			field->length = node->length;
		}
		else
		{
			Decimal decimal;
			char *buffer = palloc(NUMBER_TEXT);

			decimal_parse(&decimal, node->text, node->length);
			field->length = decimal_to_text(&decimal, buffer, NUMBER_TEXT);
			field->data = buffer;
		}
		return true;
	}
	return false;
}

/* A column of text. */
static void
map_text(Mapping *m, const JsonNode *node, const char *name, TextField *field)
{
	if (is_absent(node))
		return;
	if (!scalar_text(node, field))
		mapping_refuse(m, REASON_INVALID_TYPE, "%s is %s, not a string", name,
					   kind_names[node->kind]);
}

static void
map_time(Mapping *m, const JsonNode *node, const char *name)
{
	int64 epoch;
	bool good;

	if (is_absent(node))
		return;
	if (node->kind == JSON_STRING)
		good = instant_parse(node->text, node->length, &m->event.occurred_at);
	else if (node->kind == JSON_NUMBER)
	{
		Decimal decimal;

		decimal_parse(&decimal, node->text, node->length);
		good =
			decimal_to_int64(&decimal, &epoch) && instant_from_epoch(epoch, &m->event.occurred_at);
	}
	else
	{
		mapping_refuse(m, REASON_INVALID_TYPE, "%s is %s, not a string", name,
					   kind_names[node->kind]);
		return;
	}
	if (good)
		m->event.has_occurred_at = true;
	else
		mapping_refuse(m, REASON_INVALID_TIMESTAMP,
					   node->kind == JSON_STRING
						   ? "%s is not a time as RFC 3339 writes it"
						   : "%s is not a whole number of seconds or milliseconds since 1970 that "
							 "lies in the years 1 to 9999",
					   name);
}

/* An integer as the sequence; false when it is none. */
static bool
map_sequence(Mapping *m, const JsonNode *node)
{
	Decimal decimal;

	if (node == NULL || node->kind != JSON_NUMBER)
		return false;
	decimal_parse(&decimal, node->text, node->length);
	if (!decimal_to_int64(&decimal, &m->event.sequence))
		return false;
	m->event.has_sequence = true;
	return true;
}

/* The payload, which must be an object; NULL when it is not. */
static const JsonNode *
map_properties(Mapping *m, const JsonNode *node, const char *name)
{
	if (is_absent(node))
		return NULL;
	if (node->kind != JSON_OBJECT)
	{
		mapping_refuse(m, REASON_NOT_AN_OBJECT, "%s is not a JSON object but %s", name,
					   kind_names[node->kind]);
		return NULL;
	}
	m->properties = node;
	return node;
}

/* An id by name: a string that is not empty, or a number. */
static bool
find_id(const JsonNode *payload, const char *name, TextField *field)
{
	const JsonNode *node = json_member(payload, name);

	return node != NULL && !(node->kind == JSON_STRING && node->length == 0) &&
		   scalar_text(node, field);
}

/* Who it was, by the names that producers give it in their payload. */
static void
find_actor(Mapping *m, const JsonNode *payload)
{
	const JsonNode *customer;

	if (payload == NULL)
		return;
	if (!find_id(payload, "userId", &m->event.user_id) &&
		!find_id(payload, "user_id", &m->event.user_id))
	{
		customer = json_member(payload, "customer");
		if (customer != NULL && customer->kind == JSON_OBJECT &&
			!find_id(customer, "id", &m->event.user_id))
			(void) find_id(customer, "userId", &m->event.user_id);
	}
	if (!find_id(payload, "anonymousId", &m->event.anonymous_id))
		(void) find_id(payload, "anonymous_id", &m->event.anonymous_id);
}

/* What EventBridge's and PutEvents' detail gives besides the properties. */
static void
map_detail(Mapping *m, const JsonNode *detail)
{
	if (detail == NULL)
		return;
	if (!find_id(detail, "event_id", &m->event.event_id) &&
		!find_id(detail, "eventId", &m->event.event_id))
		(void) find_id(detail, "idempotency_key", &m->event.event_id);
	(void) map_sequence(m, json_member(detail, "sequence"));
	find_actor(m, detail);
}

static void
map_eventbridge(Mapping *m, const JsonNode *object)
{
	map_text(m, take(m, object, "source"), "source", &m->event.source);
	map_text(m, take(m, object, "detail-type"), "detail-type", &m->event.type);
	map_detail(m, map_properties(m, take(m, object, "detail"), "detail"));
	/* The service gives a new id on every call, so it is the last resort. */
	if (m->event.event_id.data == NULL)
		map_text(m, take(m, object, "id"), "id", &m->event.event_id);
	map_time(m, take(m, object, "time"), "time");
	keep_rest(m, object);
}

static void
map_cloudevents(Mapping *m, const JsonNode *object)
{
	const JsonNode *data;
	const JsonNode *sequence = json_member(object, "sequence");

	map_text(m, take(m, object, "id"), "id", &m->event.event_id);
	map_text(m, take(m, object, "source"), "source", &m->event.source);
	map_text(m, take(m, object, "type"), "type", &m->event.type);
	map_time(m, take(m, object, "time"), "time");
	if (map_sequence(m, sequence))
		consume(m, sequence);

	data = take(m, object, "data");
	if (!is_absent(data))
	{
		if (data->kind == JSON_OBJECT)
		{
			m->properties = data;
			find_actor(m, data);
		}
		else
			member_list_add(&m->property_list, data); /* under its own name: {"data": ...} */
	}
	if (m->event.user_id.data == NULL)
		(void) find_id(object, "subject", &m->event.user_id);
	keep_rest(m, object);
}

/* An id of a Segment message itself: the first name that has a value. */
static void
map_segment_id(Mapping *m, const JsonNode *object, const char *name, const char *other,
			   TextField *field)
{
	const JsonNode *node = json_member(object, name);

	if (is_absent(node) || (node->kind == JSON_STRING && node->length == 0))
	{
		name = other;
		node = json_member(object, name);
	}
	if (is_absent(node))
		return;
	consume(m, node);
	map_text(m, node, name, field);
}

static void
map_segment(Mapping *m, const JsonNode *object)
{
	static const char *const extras[] = {"name", "category", "groupId", "previousId"};
	const JsonNode *type = take(m, object, "type");
	const JsonNode *properties;
	const JsonNode *context;
	const JsonNode *time = json_member(object, "timestamp");
	const JsonNode *event = json_member(object, "event");

	map_text(m, take(m, object, "messageId"), "messageId", &m->event.event_id);
	if (!is_absent(event) && (is_absent(type) || string_is(type, "track")))
	{
		consume(m, event);
		map_text(m, event, "event", &m->event.type);
	}
	else
		map_text(m, type, "type", &m->event.type);

	if (!is_absent(time))
	{
		consume(m, time);
		map_time(m, time, "timestamp");
	}
	else
		map_time(m, take(m, object, "originalTimestamp"), "originalTimestamp");

	map_segment_id(m, object, "userId", "user_id", &m->event.user_id);
	map_segment_id(m, object, "anonymousId", "anonymous_id", &m->event.anonymous_id);

	properties = json_member(object, "properties");
	if (is_absent(properties))
	{
		consume(m, properties);
		properties = json_member(object, "traits");
	}
	consume(m, properties);
	for (int i = 0; i < lengthof(extras); i++)
	{
		const JsonNode *extra = take(m, object, extras[i]);

		if (!is_absent(extra))
			member_list_add(&m->property_list, extra);
	}
	properties = map_properties(m, properties, "properties");
	if (properties != NULL)
	{
		/* The message of somebody who is not named at its top may name him inside. */
		if (m->event.user_id.data == NULL && m->event.anonymous_id.data == NULL)
			find_actor(m, properties);
		if (m->property_list.count > 0)
		{
			/* Behind the others: of repeated keys the last one counts. */
			member_list_add_all(&m->property_list, properties);
			m->properties = NULL;
		}
	}
	else if (m->event.user_id.data == NULL && m->event.anonymous_id.data == NULL)
		find_actor(m, object);

	context = take(m, object, "context");
	keep_rest(m, object);
	if (!is_absent(context))
	{
		if (context->kind == JSON_OBJECT)
			member_list_add_all(&m->context_list, context);
		else
			mapping_refuse(m, REASON_NOT_AN_OBJECT, "context is not a JSON object but %s",
						   kind_names[context->kind]);
	}
}

static void
map_entry(Mapping *m, const JsonNode *object)
{
	const JsonNode *detail = take(m, object, "Detail");

	map_text(m, take(m, object, "Source"), "Source", &m->event.source);
	map_text(m, take(m, object, "DetailType"), "DetailType", &m->event.type);
	map_time(m, take(m, object, "Time"), "Time");
	if (detail != NULL && detail->kind == JSON_STRING)
	{
		size_t offset = 0;
		JsonError error;
		const JsonNode *inner = json_parse(detail->text, detail->length, &offset, &error);

		if (inner == NULL)
			mapping_refuse(m, REASON_MALFORMED_JSON, "in Detail: %s", error.message);
		else if (offset < detail->length)
			mapping_refuse(m, REASON_MALFORMED_JSON, "in Detail: more text at byte %zu",
						   offset + 1);
		else
		{
			/* Collected for the dead letter all the same. */
			if (inner->flaw != NULL)
				mapping_refuse(m, inner->flaw->reason, "in Detail: %s", inner->flaw->message);
			map_detail(m, map_properties(m, inner, "Detail"));
		}
	}
	else
		map_detail(m, map_properties(m, detail, "Detail"));
	keep_rest(m, object);
}

static void
map_native(Mapping *m, const JsonNode *object)
{
	enum
	{
		EVENT_ID,
		SOURCE,
		TYPE,
		USER_ID,
		ANONYMOUS_ID,
		OCCURRED_AT,
		SEQUENCE,
		PROPERTIES,
		CONTEXT,
		READ_ONLY, /* from here on: ignored, so that an export reads back in */
		NAMES = READ_ONLY + 4
	};
	static const struct
	{
		const char *name;
		int length;
	} names[NAMES] = {{"event_id", 8}, {"source", 6},		 {"type", 4},
					  {"user_id", 7},  {"anonymous_id", 12}, {"occurred_at", 11},
					  {"sequence", 8}, {"properties", 10},	 {"context", 7},
					  {"actor", 5},	   {"received_at", 11},	 {"batch_id", 8},
					  {"tick_id", 7}};
	const JsonNode *column[NAMES] = {NULL};
	const JsonNode *unknown = NULL;
	const JsonNode *context;

	for (const JsonNode *child = object->first_child; child != NULL; child = child->next)
	{
		int i = 0;

		while (i < NAMES && (names[i].length != child->key_length ||
							 memcmp(names[i].name, child->key, child->key_length) != 0))
			i++;
		if (i < NAMES)
			column[i] = child;
		else if (unknown == NULL)
			unknown = child;
	}

	map_text(m, column[EVENT_ID], "event_id", &m->event.event_id);
	map_text(m, column[SOURCE], "source", &m->event.source);
	map_text(m, column[TYPE], "type", &m->event.type);
	if (unknown != NULL)
		mapping_refuse(m, REASON_UNKNOWN_FIELD, "unknown field \"%.*s\"",
					   pg_mbcliplen(unknown->key, unknown->key_length, SHOWN_KEY), unknown->key);
	map_text(m, column[USER_ID], "user_id", &m->event.user_id);
	map_text(m, column[ANONYMOUS_ID], "anonymous_id", &m->event.anonymous_id);
	map_time(m, column[OCCURRED_AT], "occurred_at");
	if (!is_absent(column[SEQUENCE]) && !map_sequence(m, column[SEQUENCE]))
		mapping_refuse(m, REASON_INVALID_TYPE, "sequence is not an integer of 64 bits");
	(void) map_properties(m, column[PROPERTIES], "properties");

	context = column[CONTEXT];
	if (!is_absent(context))
	{
		if (context->kind != JSON_OBJECT)
			mapping_refuse(m, REASON_NOT_AN_OBJECT, "context is not a JSON object but %s",
						   kind_names[context->kind]);
		else if (m->context_list.count > 0)
			member_list_add_all(&m->context_list, context);
		else
			m->context = context;
	}
}

/* Which form an object has. */
EnvelopeForm
envelope_form(const JsonNode *object)
{
	static const char *const segment_types[] = {"track",	"page",	 "screen",
												"identify", "group", "alias"};
	const JsonNode *type = NULL;
	const JsonNode *batch = NULL;
	const JsonNode *entries = NULL;
	bool detail_type = false;
	bool specversion = false;
	bool message_id = false;
	bool who = false;

	for (const JsonNode *child = object->first_child; child != NULL; child = child->next)
	{
		const char *key = child->key;

		switch (child->key_length)
		{
			case 4:
				if (memcmp(key, "type", 4) == 0)
					type = child;
				break;
			case 5:
				if (memcmp(key, "batch", 5) == 0)
					batch = child;
				break;
			case 6:
				if (memcmp(key, "userId", 6) == 0 && child->kind != JSON_NULL)
					who = true;
				break;
			case 7:
				if (memcmp(key, "Entries", 7) == 0)
					entries = child;
				break;
			case 9:
				if (memcmp(key, "messageId", 9) == 0)
					message_id = true;
				break;
			case 11:
				if (memcmp(key, "detail-type", 11) == 0)
					detail_type = true;
				else if (memcmp(key, "specversion", 11) == 0)
					specversion = true;
				else if (memcmp(key, "anonymousId", 11) == 0 && child->kind != JSON_NULL)
					who = true;
				break;
		}
	}

	if (detail_type)
		return FORM_EVENTBRIDGE;
	if (specversion)
		return FORM_CLOUDEVENTS;
	/* Some libraries give a whole batch a messageId. */
	if (batch != NULL && batch->kind == JSON_ARRAY)
		return FORM_BATCH;
	if (message_id)
		return FORM_SEGMENT;
	if (who)
	{
		for (int i = 0; i < lengthof(segment_types); i++)
		{
			if (string_is(type, segment_types[i]))
				return FORM_SEGMENT;
		}
	}
	if (entries != NULL && entries->kind == JSON_ARRAY)
		return FORM_ENTRIES;
	return FORM_NATIVE;
}

/* Fills the fields of m->event that are text and numbers, and says what the jsonb ones are made of.
 */
void
map_event(Mapping *m, const JsonNode *object, EnvelopeForm form, const Wrapper *wrapper)
{
	if (wrapper != NULL)
	{
		for (int i = 0; i < wrapper->context.count; i++)
			member_list_add(&m->context_list, wrapper->context.members[i]);
	}
	switch (form)
	{
		case FORM_EVENTBRIDGE:
			map_eventbridge(m, object);
			break;
		case FORM_CLOUDEVENTS:
			map_cloudevents(m, object);
			break;
		case FORM_SEGMENT:
			map_segment(m, object);
			break;
		case FORM_ENTRY:
			map_entry(m, object);
			break;
		case FORM_NATIVE:
		case FORM_BATCH:
		case FORM_ENTRIES:
			map_native(m, object);
			break;
	}
}

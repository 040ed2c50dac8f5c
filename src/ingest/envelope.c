/*
 * envelope.c
 *		JSON values to events: unpacks what holds several, and hands each to the frame.
 *
 * Each event of a batch stands for itself: one that is broken is its own dead
 * letter, with its own slice of the text as the payload, and the others go on.
 * A batch in a batch is not unpacked.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/json.h"
#include "utils/memutils.h"

#include "core/guc.h"
#include "core/json.h"
#include "ingest/envelope.h"
#include "ingest/envelope_map.h"

typedef struct Unpacking
{
	Frame *frame;
	const char *text;
	const Event *defaults;
	TextField sent_with; /* what comes with the events that are not wrapped */
	const EventOrigin *origin;
} Unpacking;

/* Keys of dead_letter.sent_with, besides that of the default source. */
#define SENT_WITH_DEFAULTS "defaults"
#define SENT_WITH_CONTEXT  "context"
#define SENT_WITH_ENTRY	   "entry"

static inline bool
text_lacks(const TextField *field)
{
	return field->data == NULL || field->length == 0;
}

/* Gives an event the columns that it lacks. An empty event_id or type is one that was given. */
static void
apply_defaults(Event *event, const Event *defaults)
{
	if (event->event_id.data == NULL)
		event->event_id = defaults->event_id;
	if (event->type.data == NULL)
		event->type = defaults->type;
	if (text_lacks(&event->source))
		event->source = defaults->source;
	if (text_lacks(&event->user_id))
		event->user_id = defaults->user_id;
	if (text_lacks(&event->anonymous_id))
		event->anonymous_id = defaults->anonymous_id;
	if (!event->has_occurred_at)
	{
		event->has_occurred_at = defaults->has_occurred_at;
		event->occurred_at = defaults->occurred_at;
	}
	if (!event->has_sequence)
	{
		event->has_sequence = defaults->has_sequence;
		event->sequence = defaults->sequence;
	}
	if (event->properties == NULL)
		event->properties = defaults->properties;
	if (event->context == NULL)
		event->context = defaults->context;
}

/* Makes the jsonb fields; what is refused anyway is spared the work. */
static void
make_jsonb(Mapping *m)
{
	bool wanted = m->properties != NULL || m->property_list.count > 0;

	if (m->reason != REASON_NONE)
		return;
	if (wanted)
	{
		m->event.properties =
			m->properties != NULL
				? json_to_jsonb(m->properties)
				: json_members_to_jsonb(m->property_list.members, m->property_list.count);
		if (m->event.properties == NULL)
			mapping_refuse(m, REASON_UNSTORABLE, "properties are larger than jsonb can be");
	}
	wanted = m->context != NULL || m->context_list.count > 0;
	if (wanted)
	{
		m->event.context = m->context != NULL ? json_to_jsonb(m->context)
											  : json_members_to_jsonb(m->context_list.members,
																	  m->context_list.count);
		if (m->event.context == NULL)
			mapping_refuse(m, REASON_UNSTORABLE, "context is larger than jsonb can be");
	}
}

/* Adds one value that should be an event. */
static void
add_one(const Unpacking *u, const JsonNode *node, EnvelopeForm form, const Wrapper *wrapper,
		TextField sent_with)
{
	Mapping m;

	memset(&m, 0, offsetof(Mapping, consumed));
	m.nconsumed = 0;
	m.event.payload.data = u->text + node->start;
	m.event.payload.length = node->end - node->start;
	m.event.sent_with = sent_with;
	m.event.origin = u->origin;

	if (m.event.payload.length > behavior_max_event_size)
		mapping_refuse(&m, REASON_TOO_LARGE,
					   "the event has %d bytes, more than behavior.max_event_size (%d)",
					   m.event.payload.length, behavior_max_event_size);
	else if (node->flaw != NULL)
		mapping_refuse(&m, node->flaw->reason, "%s", node->flaw->message);
	else if (wrapper != NULL && wrapper->flaw != NULL)
		mapping_refuse(&m, wrapper->flaw->reason, "around the event: %s", wrapper->flaw->message);

	if (node->kind == JSON_OBJECT)
		map_event(&m, node, form, wrapper);
	else
		mapping_refuse(&m, REASON_NOT_AN_OBJECT, "an event must be a JSON object");
	make_jsonb(&m);
	if (u->defaults != NULL)
		apply_defaults(&m.event, u->defaults);

	if (m.reason != REASON_NONE)
		frame_add_invalid(u->frame, m.reason, m.detail, &m.event);
	else
		frame_add_event(u->frame, &m.event, NULL, NULL);
}

/* Appends what stands in an object of ours before one more member. */
static void
begin_member(StringInfo json, const TextField *object, const char *key)
{
	if (json->len == 0)
	{
		/* all but the closing brace */
		if (object->length > 0)
			appendBinaryStringInfo(json, object->data, object->length - 1);
		else
			appendStringInfoChar(json, '{');
	}
	if (json->len > 1)
		appendStringInfoChar(json, ',');
	appendStringInfo(json, "\"%s\":", key);
}

TextField
envelope_sent_with_defaults(const char *defaults, size_t length)
{
	TextField none = {NULL, 0};
	StringInfoData json;

	initStringInfo(&json);
	begin_member(&json, &none, SENT_WITH_DEFAULTS);
	appendBinaryStringInfo(&json, defaults, length);
	appendStringInfoChar(&json, '}');
	return (TextField){json.data, json.len};
}

/*
 * What dead letters keep of a wrapper, as text: few of its events become one, and making jsonb
 * would cost as much as an event.
 */
static TextField
sent_with_wrapper(const Unpacking *u, const Wrapper *wrapper, EnvelopeForm form)
{
	StringInfoData json;

	/* What is wrong around the events is not what they are to have when they are sent again. */
	if ((wrapper->context.count == 0 || wrapper->flaw != NULL) && form != FORM_ENTRIES)
		return u->sent_with;
	initStringInfo(&json);
	if (wrapper->flaw == NULL)
	{
		begin_member(&json, &u->sent_with, SENT_WITH_CONTEXT);
		for (int i = 0; i < wrapper->context.count; i++)
		{
			const JsonNode *member = wrapper->context.members[i];

			appendStringInfoChar(&json, i == 0 ? '{' : ',');
			escape_json(&json, pnstrdup(member->key, member->key_length));
			appendStringInfoChar(&json, ':');
			appendBinaryStringInfo(&json, u->text + member->start, member->end - member->start);
		}
		appendStringInfoString(&json, wrapper->context.count == 0 ? "{}" : "}");
	}
	if (form == FORM_ENTRIES)
	{
		begin_member(&json, &u->sent_with, SENT_WITH_ENTRY);
		appendStringInfoString(&json, "true");
	}
	appendStringInfoChar(&json, '}');
	return (TextField){json.data, json.len};
}

/* Collects what a wrapper has besides its array of events. */
static void
read_wrapper(Wrapper *wrapper, const JsonNode *object, const JsonNode *array)
{
	const JsonNode *context = NULL;

	memset(wrapper, 0, sizeof(*wrapper));
	for (const JsonNode *child = object->first_child; child != NULL; child = child->next)
	{
		if (child->key_length == array->key_length &&
			memcmp(child->key, array->key, child->key_length) == 0)
			continue;
		if (wrapper->flaw == NULL)
			wrapper->flaw = child->flaw;
		if (child->kind == JSON_OBJECT && child->key_length == 7 &&
			memcmp(child->key, "context", 7) == 0)
			context = child;
		else
			member_list_add(&wrapper->context, child);
	}
	if (context != NULL)
		member_list_add_all(&wrapper->context, context);
	/* None of the values has it: it is in a key. */
	if (object->flaw != NULL && wrapper->flaw == NULL && array->flaw == NULL)
		wrapper->flaw = object->flaw;
}

static void
add_wrapped(const Unpacking *u, const JsonNode *object, EnvelopeForm form)
{
	const JsonNode *array = json_member(object, form == FORM_BATCH ? "batch" : "Entries");
	MemoryContext event_context;
	MemoryContext old;
	Wrapper wrapper;
	TextField sent_with;

	read_wrapper(&wrapper, object, array);
	sent_with = sent_with_wrapper(u, &wrapper, form);
	event_context =
		AllocSetContextCreate(CurrentMemoryContext, "behavior event", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(event_context);
	for (const JsonNode *child = array->first_child; child != NULL; child = child->next)
	{
		EnvelopeForm child_form = FORM_ENTRY;

		if (form == FORM_BATCH)
			child_form = child->kind == JSON_OBJECT ? envelope_form(child) : FORM_NATIVE;
		add_one(u, child, child_form, &wrapper, sent_with);
		MemoryContextReset(event_context);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(event_context);
}

/* Adds an object that is an event or wraps some, or whatever else stands in its place. */
static void
add_value(const Unpacking *u, const JsonNode *node)
{
	EnvelopeForm form = node->kind == JSON_OBJECT ? envelope_form(node) : FORM_NATIVE;

	if (form == FORM_BATCH || form == FORM_ENTRIES)
		add_wrapped(u, node, form);
	else
		add_one(u, node, form, NULL, u->sent_with);
}

void
envelope_add(Frame *frame, const JsonNode *node, const char *text, size_t length,
			 const Event *defaults)
{
	Unpacking u = {frame, text, defaults, {NULL, 0}, NULL};

	Assert(node->end <= length);
	if (defaults != NULL)
		u.sent_with = defaults->sent_with;
	if (node->flaw != NULL && node->flaw->reason == REASON_TOO_LARGE)
	{
		/* Not all of it is there: it is refused as a whole, however many it holds. */
		Event event = {0};

		event.payload.data = text + node->start;
		event.payload.length = node->end - node->start;
		event.sent_with = u.sent_with;
		if (defaults != NULL)
			apply_defaults(&event, defaults);
		frame_add_invalid(frame, node->flaw->reason, node->flaw->message, &event);
	}
	else if (node->kind == JSON_ARRAY)
	{
		MemoryContext event_context =
			AllocSetContextCreate(CurrentMemoryContext, "behavior event", ALLOCSET_DEFAULT_SIZES);
		MemoryContext old = MemoryContextSwitchTo(event_context);

		for (const JsonNode *child = node->first_child; child != NULL; child = child->next)
		{
			add_value(&u, child);
			MemoryContextReset(event_context);
		}
		MemoryContextSwitchTo(old);
		MemoryContextDelete(event_context);
	}
	else
		add_value(&u, node);
}

void
envelope_add_again(Frame *frame, const JsonNode *node, const char *text, const JsonNode *with,
				   TextField sent_with, const EventOrigin *origin)
{
	Unpacking u = {frame, text, NULL, sent_with, origin};
	EnvelopeForm form = node->kind == JSON_OBJECT ? envelope_form(node) : FORM_NATIVE;
	Event defaults = {0};
	Wrapper wrapper = {{0}};
	const JsonNode *context = NULL;

	if (with != NULL)
	{
		const JsonNode *member = json_member(with, SENT_WITH_DEFAULTS);

		if (member != NULL)
		{
			envelope_defaults(member, &defaults);
			u.defaults = &defaults;
		}
		if (json_member(with, SENT_WITH_ENTRY) != NULL)
			form = FORM_ENTRY;
		context = json_member(with, SENT_WITH_CONTEXT);
		if (context != NULL)
			member_list_add_all(&wrapper.context, context);
	}
	add_one(&u, node, form, context != NULL ? &wrapper : NULL, sent_with);
}

static int64
count_value(const JsonNode *node)
{
	EnvelopeForm form = node->kind == JSON_OBJECT ? envelope_form(node) : FORM_NATIVE;

	if (form == FORM_BATCH)
		return json_member(node, "batch")->length;
	if (form == FORM_ENTRIES)
		return json_member(node, "Entries")->length;
	return 1;
}

int64
envelope_count(const JsonNode *node)
{
	int64 count = 0;

	if (node->kind != JSON_ARRAY)
		return count_value(node);
	for (const JsonNode *child = node->first_child; child != NULL; child = child->next)
		count += count_value(child);
	return count;
}

void
envelope_defaults(const JsonNode *node, Event *defaults)
{
	Mapping m;

	memset(&m, 0, offsetof(Mapping, consumed));
	m.nconsumed = 0;
	if (node->kind != JSON_OBJECT)
		mapping_refuse(&m, REASON_NOT_AN_OBJECT, "they are not a JSON object");
	else
	{
		if (node->flaw != NULL)
			mapping_refuse(&m, node->flaw->reason, "%s", node->flaw->message);
		map_event(&m, node, FORM_NATIVE, NULL);
		make_jsonb(&m);
	}
	if (m.reason != REASON_NONE)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("defaults cannot be used: %s", m.detail),
						errhint("Name columns of behavior.event and give them values of their "
								"types.")));
	*defaults = m.event;
}

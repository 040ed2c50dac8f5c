/*
 * envelope_native.c
 *		JSON events in native form, in one pass from text to the frame.
 *
 * The general way makes a tree of the whole object, looks which form it has and picks the columns
 * from the tree.  Most events need none of that: the names of columns, each once, with the values
 * they should have.  Such an event is read here straight into its columns; only properties and
 * context become trees.  Whatever is not like that, and everything that would be refused, is left
 * to the general way, which knows the words for it.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "core/guc.h"
#include "core/instant.h"
#include "core/json.h"
#include "core/scan.h"
#include "ingest/envelope.h"
#include "ingest/frame_internal.h"

#define MAX_DIGITS 18 /* of an integer that cannot overflow */

typedef enum Column
{
	COLUMN_TYPE,
	COLUMN_SOURCE,
	COLUMN_CONTEXT,
	COLUMN_USER_ID,
	COLUMN_EVENT_ID,
	COLUMN_SEQUENCE,
	COLUMN_PROPERTIES,
	COLUMN_OCCURRED_AT,
	COLUMN_ANONYMOUS_ID,
	NO_COLUMN
} Column;

typedef struct Reader
{
	const char *text; /* what offsets count from */
	const char *cur;
	const char *end;
	Event event;
} Reader;

static inline void
skip_space(Reader *r)
{
	while (r->cur < r->end &&
		   (*r->cur == ' ' || *r->cur == '\n' || *r->cur == '\r' || *r->cur == '\t'))
		r->cur++;
}

/* Goes behind the next character that is no white space, when it is this one. */
static inline bool
take_char(Reader *r, char expected)
{
	skip_space(r);
	if (r->cur >= r->end || *r->cur != expected)
		return false;
	r->cur++;
	return true;
}

/* A string without escapes. */
static bool
take_string(Reader *r, TextField *field)
{
	bool high = false;

	if (r->cur >= r->end || *r->cur != '"')
		return false;
	field->data = ++r->cur;
	r->cur = scan_json_run(r->cur, r->end, &high);
	if (r->cur >= r->end || *r->cur != '"')
		return false;
	field->length = r->cur++ - field->data;
	return !high || pg_encoding_verifymbstr(PG_UTF8, field->data, field->length) == field->length;
}

/*
 * Reads a key that names a column; NO_COLUMN when it does not.  One producer writes the keys in one
 * order: the one that came behind "previous" last time is tried first.
 */
static Column
take_key(Reader *r, Column previous)
{
	static const struct
	{
		const char *name;
		int length;
	} names[] = {{"type", 4},		 {"source", 6},		  {"context", 7},
				 {"user_id", 7},	 {"event_id", 8},	  {"sequence", 8},
				 {"properties", 10}, {"occurred_at", 11}, {"anonymous_id", 12}};
	static Column following[NO_COLUMN + 1];
	Column likely = following[previous];
	int length = names[likely].length;
	TextField key;

	if (r->end - r->cur > length + 2 && r->cur[0] == '"' && r->cur[length + 1] == '"' &&
		memcmp(r->cur + 1, names[likely].name, length) == 0)
	{
		r->cur += length + 2;
		return likely;
	}
	if (!take_string(r, &key))
		return NO_COLUMN;
	for (int i = 0; i < lengthof(names); i++)
	{
		if (names[i].length == key.length && memcmp(names[i].name, key.data, key.length) == 0)
			return following[previous] = (Column) i;
	}
	return NO_COLUMN;
}

static bool
take_sequence(Reader *r)
{
	const char *start;
	bool negative = r->cur < r->end && *r->cur == '-';
	int64 value = 0;

	start = r->cur += negative;
	while (r->cur < r->end && *r->cur >= '0' && *r->cur <= '9' && r->cur - start < MAX_DIGITS)
		value = value * 10 + (*r->cur++ - '0');
	/* 007 is no JSON, and what goes on behind the digits no integer, or one to look at twice. */
	if (r->cur == start || (*start == '0' && r->cur - start > 1) || r->cur >= r->end ||
		(*r->cur != ',' && *r->cur != '}' && *r->cur != ' '))
		return false;
	r->event.has_sequence = true;
	r->event.sequence = negative ? -value : value;
	return true;
}

static bool
take_object(Reader *r, Jsonb **value)
{
	size_t offset = r->cur - r->text;
	JsonNode *node;

	if (r->cur >= r->end || *r->cur != '{')
		return false;
	node = json_parse_member(r->text, r->end - r->text, &offset);
	if (node == NULL || node->flaw != NULL)
		return false;
	r->cur = r->text + offset;
	*value = json_to_jsonb(node);
	return *value != NULL;
}

static bool
take_null(Reader *r)
{
	if (r->end - r->cur < 5 || memcmp(r->cur, "null", 4) != 0 ||
		(r->cur[4] != ',' && r->cur[4] != '}' && r->cur[4] != ' '))
		return false;
	r->cur += 4;
	return true;
}

static bool
take_column(Reader *r, Column column)
{
	Event *event = &r->event;
	TextField time;

	skip_space(r);
	if (r->cur < r->end && *r->cur == 'n')
		return take_null(r);
	switch (column)
	{
		case COLUMN_TYPE:
			return take_string(r, &event->type);
		case COLUMN_SOURCE:
			return take_string(r, &event->source);
		case COLUMN_CONTEXT:
			return take_object(r, &event->context);
		case COLUMN_USER_ID:
			return take_string(r, &event->user_id);
		case COLUMN_EVENT_ID:
			return take_string(r, &event->event_id);
		case COLUMN_SEQUENCE:
			return take_sequence(r);
		case COLUMN_PROPERTIES:
			return take_object(r, &event->properties);
		case COLUMN_OCCURRED_AT:
			event->has_occurred_at = true;
			return take_string(r, &time) &&
				   instant_parse(time.data, time.length, &event->occurred_at);
		case COLUMN_ANONYMOUS_ID:
			return take_string(r, &event->anonymous_id);
		case NO_COLUMN:
			break;
	}
	return false;
}

bool
envelope_add_native(Frame *frame, const char *text, size_t length, size_t *offset)
{
	Reader r = {text, text + *offset, text + length};
	Column column = NO_COLUMN;
	uint32 seen = 0;
	const char *start;

	skip_space(&r);
	start = r.cur;
	if (!take_char(&r, '{'))
		return false;
	do
	{
		skip_space(&r);
		column = take_key(&r, column);
		if (column == NO_COLUMN || (seen & (1 << column)) != 0 || !take_char(&r, ':') ||
			!take_column(&r, column))
			return false;
		seen |= 1 << column;
	} while (take_char(&r, ','));
	if (!take_char(&r, '}') || r.cur - start > behavior_max_event_size)
		return false;

	r.event.payload.data = start;
	r.event.payload.length = r.cur - start;
	skip_space(&r);
	*offset = r.cur - text;
	(void) frame_add(frame, &r.event, NULL, NULL);
	return true;
}

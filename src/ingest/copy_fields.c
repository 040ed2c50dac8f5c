/*
 * copy_fields.c
 *		Lines of a COPY to events, where nothing is unusual about them.
 *
 * A text is taken only if PostgreSQL's input function would make the same of it, whatever the
 * session's settings: a time must name its offset, an integer be made of digits, JSON be
 * storable.  Everything else is COPY's, so that its errors are PostgreSQL's own.
 * COPY has verified the encoding of what stands in its buffer.
 */
#include "postgres.h"

#include "core/instant.h"
#include "core/json.h"
#include "core/scan.h"
#include "ingest/copy_ahead.h"
#include "ingest/event.h"
#include "ingest/frame_internal.h"

#define MAX_DIGITS	  18 /* of an integer that cannot overflow */
#define SHORTEST_TIME 17 /* 2000-01-01 00:00Z */
#define LONGEST_TIME  64 /* PostgreSQL refuses what is much longer */

/* Where fields are cut from a line, and what quoted ones are copied to. */
typedef struct FieldReader
{
	const char *cur;
	const char *end;
	char *free_bytes; /* as many as the line has and SCAN_WIDTH more; NULL until needed */
	size_t length;
	const CopyFormatOptions *options;
} FieldReader;

/*
 * Reads what stands between quotes, of which the first is behind us; a doubled quote is one.
 * False when the line ends before.
 */
static bool
read_quoted(FieldReader *r, TextField *field)
{
	const char quote = r->options->quote[0];
	const char *cur = r->cur;
	const char *end = r->end;
	char *out;

	if (r->free_bytes == NULL)
		r->free_bytes = palloc(r->length + 16);
	out = r->free_bytes;
	field->data = out;
	for (;;)
	{
#ifdef SCAN_WIDTH
		while (end - cur >= SCAN_WIDTH)
		{
			uint32 found = scan_block(cur, quote);
			int plain;

			memcpy(out, cur, SCAN_WIDTH);
			if (found == 0)
			{
				cur += SCAN_WIDTH;
				out += SCAN_WIDTH;
				continue;
			}
			plain = __builtin_ctz(found);
			cur += plain;
			out += plain;
			break;
		}
#endif
		while (cur < end && *cur != quote)
			*out++ = *cur++;
		if (cur == end)
			return false;
		cur++;
		if (cur == end || *cur != quote)
			break;
		*out++ = *cur++;
	}
	field->length = out - field->data;
	r->free_bytes = out;
	r->cur = cur;
	return true;
}

/* Reads the next field up to its delimiter or the end of the line; data is NULL for a NULL. */
static bool
read_field(FieldReader *r, TextField *field)
{
	const CopyFormatOptions *options = r->options;
	char special = options->csv_mode ? options->quote[0] : '\\';

	if (options->csv_mode && r->cur < r->end && *r->cur == special)
	{
		r->cur++;
		return read_quoted(r, field) && (r->cur == r->end || *r->cur == options->delim[0]);
	}

	field->data = r->cur;
	r->cur = scan_for3(r->cur, r->end, options->delim[0], special, '\r');
	if (r->cur < r->end && *r->cur == special && !options->csv_mode)
	{
		/* The usual marker of NULL begins with a backslash; any other escape is COPY's. */
		if (r->end - r->cur < 2)
			return false;
		r->cur += 2;
		if (r->cur - field->data != options->null_print_len ||
			memcmp(field->data, options->null_print, options->null_print_len) != 0)
			return false;
	}
	if (r->cur < r->end && *r->cur != options->delim[0])
		return false;
	field->length = r->cur - field->data;
	if (field->length == options->null_print_len &&
		memcmp(field->data, options->null_print, field->length) == 0)
	{
		field->data = NULL;
		field->length = 0;
	}
	return true;
}

static bool
read_time(const TextField *field, TimestampTz *value)
{
	const char *end = field->data + field->length;

	/* Without an offset it would be a time of the session's zone; what stands behind a second */
	if (field->length < SHORTEST_TIME || field->length > LONGEST_TIME ||
		(field->data[10] != ' ' && field->data[10] != 'T'))
		return false;
	if (end[-1] != 'Z' && end[-3] != '+' && end[-3] != '-' &&
		(end[-3] != ':' || (end[-6] != '+' && end[-6] != '-')))
		return false;
	return instant_parse(field->data, field->length, value);
}

static bool
read_integer(const TextField *field, int64 *value)
{
	bool negative = field->length > 0 && field->data[0] == '-';
	int64 result = 0;

	if (field->length - negative < 1 || field->length - negative > MAX_DIGITS)
		return false;
	for (int i = negative; i < field->length; i++)
	{
		if (field->data[i] < '0' || field->data[i] > '9')
			return false;
		result = result * 10 + (field->data[i] - '0');
	}
	*value = negative ? -result : result;
	return true;
}

static bool
read_json(const TextField *field, Jsonb **value)
{
	size_t offset = 0;
	JsonError error;
	JsonNode *node = json_parse(field->data, field->length, &offset, &error);

	if (node == NULL || node->flaw != NULL || offset != field->length)
		return false;
	*value = json_to_jsonb(node);
	return *value != NULL;
}

/* Puts a field into its column; false when PostgreSQL must read it. */
static bool
set_column(Event *event, int column, const TextField *field)
{
	TimestampTz time;
	int64 integer;

	if (field->data == NULL)
		return true;
	switch (column)
	{
		case EVENT_EVENT_ID:
			event->event_id = *field;
			return true;
		case EVENT_SOURCE:
			event->source = *field;
			return true;
		case EVENT_TYPE:
			event->type = *field;
			return true;
		case EVENT_USER_ID:
			event->user_id = *field;
			return true;
		case EVENT_ANONYMOUS_ID:
			event->anonymous_id = *field;
			return true;
		case EVENT_OCCURRED_AT:
			event->has_occurred_at = true;
			return read_time(field, &event->occurred_at);
		case EVENT_SEQUENCE:
			event->has_sequence = true;
			return read_integer(field, &event->sequence);
		case EVENT_PROPERTIES:
			return read_json(field, &event->properties);
		case EVENT_CONTEXT:
			return read_json(field, &event->context);
		case EVENT_ACTOR:
			return true;
		case EVENT_RECEIVED_AT:
			return read_time(field, &time);
		case EVENT_BATCH_ID:
		case EVENT_TICK_ID:
			return read_integer(field, &integer);
		default:
			return false;
	}
}

bool
copy_take_event(Frame *frame, CopyFromState copy, const char *line, size_t length)
{
	FieldReader reader = {line, line + length, NULL, length, &copy->opts};
	Event event = {0};
	int last = list_length(copy->attnumlist) - 1;

	/* The end-of-data marker */
	if (length == 0 || line[0] == '\\')
		return false;
	for (int i = 0; i <= last; i++)
	{
		TextField field;

		if (!read_field(&reader, &field) ||
			!set_column(&event, list_nth_int(copy->attnumlist, i), &field))
			return false;
		if ((reader.cur == reader.end) != (i == last))
			return false;
		reader.cur++;
	}
	(void) frame_add(frame, &event, NULL, NULL);
	return true;
}

bool
copy_line_is_plain(CopyFromState copy, const char *line, size_t length)
{
	const CopyFormatOptions *options = &copy->opts;
	const char *end = line + length;

	if (length == 0 || line[0] == '\\' ||
		scan_for3(line, end, options->delim[0], options->csv_mode ? options->quote[0] : '\\',
				  '\r') != end)
		return false;
	return length != options->null_print_len || memcmp(line, options->null_print, length) != 0;
}

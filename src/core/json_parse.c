/*
 * json_parse.c
 *		JSON text to a tree.
 *
 * One pass over the text and no recursion.  The containers that are open stand
 * on a stack of JSON_MAX_DEPTH levels; of deeper ones only the kind is kept, a
 * bit each, so that the parser finds their ends and the values behind them
 * without building them.  The same when a value has too many nodes.
 *
 * Nodes come from chunks, and so do unescaped strings: a palloc per node would
 * cost more than the parsing.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "core/decimal.h"
#include "core/json.h"
#include "core/json_escape.h"
#include "core/scan.h"

#define FIRST_CHUNK_NODES 24
#define MAX_CHUNK_NODES	  1024
#define BYTE_CHUNK		  1024

/* A literal shorter than this cannot leave numeric's range without an exponent. */
#define SAFE_NUMBER_LENGTH 1000

typedef struct Level
{
	JsonNode *node; /* NULL: not built */
	JsonNode *last; /* of its children */
	bool is_object;
} Level;

typedef struct Parser
{
	const char *text;
	const char *cur;
	const char *end;
	JsonError *error;
	JsonNode *free_nodes;
	int free_count;
	int chunk_nodes;
	int node_count;
	JsonNode *root;
	char *free_bytes;
	size_t free_byte_count;
	int depth;	 /* open containers */
	int deepest; /* the most that were open at a time */
	uint8 *deep; /* of those beyond JSON_MAX_DEPTH, a bit each: is it an object? */
	size_t deep_bytes;
	Level levels[JSON_MAX_DEPTH];
} Parser;

typedef struct String
{
	const char *data;
	int length;
	const JsonFlaw *flaw;
} String;

static const JsonFlaw flaw_encoding = {REASON_UNSTORABLE, "a string is not valid UTF-8"};
static const JsonFlaw flaw_number = {REASON_UNSTORABLE, "a number is out of the range of numeric"};
static const JsonFlaw flaw_depth = {REASON_MALFORMED_JSON,
									"nested deeper than " CppAsString2(JSON_MAX_DEPTH) " levels"};
static const JsonFlaw flaw_nodes = {
	REASON_TOO_LARGE, "more than " CppAsString2(JSON_MAX_NODES) " values in one JSON text"};

/* Fails at a place in the text; the message never quotes it. */
static bool
fail(Parser *p, const char *where, const char *message)
{
	p->error->reason = REASON_MALFORMED_JSON;
	p->error->offset = where - p->text;
	snprintf(p->error->message, sizeof(p->error->message), "%s at byte %zu",
			 where < p->end ? message : "the text ends early", p->error->offset + 1);
	return false;
}

static inline void
skip_space(Parser *p)
{
	while (p->cur < p->end &&
		   (*p->cur == ' ' || *p->cur == '\n' || *p->cur == '\r' || *p->cur == '\t'))
		p->cur++;
}

/* What PostgreSQL's lexer takes for part of a word: 1a is one bad token, not two. */
static inline bool
is_word_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
		   IS_HIGHBIT_SET(c);
}

/* Is the container at this level (1: outermost) an object? */
static inline bool
level_is_object(Parser *p, int depth)
{
	int bit = depth - 1 - JSON_MAX_DEPTH;

	if (bit < 0)
		return p->levels[depth - 1].is_object;
	return (p->deep[bit / 8] >> (bit % 8)) & 1;
}

/* The level that a new value belongs to; NULL at the top. */
static inline Level *
current_level(Parser *p)
{
	return p->depth > 0 ? &p->levels[Min(p->depth, JSON_MAX_DEPTH) - 1] : NULL;
}

static void
note_flaw(Parser *p, const JsonFlaw *flaw)
{
	for (int i = Min(p->depth, JSON_MAX_DEPTH) - 1; i >= 0; i--)
	{
		JsonNode *node = p->levels[i].node;

		if (node == NULL)
			continue;
		if (node->flaw != NULL)
			break;
		node->flaw = flaw;
	}
}

/*
 * A new node, linked to the container that is open; NULL when it is not to be built.
 */
static JsonNode *
add_node(Parser *p, JsonKind kind, const String *key)
{
	Level *parent = current_level(p);
	JsonNode *node;

	if (parent != NULL && (parent->node == NULL || p->depth > JSON_MAX_DEPTH))
		return NULL;
	if (p->node_count >= JSON_MAX_NODES)
	{
		/* Whatever else is wrong: values are missing from here on. */
		p->root->flaw = &flaw_nodes;
		return NULL;
	}
	if (p->free_count == 0)
	{
		p->free_count = p->chunk_nodes;
		p->free_nodes = palloc(p->chunk_nodes * sizeof(JsonNode));
		p->chunk_nodes = Min(p->chunk_nodes * 2, MAX_CHUNK_NODES);
	}
	node = p->free_nodes++;
	p->free_count--;
	p->node_count++;

	node->kind = kind;
	node->length = 0;
	node->text = NULL;
	node->first_child = NULL;
	node->next = NULL;
	node->key = key->data;
	node->key_length = key->length;
	node->start = p->cur - p->text;
	node->end = 0;
	node->flaw = NULL;

	if (parent == NULL)
		p->root = node;
	else
	{
		if (parent->last == NULL)
			parent->node->first_child = node;
		else
			parent->last->next = node;
		parent->last = node;
		parent->node->length++;
	}
	return node;
}

static char *
take_bytes(Parser *p, size_t count)
{
	char *result;

	if (count > p->free_byte_count)
	{
		if (count > BYTE_CHUNK / 4)
			return palloc(count);
		p->free_bytes = palloc(BYTE_CHUNK);
		p->free_byte_count = BYTE_CHUNK;
	}
	result = p->free_bytes;
	p->free_bytes += count;
	p->free_byte_count -= count;
	return result;
}

/* Undoes the escapes of what stands between from and to. */
static bool
unescape(Parser *p, const char *from, const char *to, String *string)
{
	char *out = take_bytes(p, to - from);
	const char *bad = json_unescape(from, to, out, &string->length, &string->flaw);

	string->data = out;
	return bad == NULL || fail(p, bad, "an escape sequence is invalid");
}

/* Reads the string whose opening quote is at cur. */
static bool
parse_string(Parser *p, String *string)
{
	const char *start = ++p->cur;
	const char *cur = start;
	bool escapes = false;
	bool high_bits = false;

	for (;;)
	{
		cur = scan_json_run(cur, p->end, &high_bits);
		if (cur >= p->end)
			return fail(p, cur, "");
		if (*cur == '"')
			break;
		if (*cur != '\\')
			return fail(p, cur, "a control character must be escaped");
		escapes = true;
		if (cur + 1 >= p->end)
			return fail(p, p->end, "");
		if ((unsigned char) cur[1] < 0x20)
			return fail(p, cur, "an escape sequence is invalid");
		cur += 2;
	}
	p->cur = cur + 1;

	string->flaw = NULL;
	if (escapes)
	{
		if (!unescape(p, start, cur, string))
			return false;
	}
	else
	{
		string->data = start;
		string->length = cur - start;
	}
	if (high_bits && string->flaw == NULL &&
		pg_encoding_verifymbstr(PG_UTF8, start, cur - start) != cur - start)
		string->flaw = &flaw_encoding;
	return true;
}

/* Reads the number that starts at cur. */
static bool
parse_number(Parser *p, String *number)
{
	const char *start = p->cur;
	const char *cur = start;
	bool exponent = false;

	if (*cur == '-')
		cur++;
	if (cur < p->end && *cur == '0')
		cur++;
	else if (cur < p->end && *cur >= '1' && *cur <= '9')
	{
		while (cur < p->end && *cur >= '0' && *cur <= '9')
			cur++;
	}
	else
		return fail(p, cur, "a number is invalid");
	if (cur < p->end && *cur == '.')
	{
		const char *fraction = ++cur;

		while (cur < p->end && *cur >= '0' && *cur <= '9')
			cur++;
		if (cur == fraction)
			return fail(p, cur, "a number is invalid");
	}
	if (cur < p->end && (*cur == 'e' || *cur == 'E'))
	{
		const char *digits;

		exponent = true;
		cur++;
		if (cur < p->end && (*cur == '+' || *cur == '-'))
			cur++;
		digits = cur;
		while (cur < p->end && *cur >= '0' && *cur <= '9')
			cur++;
		if (cur == digits)
			return fail(p, cur, "a number is invalid");
	}
	/* An address or a date is no number with something behind it. */
	if (cur < p->end && (is_word_char(*cur) || *cur == '.' || *cur == '-' || *cur == '+'))
		return fail(p, cur, "a number is invalid");
	p->cur = cur;

	number->data = start;
	number->length = cur - start;
	number->flaw = NULL;
	if (exponent || number->length >= SAFE_NUMBER_LENGTH)
	{
		Decimal decimal;

		decimal_parse(&decimal, number->data, number->length);
		if (!decimal_storable(&decimal))
			number->flaw = &flaw_number;
	}
	return true;
}

/* Reads true, false or null. */
static bool
parse_word(Parser *p, JsonKind *kind)
{
	static const struct
	{
		const char *word;
		int length;
		JsonKind kind;
	} words[] = {{"true", 4, JSON_TRUE}, {"false", 5, JSON_FALSE}, {"null", 4, JSON_NULL}};

	for (int i = 0; i < lengthof(words); i++)
	{
		int length = words[i].length;

		if (p->end - p->cur >= length && memcmp(p->cur, words[i].word, length) == 0 &&
			(p->end - p->cur == length || !is_word_char(p->cur[length])))
		{
			*kind = words[i].kind;
			p->cur += length;
			return true;
		}
	}
	return fail(p, p->cur, "a value is expected");
}

/* Opens the container at cur, whose node was added. */
static void
push_level(Parser *p, JsonNode *node, bool is_object)
{
	if (p->depth < JSON_MAX_DEPTH)
	{
		p->levels[p->depth].node = node;
		p->levels[p->depth].last = NULL;
		p->levels[p->depth].is_object = is_object;
	}
	else
	{
		size_t bit = p->depth - JSON_MAX_DEPTH;

		if (bit / 8 >= p->deep_bytes)
		{
			size_t bytes = p->deep_bytes == 0 ? 64 : p->deep_bytes * 2;

			p->deep = p->deep_bytes == 0 ? palloc(bytes) : repalloc(p->deep, bytes);
			p->deep_bytes = bytes;
		}
		if (is_object)
			p->deep[bit / 8] |= 1 << (bit % 8);
		else
			p->deep[bit / 8] &= ~(1 << (bit % 8));
		note_flaw(p, &flaw_depth);
	}
	p->depth++;
	p->deepest = Max(p->deepest, p->depth);
}

/* Reads a key and its colon. */
static bool
parse_key(Parser *p, String *key)
{
	skip_space(p);
	if (p->cur >= p->end || *p->cur != '"')
		return fail(p, p->cur, "a key is expected");
	if (!parse_string(p, key))
		return false;
	skip_space(p);
	if (p->cur >= p->end || *p->cur != ':')
		return fail(p, p->cur, "\":\" is expected");
	p->cur++;
	return true;
}

/*
 * Reads what follows a value: closes containers up to the next comma, and reads
 * the key behind it in an object.  Sets *done when the outermost one is closed.
 */
static bool
parse_after_value(Parser *p, String *key, bool *done)
{
	for (;;)
	{
		bool is_object;

		if (p->depth == 0)
		{
			*done = true;
			return true;
		}
		is_object = level_is_object(p, p->depth);
		skip_space(p);
		if (p->cur < p->end && *p->cur == ',')
		{
			p->cur++;
			return is_object ? parse_key(p, key) : true;
		}
		if (p->cur >= p->end || *p->cur != (is_object ? '}' : ']'))
			return fail(p, p->cur,
						is_object ? "\",\" or \"}\" is expected" : "\",\" or \"]\" is expected");
		p->cur++;
		p->depth--;
		if (p->depth < JSON_MAX_DEPTH && p->levels[p->depth].node != NULL)
			p->levels[p->depth].node->end = p->cur - p->text;
	}
}

static bool
parse_all(Parser *p)
{
	String key = {NULL, 0, NULL};
	bool done = false;

	while (!done)
	{
		String value = {NULL, 0, NULL};
		const char *start;
		JsonKind kind;
		JsonNode *node;

		skip_space(p);
		start = p->cur;
		if (start >= p->end)
			return fail(p, start, "");
		if (key.flaw != NULL)
			note_flaw(p, key.flaw);

		if (*start == '{' || *start == '[')
		{
			bool is_object = *start == '{';

			node = p->depth < JSON_MAX_DEPTH
					   ? add_node(p, is_object ? JSON_OBJECT : JSON_ARRAY, &key)
					   : NULL;
			push_level(p, node, is_object);
			p->cur++;
			key = (String){NULL, 0, NULL};
			skip_space(p);
			if (p->cur < p->end && *p->cur == (is_object ? '}' : ']'))
			{
				/* Closed at once: what follows is read as behind any value. */
				p->cur++;
				p->depth--;
				if (node != NULL)
					node->end = p->cur - p->text;
			}
			else if (is_object)
			{
				if (!parse_key(p, &key))
					return false;
				continue;
			}
			else
				continue;
		}
		else
		{
			if (*start == '"')
			{
				kind = JSON_STRING;
				if (!parse_string(p, &value))
					return false;
			}
			else if (*start == '-' || (*start >= '0' && *start <= '9'))
			{
				kind = JSON_NUMBER;
				if (!parse_number(p, &value))
					return false;
			}
			else if (!parse_word(p, &kind))
				return false;

			node = add_node(p, kind, &key);
			if (node != NULL)
			{
				node->text = value.data;
				node->length = value.length;
				node->flaw = value.flaw;
				node->start = start - p->text;
				node->end = p->cur - p->text;
			}
			if (value.flaw != NULL)
				note_flaw(p, value.flaw);
			key = (String){NULL, 0, NULL};
		}
		if (!parse_after_value(p, &key, &done))
			return false;
	}
	skip_space(p);
	return true;
}

static void
begin_parse(Parser *p, const char *text, size_t length, size_t offset, JsonError *error)
{
	p->text = text;
	p->cur = text + offset;
	p->end = text + length;
	p->error = error;
	p->free_nodes = NULL;
	p->free_count = 0;
	p->chunk_nodes = FIRST_CHUNK_NODES;
	p->node_count = 0;
	p->root = NULL;
	p->free_bytes = NULL;
	p->free_byte_count = 0;
	p->depth = 0;
	p->deepest = 0;
	p->deep = NULL;
	p->deep_bytes = 0;
}

JsonNode *
json_parse(const char *text, size_t length, size_t *offset, JsonError *error)
{
	Parser p;

	begin_parse(&p, text, length, *offset, error);
	if (!parse_all(&p))
		return NULL;
	*offset = p.cur - text;
	return p.root;
}

JsonNode *
json_parse_member(const char *text, size_t length, size_t *offset)
{
	JsonError error;
	Parser p;

	begin_parse(&p, text, length, *offset, &error);
	if (!parse_all(&p) || p.deepest >= JSON_MAX_DEPTH || p.node_count > JSON_MAX_NODES / 2)
		return NULL;
	*offset = p.cur - text;
	return p.root;
}

JsonNode *
json_member(const JsonNode *object, const char *name)
{
	int length = strlen(name);
	JsonNode *found = NULL;

	if (object->kind != JSON_OBJECT)
		return NULL;
	for (JsonNode *child = object->first_child; child != NULL; child = child->next)
	{
		if (child->key_length == length && memcmp(child->key, name, length) == 0)
			found = child;
	}
	return found;
}

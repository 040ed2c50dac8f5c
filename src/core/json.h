/*
 * json.h
 *		JSON text to a tree and from there to jsonb, with nothing that raises.
 *
 * jsonb_in reports bad input with ereport, and PostgreSQL 15 has no soft errors,
 * so the JSON door has its own parser.  It accepts what jsonb_in accepts (RFC
 * 8259; a repeated key: the last one wins) and refuses, with a reason and a
 * message: bad syntax, escapes that are no character (lone surrogates), \u0000
 * and invalid UTF-8 (unstorable), nesting deeper than JSON_MAX_DEPTH, numbers
 * that numeric cannot hold.  Memory comes from the current context; nodes
 * point into the text where no unescaping was needed, so the text must
 * outlive them.
 */
#ifndef BEHAVIOR_JSON_H
#define BEHAVIOR_JSON_H

#include "utils/jsonb.h"

#include "core/errors.h"

#define JSON_MAX_DEPTH	512

typedef enum JsonKind
{
	JSON_NULL,
	JSON_FALSE,
	JSON_TRUE,
	JSON_NUMBER,				/* text: the literal as it stands */
	JSON_STRING,				/* text: unescaped, UTF-8 */
	JSON_ARRAY,
	JSON_OBJECT
} JsonKind;

typedef struct JsonNode
{
	JsonKind	kind;
	int			length;			/* bytes of text, or number of children */
	const char *text;			/* number, string: not terminated */
	struct JsonNode *first_child;	/* array, object: linked by next */
	struct JsonNode *next;
	const char *key;			/* member of an object: unescaped, not terminated */
	int			key_length;
} JsonNode;

typedef struct JsonError
{
	Reason		reason;			/* REASON_MALFORMED_JSON or REASON_UNSTORABLE */
	size_t		offset;			/* where in the text */
	char		message[160];
} JsonError;

/*
 * Parses one JSON value that starts at text[*offset], skipping white space
 * around it, and advances *offset behind it: a line may hold several.  Returns
 * NULL and fills *error when it is not well-formed.
 */
extern JsonNode *json_parse(const char *text, size_t length, size_t *offset, JsonError *error);

/* The member of an object by name; of repeated ones the last.  NULL when there is none. */
extern JsonNode *json_member(const JsonNode *object, const char *name);

/* A parsed tree as jsonb, equal to what jsonb_in makes of the same text. */
extern Jsonb *json_to_jsonb(const JsonNode *node);

#endif

/*
 * json.h
 *		JSON text to a tree and from there to jsonb, with nothing that raises.
 *
 * jsonb_in reports bad input with ereport, and PostgreSQL 15 has no soft errors,
 * so the JSON door has its own parser.  It accepts what jsonb_in accepts (RFC
 * 8259; a repeated key: the last one wins).  Bad syntax ends the parse.  What is
 * well-formed but cannot be kept is a flaw of the node that has it and of all
 * that hold it, so that one such event of many costs only itself: escapes that
 * are no character (lone surrogates), \u0000, invalid UTF-8, numbers that
 * numeric cannot hold, nesting deeper than JSON_MAX_DEPTH.  Of a text of more than
 * JSON_MAX_NODES values the rest is not in the tree, and the root says so.  Memory comes from
 * the current context; nodes point into the text where no unescaping was
 * needed, so the text must outlive them.
 */
#ifndef BEHAVIOR_JSON_H
#define BEHAVIOR_JSON_H

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

#include "core/errors.h"

#define JSON_MAX_DEPTH 512
#define JSON_MAX_NODES 4000000 /* of one value: 256 MB of memory */

typedef enum JsonKind
{
	JSON_NULL,
	JSON_FALSE,
	JSON_TRUE,
	JSON_NUMBER, /* text: the literal as it stands */
	JSON_STRING, /* text: unescaped, UTF-8 */
	JSON_ARRAY,
	JSON_OBJECT
} JsonKind;

/* Why a well-formed value cannot be kept. */
typedef struct JsonFlaw
{
	Reason reason; /* REASON_UNSTORABLE, REASON_MALFORMED_JSON or REASON_TOO_LARGE */
	const char *message;
} JsonFlaw;

typedef struct JsonNode
{
	JsonKind kind;
	int length;					  /* bytes of text, or number of children */
	const char *text;			  /* number, string: not terminated */
	struct JsonNode *first_child; /* array, object: linked by next */
	struct JsonNode *next;
	const char *key; /* member of an object: unescaped, not terminated */
	int key_length;
	int start; /* where its text begins and ends in the text parsed */
	int end;
	const JsonFlaw *flaw; /* its own or the first of its children's; NULL: none */
} JsonNode;

typedef struct JsonError
{
	Reason reason; /* REASON_MALFORMED_JSON */
	size_t offset; /* where in the text */
	char message[160];
} JsonError;

/*
 * Parses one JSON value that starts at text[*offset], skipping white space
 * around it, and advances *offset behind it: a line may hold several.  Returns
 * NULL and fills *error when it is not well-formed.
 */
extern JsonNode *json_parse(const char *text, size_t length, size_t *offset, JsonError *error);

/*
 * The same for a value inside of another that its caller reads: NULL also when it is so deep, or
 * has so many values, that the whole might be beyond a limit.
 */
extern JsonNode *json_parse_member(const char *text, size_t length, size_t *offset);

/* The member of an object by name; of repeated ones the last.  NULL when there is none. */
extern JsonNode *json_member(const JsonNode *object, const char *name);

/*
 * A parsed tree without a flaw as jsonb, the same bytes as jsonb_in makes of the text.
 * NULL when it is larger than jsonb can be.
 */
extern Jsonb *json_to_jsonb(const JsonNode *node);

/* An object of these members; of repeated keys the last one wins.  NULL as above. */
extern Jsonb *json_members_to_jsonb(JsonNode *const *members, int count);

/* A jsonb as a tree, and the text that the tree points into. */
extern JsonNode *json_of_jsonb(Jsonb *jsonb, const char **text);

/*
 * Appends the text of "target" with a merge patch (RFC 7396) applied.  Both were parsed without an
 * error from their texts; the patch has no repeated keys.  target NULL: there is nothing yet.
 */
extern void json_merge_patch(StringInfo out, const char *text, const JsonNode *target,
							 const char *patch_text, const JsonNode *patch);

#endif

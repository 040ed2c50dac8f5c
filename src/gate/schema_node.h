/*
 * schema_node.h
 *		What a JSON schema is compiled to, and how the parts of the engine call each other.
 *
 * A node is one schema.  Its keywords are gathered by the type of instance that they look at, so
 * that an event costs what its own values need; those that look at any (enum, $ref, allOf …) are
 * the in-place rules.  Compiling never follows a $ref at once but puts it on a list, so that
 * nesting is that of the text.
 *
 * Limits, the same everywhere so that answers do not depend on the backend: SCHEMA_MAX_NESTING
 * levels of a schema, SCHEMA_MAX_CHAIN schemas that are applied to one value one inside of the
 * other, SCHEMA_MAX_DEPTH schemas being checked one inside of the other, and steps in proportion to
 * the size of the instance.
 */
#ifndef BEHAVIOR_SCHEMA_NODE_H
#define BEHAVIOR_SCHEMA_NODE_H

#include "gate/json_schema.h"
#include "gate/jsonb_slot.h"

#define SCHEMA_MAX_NESTING 500
#define SCHEMA_MAX_CHAIN   500
#define SCHEMA_MAX_DEPTH   3000
#define SCHEMA_BASE_STEPS  INT64CONST(20000000)
#define SCHEMA_BYTE_STEPS  64

typedef enum SchemaDraft
{
	SCHEMA_DRAFT_UNKNOWN = 0,
	SCHEMA_DRAFT_7 = 0x01,
	SCHEMA_DRAFT_2020_12 = 0x02
} SchemaDraft;

/* Where something is in a schema: a chain of tokens to the root of the document. */
typedef struct SchemaPlace
{
	const struct SchemaPlace *parent; /* NULL: the root */
	const char *token;				  /* root: what its pointers start with; NULL: index */
	int length;						  /* or the index */
} SchemaPlace;

/* The name a $ref may use for a schema. */
typedef struct SchemaAnchor
{
	const char *name;
	int length;
	bool dynamic;
	JsonSlot slot;
	const SchemaPlace *place;
	struct SchemaNode *node; /* a dynamic one's, once compiled */
	struct SchemaAnchor *next;
} SchemaAnchor;

/* A schema with a URI of its own, and what is in it but for other resources. */
typedef struct SchemaResource
{
	const char *uri; /* no fragment */
	JsonSlot root;
	const SchemaPlace *place;
	SchemaDraft draft;
	bool built_in;
	SchemaAnchor *anchors;
	struct SchemaResource *next;
} SchemaResource;

typedef struct SchemaNode SchemaNode;
typedef struct SchemaRegex SchemaRegex;

typedef enum SchemaFormat
{
	SCHEMA_FORMAT_NONE,
	SCHEMA_FORMAT_DATE_TIME,
	SCHEMA_FORMAT_DATE,
	SCHEMA_FORMAT_TIME,
	SCHEMA_FORMAT_DURATION,
	SCHEMA_FORMAT_EMAIL,
	SCHEMA_FORMAT_HOSTNAME,
	SCHEMA_FORMAT_IPV4,
	SCHEMA_FORMAT_IPV6,
	SCHEMA_FORMAT_URI,
	SCHEMA_FORMAT_UUID,
	SCHEMA_FORMAT_JSON_POINTER,
	SCHEMA_FORMAT_REGEX
} SchemaFormat;

typedef struct StringRules
{
	int min_length; /* characters */
	int max_length;
	SchemaFormat format;
	SchemaRegex *pattern;
} StringRules;

/* Numeric of a limit, NULL: none. */
typedef struct NumberRules
{
	const char *minimum;
	const char *maximum;
	const char *exclusive_minimum;
	const char *exclusive_maximum;
	const char *multiple_of;
} NumberRules;

typedef struct ArrayRules
{
	int min_items;
	int max_items;
	bool unique;
	int prefix_count;
	SchemaNode **prefix;
	SchemaNode *rest; /* elements behind the prefix */
	SchemaNode *contains;
	int min_contains;
	int max_contains;
	bool contains_evaluates; /* not in draft 7 */
} ArrayRules;

/* What an object must have when it has a member. */
typedef struct SchemaDependency
{
	const char *keyword;
	JsonSlot required;	/* array of names, or type 0 */
	SchemaNode *schema; /* or NULL */
	struct SchemaDependency *next;
} SchemaDependency;

typedef struct SchemaProperty
{
	const char *key;
	int length;
	bool required;
	SchemaNode *schema; /* of "properties", or NULL */
	SchemaDependency *dependencies;
} SchemaProperty;

typedef struct SchemaPattern
{
	SchemaRegex *regex;
	SchemaNode *schema;
} SchemaPattern;

typedef struct ObjectRules
{
	int min_properties;
	int max_properties;
	int required_count;
	int property_count;
	SchemaProperty *properties; /* in jsonb's order of keys */
	int pattern_count;
	SchemaPattern *patterns;
	SchemaNode *additional;
	SchemaNode *names;
} ObjectRules;

typedef struct SchemaList
{
	const char *keyword;
	int count;
	SchemaNode **nodes;
} SchemaList;

typedef struct InPlaceRules
{
	bool has_const;
	JsonSlot constant;
	int enum_count;
	JsonSlot *values; /* of enum; strings first, in jsonb's order of keys */
	int enum_strings;
	JsonSlot enum_list; /* as it is written; type 0: no enum */
	SchemaNode *ref;
	SchemaNode *dynamic_ref; /* where it leads when nothing in the dynamic scope says otherwise */
	const char *dynamic_anchor; /* NULL: it always leads there */
	int dynamic_anchor_length;
	SchemaList all_of;
	SchemaList any_of;
	SchemaList one_of;
	SchemaNode * not ;
	SchemaNode *if_schema;
	SchemaNode *then_schema;
	SchemaNode *else_schema;
} InPlaceRules;

#define MEASURE_NONE	  0
#define MEASURE_UNDER_WAY 1
#define MEASURE_DONE	  2

struct SchemaNode
{
	bool always;   /* true or false: */
	bool verdict;  /* which of them */
	uint8 types;   /* that are allowed */
	uint8 measure; /* of chain: MEASURE_… */
	int chain;	   /* schemas that this one applies to the same value, one inside of the other */
	StringRules *string;
	NumberRules *number;
	ArrayRules *array;
	ObjectRules *object;
	InPlaceRules *in_place;
	SchemaNode *unevaluated_items;
	SchemaNode *unevaluated_properties;
	const SchemaResource *resource;
	const SchemaPlace *place;
	SchemaNode *next; /* of all nodes */
};

struct JsonSchema
{
	const SchemaNode *root;
	bool has_dynamic; /* some $dynamicRef looks at the dynamic scope */
	SchemaNode *nodes;
	SchemaResource *resources;
};

/* schema_check.c: one check. */
typedef struct SchemaScope
{
	const SchemaResource *resource;
	const struct SchemaScope *outer;
} SchemaScope;

typedef struct SchemaCheck
{
	const JsonSchema *schema;
	List **errors; /* NULL: the first one ends it */
	int limit;
	int64 steps; /* left */
	int depth;
	const char *given_up; /* NULL, or the limit that was reached */
	const SchemaScope *scope;
} SchemaCheck;

/* Which members or elements of an instance some schema has looked at. */
#define EVALUATED_INLINE 2
typedef struct Evaluated
{
	bool all;
	int words; /* of bits */
	uint64 *bits;
	uint64 few[EVALUATED_INLINE];
} Evaluated;

static inline void
evaluated_mark(Evaluated *evaluated, int index)
{
	if (evaluated != NULL)
		evaluated->bits[index / 64] |= UINT64CONST(1) << (index % 64);
}

static inline bool
evaluated_has(const Evaluated *evaluated, int index)
{
	return evaluated->all || (evaluated->bits[index / 64] >> (index % 64)) & 1;
}

extern bool schema_check_node(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot,
							  Evaluated *evaluated);

/* Takes steps off the check's; false when there are none left. */
extern bool schema_check_work(SchemaCheck *check, int64 steps);

/* The same for a regular expression; what it does not answer in time is no match. */
extern bool
schema_check_regex(SchemaCheck *check, const SchemaRegex *regex, const char *text, int length);

/* Adds an error about a keyword of a node (NULL: about the node), if errors are wanted. */
extern void schema_report(SchemaCheck *check, const SchemaNode *node, const char *keyword,
						  const JsonSlot *slot, const char *format, ...) pg_attribute_printf(5, 6);

/* Of a noun behind a number. */
#define PLURAL(count) ((count) == 1 ? "" : "s")

/* Should the check go on after something was found? */
static inline bool
schema_check_goes_on(const SchemaCheck *check)
{
	return check->errors != NULL && check->given_up == NULL &&
		   (check->limit == 0 || list_length(*check->errors) < check->limit);
}

/* Takes note of what a part of the check found; true when that ends it. */
static inline bool
schema_check_ends(const SchemaCheck *check, bool part, bool *valid)
{
	if (part)
		return false;
	*valid = false;
	return !schema_check_goes_on(check);
}

/* Appends the JSON pointer of a schema: schema_resource.c. */
extern void schema_place_pointer(StringInfo pointer, const SchemaPlace *place);

/* schema_values.c: rules of a type. */
extern bool schema_check_string(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot);
extern bool schema_check_number(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot);
extern bool schema_check_array(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot,
							   Evaluated *evaluated);
extern bool schema_check_value(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot);

/* schema_object.c */
extern bool schema_check_object(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot,
								Evaluated *evaluated);

/* schema_format.c */
extern SchemaFormat schema_format_by_name(const char *name, int length);
extern const char *schema_format_name(SchemaFormat format);
extern bool schema_format_matches(SchemaFormat format, const char *text, int length);

/* schema_regex.c */
typedef enum SchemaMatch
{
	SCHEMA_NO_MATCH,
	SCHEMA_MATCH,
	SCHEMA_MATCH_LIMIT
} SchemaMatch;

/* NULL, and why in *message, when the pattern is not valid. */
extern SchemaRegex *schema_regex_compile(const char *pattern, int length, char **message);
extern SchemaMatch
schema_regex_match(const SchemaRegex *regex, const char *text, int length, int64 *steps);

/* schema_regex_translate.c: an ECMA-262 pattern in PCRE2's language, or NULL and why not. */
extern char *
schema_regex_translate(const char *pattern, int length, bool *repeats, const char **message);

/* schema_meta.c: the text of a metaschema document by its URI, or NULL. */
extern const char *schema_meta_text(const char *uri);

#endif

/*
 * json_schema.h
 *		JSON Schema, drafts 2020-12 and 7, on jsonb: compiled once, checked many times.
 *
 * Nothing is ever fetched: a $ref leads into the schema itself, or to one of the metaschemas that
 * are built in, or compiling fails.
 */
#ifndef BEHAVIOR_JSON_SCHEMA_H
#define BEHAVIOR_JSON_SCHEMA_H

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

typedef struct JsonSchema JsonSchema;

/* What is wrong with an instance: JSON pointers into both, and a sentence. */
typedef struct JsonSchemaError
{
	const char *instance_path;
	const char *schema_path;
	const char *message;
} JsonSchemaError;

/* Options of compiling.  A schema may ask for it by itself: "x-assert-format": true at its root. */
#define JSON_SCHEMA_ASSERT_FORMAT 0x01 /* "format" is a rule, not only a remark */

/*
 * Compiles a schema into the current context, where all of it stays: delete the context to free
 * it.  Raises 22023 for a schema that is not valid, with the path in the detail.
 */
extern JsonSchema *json_schema_compile(Jsonb *schema);
extern JsonSchema *json_schema_compile_options(Jsonb *schema, int options);

/* The same with nothing raised: NULL, and what is wrong with the schema in *error. */
extern JsonSchema *json_schema_try_compile(Jsonb *schema, int options, JsonSchemaError *error);

/*
 * Is the instance valid?  Raises only for what has nothing to do with the instance (memory,
 * cancel). errors: NULL, or a list in the current context that JsonSchemaErrors are added to, at
 * most "limit" (0: all); without it the check ends at the first thing found.  Allocates nothing for
 * a valid instance of a schema without unevaluated… and uniqueItems.  Reaching a limit (steps,
 * depth, those of a regular expression) makes the instance invalid, whatever "not" says.
 */
extern bool json_schema_check(const JsonSchema *schema, const JsonbContainer *instance,
							  List **errors, int limit);

/*
 * The compiled form of a schema from this backend's cache, valid until the next call of it.
 * Raises as json_schema_compile() does.
 */
extern const JsonSchema *json_schema_cached(Jsonb *schema, int options);

#endif

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

/*
 * Compiles a schema into the current context, where all of it stays: delete the context to free
 * it.  Raises 22023 for a schema that is not valid, with the path in the detail.
 */
extern JsonSchema *json_schema_compile(Jsonb *schema);

/*
 * Is the instance valid?  Raises only for what has nothing to do with the instance (memory,
 * cancel). errors: NULL, or a list in the current context that JsonSchemaErrors are added to, at
 * most "limit" (0: all); without it the check ends at the first thing found.
 */
extern bool json_schema_check(const JsonSchema *schema, const JsonbContainer *instance,
							  List **errors, int limit);

#endif

/*
 * json_schema.c
 *		The SQL face of JSON Schema, and the cache of compiled schemas of a backend.
 *
 * A compiled schema is found by a hash of the schema's bytes, which are compared then.  What was
 * used last is tried first, without hashing: a query checks many values against one schema.  The
 * cache holds CACHE_BYTES at most, but for the schema used last, and forgets by least recent use.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/ilist.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "core/compat.h"
#include "gate/json_schema.h"

PG_FUNCTION_INFO_V1(behavior_json_schema_valid);
PG_FUNCTION_INFO_V1(behavior_json_schema_errors);

#define CACHE_BYTES (8 * 1024 * 1024)

/* Rows of json_schema_errors() at most. */
#define MAX_ERRORS 1000

typedef struct CachedSchema
{
	uint64 hash; /* the key: of the bytes, and of the options */
	Jsonb *text;
	int options;
	JsonSchema *schema;
	MemoryContext context;
	Size size;
	dlist_node use;
} CachedSchema;

static HTAB *cache;
static dlist_head cache_uses = DLIST_STATIC_INIT(cache_uses); /* the latest first */
static Size cache_size;

static inline bool
is_same(const CachedSchema *entry, const Jsonb *schema, int options)
{
	return entry->options == options && VARSIZE(entry->text) == VARSIZE(schema) &&
		   memcmp(entry->text, schema, VARSIZE(schema)) == 0;
}

static void
forget(CachedSchema *entry)
{
	dlist_delete(&entry->use);
	cache_size -= entry->size;
	MemoryContextDelete(entry->context);
	hash_search(cache, &entry->hash, HASH_REMOVE, NULL);
}

/* Compiles into a context of its own, which outlives the query when all went well. */
static const JsonSchema *
remember(Jsonb *schema, int options, uint64 hash)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "behavior JSON schema", ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	Jsonb *text = (Jsonb *) memcpy(palloc(VARSIZE(schema)), schema, VARSIZE(schema));
	JsonSchema *compiled = json_schema_compile_options(text, options);
	CachedSchema *entry;

	MemoryContextSwitchTo(caller);
	entry = hash_search(cache, &hash, HASH_ENTER, NULL);
	entry->text = text;
	entry->options = options;
	entry->schema = compiled;
	entry->context = context;
	entry->size = MemoryContextMemAllocated(context, true);
	MemoryContextSetParent(context, TopMemoryContext);
	dlist_push_head(&cache_uses, &entry->use);
	cache_size += entry->size;
	while (cache_size > CACHE_BYTES && dlist_has_next(&cache_uses, &entry->use))
		forget(dlist_tail_element(CachedSchema, use, &cache_uses));
	return compiled;
}

const JsonSchema *
json_schema_cached(Jsonb *schema, int options)
{
	CachedSchema *entry;
	uint64 hash;

	if (!dlist_is_empty(&cache_uses))
	{
		entry = dlist_head_element(CachedSchema, use, &cache_uses);
		if (is_same(entry, schema, options))
			return entry->schema;
	}
	if (cache == NULL)
	{
		HASHCTL control = {.keysize = sizeof(uint64), .entrysize = sizeof(CachedSchema)};

		cache = hash_create("behavior JSON schemas", 64, &control, HASH_ELEM | HASH_BLOBS);
	}
	hash = hash_bytes_extended((const unsigned char *) VARDATA(schema), VARSIZE(schema) - VARHDRSZ,
							   (uint64) options);
	entry = hash_search(cache, &hash, HASH_FIND, NULL);
	if (entry != NULL && is_same(entry, schema, options))
	{
		dlist_move_head(&cache_uses, &entry->use);
		return entry->schema;
	}
	if (entry != NULL)
		forget(entry);
	return remember(schema, options, hash);
}

static const JsonSchema *
schema_argument(FunctionCallInfo fcinfo)
{
	return json_schema_cached(PG_GETARG_JSONB_P(0),
							  PG_GETARG_BOOL(2) ? JSON_SCHEMA_ASSERT_FORMAT : 0);
}

/* behavior.json_schema_valid(schema jsonb, instance jsonb, assert_format boolean) */
Datum
behavior_json_schema_valid(PG_FUNCTION_ARGS)
{
	Jsonb *instance = PG_GETARG_JSONB_P(1);

	PG_RETURN_BOOL(json_schema_check(schema_argument(fcinfo), &instance->root, NULL, 0));
}

/* behavior.json_schema_errors(schema jsonb, instance jsonb, assert_format boolean) */
Datum
behavior_json_schema_errors(PG_FUNCTION_ARGS)
{
	Jsonb *instance = PG_GETARG_JSONB_P(1);
	const JsonSchema *schema = schema_argument(fcinfo);
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	List *errors = NIL;
	ListCell *cell;

	InitMaterializedSRF(fcinfo, 0);
	if (json_schema_check(schema, &instance->root, NULL, 0))
		return (Datum) 0;
	json_schema_check(schema, &instance->root, &errors, MAX_ERRORS);
	foreach (cell, errors)
	{
		JsonSchemaError *error = lfirst(cell);
		Datum values[3] = {CStringGetTextDatum(error->instance_path),
						   CStringGetTextDatum(error->schema_path),
						   CStringGetTextDatum(error->message)};
		bool nulls[3] = {false, false, false};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

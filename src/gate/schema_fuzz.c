/*
 * schema_fuzz.c
 *		The tests' way to many random schemas and instances: behavior._json_schema_fuzz().
 *
 * Random ones from nothing are refused at once; so these are made of known ones, by replacing,
 * dropping, adding and renaming parts at random.  What is looked at: nothing crashes, hangs or
 * leaks, a check without a list of errors says the same as one with it, and errors are there if
 * and only if the instance is not valid.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "core/compat.h"
#include "core/json.h"
#include "gate/schema_node.h"

PG_FUNCTION_INFO_V1(behavior__json_schema_fuzz);

/* Of a value that is made. */
#define MAX_NODES 400
#define MAX_DEPTH 40

/* Checks of a schema that compiles. */
#define CHECKS 4

typedef struct Fuzz
{
	uint64 state; /* of the generator of random numbers */
	int count;
	JsonNode **nodes; /* of schemas, then of instances */
	int schemas;
	int made; /* nodes of the value that is being made */
	int rate; /* one node of so many is changed */
} Fuzz;

static const char *const words[] = {"$ref",
									"$defs",
									"$id",
									"$anchor",
									"$dynamicRef",
									"$dynamicAnchor",
									"$schema",
									"type",
									"enum",
									"const",
									"minimum",
									"maximum",
									"exclusiveMinimum",
									"exclusiveMaximum",
									"multipleOf",
									"minLength",
									"maxLength",
									"pattern",
									"format",
									"prefixItems",
									"items",
									"additionalItems",
									"unevaluatedItems",
									"contains",
									"minContains",
									"maxContains",
									"minItems",
									"maxItems",
									"uniqueItems",
									"properties",
									"patternProperties",
									"additionalProperties",
									"unevaluatedProperties",
									"propertyNames",
									"minProperties",
									"maxProperties",
									"required",
									"dependentRequired",
									"dependentSchemas",
									"dependencies",
									"allOf",
									"anyOf",
									"oneOf",
									"not",
									"if",
									"then",
									"else",
									"definitions",
									"foo",
									"bar",
									"",
									"a",
									"#",
									"#foo",
									"#/$defs/a",
									"#/properties/foo",
									"integer",
									"object",
									"array",
									"string",
									"date-time",
									"regex",
									"uri",
									"http://json-schema.org/draft-07/schema#",
									"https://json-schema.org/draft/2020-12/schema",
									".*",
									"^(a+)+$",
									"(x*)*y",
									"[a-z]{2,5}\\d",
									"\\p{L}",
									"(?<=a)b",
									"([",
									"\\1(.)",
									"~1~0%25",
									"2020-02-29T23:59:60Z",
									"é\xf0\x9f\x92\xa9"};

static const char *const numbers[] = {"0",
									  "1",
									  "-1",
									  "1.0",
									  "2.5",
									  "0.01",
									  "1e-7",
									  "3",
									  "10",
									  "1e3",
									  "99999999999999999999",
									  "1e308",
									  "1e20000",
									  "1e-9000",
									  "-0.0",
									  "123456789.000000001"};

/* SplitMix64. */
static uint64
next_random(Fuzz *fuzz)
{
	uint64 z = (fuzz->state += UINT64CONST(0x9E3779B97F4A7C15));

	z = (z ^ (z >> 30)) * UINT64CONST(0xBF58476D1CE4E5B9);
	z = (z ^ (z >> 27)) * UINT64CONST(0x94D049BB133111EB);
	return z ^ (z >> 31);
}

static int
below(Fuzz *fuzz, int limit)
{
	return limit <= 1 ? 0 : (int) (next_random(fuzz) % limit);
}

static JsonNode *
make_scalar(Fuzz *fuzz)
{
	JsonNode *node = palloc0(sizeof(JsonNode));
	int kind = below(fuzz, 10);

	if (kind < 4)
	{
		node->kind = JSON_STRING;
		node->text = words[below(fuzz, lengthof(words))];
	}
	else if (kind < 7)
	{
		node->kind = JSON_NUMBER;
		node->text = numbers[below(fuzz, lengthof(numbers))];
	}
	else
		node->kind = kind == 7 ? JSON_TRUE : kind == 8 ? JSON_FALSE : JSON_NULL;
	if (node->text != NULL)
		node->length = strlen(node->text);
	return node;
}

/* A part of one of the known values. */
static const JsonNode *
pick_part(Fuzz *fuzz)
{
	const JsonNode *node = fuzz->nodes[below(fuzz, fuzz->count)];

	while (node->first_child != NULL && below(fuzz, 3) > 0)
	{
		int steps = below(fuzz, node->length);

		for (node = node->first_child; steps > 0 && node->next != NULL; steps--)
			node = node->next;
	}
	return node;
}

static JsonNode *copy_changed(Fuzz *fuzz, const JsonNode *node, int depth);

static void
add_child(JsonNode *parent, JsonNode ***tail, JsonNode *child)
{
	child->next = NULL;
	**tail = child;
	*tail = &child->next;
	parent->length++;
}

static void
copy_children(Fuzz *fuzz, JsonNode *copy, const JsonNode *node, int depth)
{
	JsonNode **tail = &copy->first_child;

	copy->first_child = NULL;
	copy->length = 0;
	for (const JsonNode *child = node->first_child; child != NULL; child = child->next)
	{
		JsonNode *made;

		if (below(fuzz, fuzz->rate * 4) == 0)
			continue;
		made = copy_changed(fuzz, child, depth + 1);
		made->key = child->key;
		made->key_length = child->key_length;
		if (child->key != NULL && below(fuzz, fuzz->rate * 4) == 0)
		{
			made->key = words[below(fuzz, lengthof(words))];
			made->key_length = strlen(made->key);
		}
		add_child(copy, &tail, made);
	}
	if (below(fuzz, fuzz->rate) == 0)
	{
		JsonNode *made = copy_changed(fuzz, pick_part(fuzz), depth + 1);

		made->key = NULL;
		made->key_length = 0;
		if (copy->kind == JSON_OBJECT)
		{
			made->key = words[below(fuzz, lengthof(words))];
			made->key_length = strlen(made->key);
		}
		add_child(copy, &tail, made);
	}
}

/* A copy with some of it changed; its key and what is next to it are left to the caller. */
static JsonNode *
copy_changed(Fuzz *fuzz, const JsonNode *node, int depth)
{
	JsonNode *copy;

	if (++fuzz->made > MAX_NODES || depth > MAX_DEPTH)
		return make_scalar(fuzz);
	if (below(fuzz, fuzz->rate) == 0)
	{
		if (below(fuzz, 3) == 0)
			return make_scalar(fuzz);
		node = pick_part(fuzz);
	}
	copy = palloc(sizeof(JsonNode));
	*copy = *node;
	if (node->kind == JSON_ARRAY || node->kind == JSON_OBJECT)
		copy_children(fuzz, copy, node, depth);
	return copy;
}

static Jsonb *
make_value(Fuzz *fuzz, const JsonNode *node)
{
	JsonNode *copy;

	fuzz->made = 0;
	fuzz->rate = below(fuzz, 4) == 0 ? 1000000 : 4 + below(fuzz, 60);
	copy = copy_changed(fuzz, node, 0);
	copy->next = NULL;
	return json_to_jsonb(copy);
}

/* Reads the values that others are made of; those that cannot be stored are left out. */
static void
read_values(Fuzz *fuzz, ArrayType *array)
{
	Datum *texts;
	bool *nulls;
	int count;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &texts, &nulls, &count);
	fuzz->nodes = fuzz->nodes == NULL
					  ? palloc(sizeof(JsonNode *) * Max(count, 1))
					  : repalloc(fuzz->nodes, sizeof(JsonNode *) * (fuzz->count + count + 1));
	for (int i = 0; i < count; i++)
	{
		char *source;
		size_t offset = 0;
		JsonError error;
		JsonNode *node;

		if (nulls[i])
			continue;
		source = TextDatumGetCString(texts[i]);
		node = json_parse(source, strlen(source), &offset, &error);
		if (node != NULL && node->flaw == NULL)
			fuzz->nodes[fuzz->count++] = node;
	}
}

typedef struct FuzzCounts
{
	int64 compiled;
	int64 refused;
	int64 valid;
	int64 invalid;
} FuzzCounts;

static void
check_instance(Fuzz *fuzz, const JsonSchema *schema, FuzzCounts *counts)
{
	Jsonb *instance = make_value(
		fuzz, below(fuzz, 4) == 0
				  ? pick_part(fuzz)
				  : fuzz->nodes[fuzz->schemas + below(fuzz, fuzz->count - fuzz->schemas)]);
	List *errors = NIL;
	List *some = NIL;
	bool valid;

	if (instance == NULL)
		return;
	valid = json_schema_check(schema, &instance->root, NULL, 0);
	if (json_schema_check(schema, &instance->root, &errors, 0) != valid ||
		(errors == NIL) != valid || json_schema_check(schema, &instance->root, &some, 2) != valid ||
		list_length(some) != Min(list_length(errors), 2))
		elog(ERROR, "checks of %s differ",
			 JsonbToCString(NULL, &instance->root, VARSIZE(instance)));
	if (valid)
		counts->valid++;
	else
		counts->invalid++;
}

/*
 * behavior._json_schema_fuzz(schemas text[], instances text[], seed bigint, calls bigint)
 */
Datum
behavior__json_schema_fuzz(PG_FUNCTION_ARGS)
{
	int64 calls = PG_GETARG_INT64(3);
	Fuzz fuzz = {.state = (uint64) PG_GETARG_INT64(2)};
	FuzzCounts counts = {0};
	MemoryContext context;
	MemoryContext caller;
	Size before = 0;
	TupleDesc descriptor;
	Datum values[5];
	bool nulls[5] = {false};

	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	read_values(&fuzz, PG_GETARG_ARRAYTYPE_P(0));
	fuzz.schemas = fuzz.count;
	read_values(&fuzz, PG_GETARG_ARRAYTYPE_P(1));
	if (fuzz.schemas == 0 || fuzz.schemas == fuzz.count)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("there must be schemas and instances")));

	context = AllocSetContextCreate(CurrentMemoryContext, "behavior fuzz", ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(context);
	for (int64 call = 0; call < calls; call++)
	{
		Jsonb *schema = make_value(&fuzz, fuzz.nodes[below(&fuzz, fuzz.schemas)]);
		JsonSchemaError error;
		JsonSchema *compiled = NULL;

		CHECK_FOR_INTERRUPTS();
		if (schema != NULL)
		{
			compiled = json_schema_try_compile(
				schema, below(&fuzz, 2) == 0 ? JSON_SCHEMA_ASSERT_FORMAT : 0, &error);
			if (compiled == NULL)
				counts.refused++;
			else
				counts.compiled++;
		}
		for (int i = 0; compiled != NULL && i < CHECKS; i++)
			check_instance(&fuzz, compiled, &counts);
		MemoryContextReset(context);
		/* What is made once is there after some calls. */
		if (call == calls / 4)
			before = MemoryContextMemAllocated(TopMemoryContext, true);
	}
	MemoryContextSwitchTo(caller);

	values[0] = Int64GetDatum(counts.compiled);
	values[1] = Int64GetDatum(counts.refused);
	values[2] = Int64GetDatum(counts.valid);
	values[3] = Int64GetDatum(counts.invalid);
	values[4] =
		Int64GetDatum((int64) MemoryContextMemAllocated(TopMemoryContext, true) - (int64) before);
	MemoryContextDelete(context);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls)));
}

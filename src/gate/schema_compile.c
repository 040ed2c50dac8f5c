/*
 * schema_compile.c
 *		From a JSON schema to nodes that can be checked.
 *
 * First the names of all schemas in the text, then the nodes from the root on, then what $refs
 * lead to until none is left, so that nothing is compiled that is not used.  At the end a search
 * for schemas that apply themselves to the same value without end, and the metaschema's opinion.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "core/compat.h"
#include "gate/schema_compile.h"

#define URI_2020_12 "https://json-schema.org/draft/2020-12/schema"
#define URI_7		"http://json-schema.org/draft-07/schema"

/* Member of the root by which a schema itself asks for formats to be rules. */
#define ASSERT_FORMAT "x-assert-format"

static JsonSchema *compile_schema(Jsonb *schema, int options, bool check, JsonSchemaError *error);

/* Keeps the first thing that is wrong with the schema. */
void
schema_fail(SchemaCompiler *compiler, const SchemaPlace *place, const char *format, ...)
{
	StringInfoData message;

	if (compiler->failed)
		return;
	initStringInfo(&message);
	for (;;)
	{
		va_list arguments;
		int needed;

		va_start(arguments, format);
		needed = appendStringInfoVA(&message, format, arguments);
		va_end(arguments);
		if (needed == 0)
			break;
		enlargeStringInfo(&message, needed);
	}
	compiler->failed = true;
	compiler->message = message.data;
	compiler->place = place;
}

static SchemaNode *
new_node(SchemaCompiler *compiler, SchemaResource *resource, const SchemaPlace *place)
{
	SchemaNode *node = palloc0(sizeof(SchemaNode));

	node->types = JSON_TYPE_ANY;
	node->resource = resource;
	node->place = place;
	node->next = compiler->schema->nodes;
	compiler->schema->nodes = node;
	return node;
}

static int
compare_properties(const void *a, const void *b)
{
	const SchemaProperty *x = a;
	const SchemaProperty *y = b;

	return json_key_compare(x->key, x->length, y->key, y->length);
}

/* Brings properties into jsonb's order of keys, one entry for each. */
static void
sort_properties(ObjectRules *rules)
{
	int last = -1;

	if (rules->property_count == 0)
		return;
	qsort(rules->properties, rules->property_count, sizeof(SchemaProperty), compare_properties);
	for (int i = 0; i < rules->property_count; i++)
	{
		SchemaProperty *from = &rules->properties[i];
		SchemaProperty *into = last < 0 ? NULL : &rules->properties[last];

		if (into == NULL || compare_properties(into, from) != 0)
		{
			rules->properties[++last] = *from;
			continue;
		}
		into->required |= from->required;
		if (from->schema != NULL)
			into->schema = from->schema;
		if (from->dependencies != NULL)
		{
			SchemaDependency *tail = from->dependencies;

			while (tail->next != NULL)
				tail = tail->next;
			tail->next = into->dependencies;
			into->dependencies = from->dependencies;
		}
	}
	rules->property_count = last + 1;
	for (int i = 0; i < rules->property_count; i++)
		rules->required_count += rules->properties[i].required;
}

/* The node of a schema, compiled when it is met first. */
SchemaNode *
schema_compile_node(SchemaCompiler *compiler, const JsonSlot *slot, SchemaResource *resource,
					const SchemaPlace *place)
{
	SchemaLocation *location;
	SchemaNode *node;
	JsonWalk walk;
	JsonSlot value;
	bool only_ref;

	if (slot->type == JSON_TYPE_BOOLEAN)
	{
		node = new_node(compiler, resource, place);
		node->always = true;
		node->verdict = slot->boolean;
		return node;
	}
	if (slot->type != JSON_TYPE_OBJECT)
		schema_fail(compiler, place, "a schema must be an object, true or false");
	if (compiler->failed)
		return NULL;

	location = schema_location(compiler, slot);
	if (location == NULL)
	{
		schema_scan(compiler, slot, resource, place);
		location = schema_location(compiler, slot);
		if (location == NULL)
			return NULL;
	}
	if (location->node != NULL)
		return location->node;
	node = location->node = new_node(compiler, location->resource, location->place);
	place = location->place;
	resource = location->resource;

	if (compiler->nesting >= SCHEMA_MAX_NESTING)
	{
		schema_fail(compiler, place, "schemas are nested more than %d levels deep",
					SCHEMA_MAX_NESTING);
		return NULL;
	}
	compiler->nesting++;
	only_ref = resource->draft == SCHEMA_DRAFT_7 && json_slot_member(slot, "$ref", 4, &value);
	json_walk_start(&walk, slot);
	while (json_walk_member(&walk, &value) && !compiler->failed)
	{
		const SchemaKeyword *keyword = schema_keyword(value.key, value.key_length, resource->draft);

		if (keyword != NULL && keyword->compile != NULL &&
			(!only_ref || strcmp(keyword->name, "$ref") == 0))
			keyword->compile(compiler, node, &value,
							 schema_place_member(place, value.key, value.key_length));
	}
	compiler->nesting--;
	if (node->object != NULL && !compiler->failed)
		sort_properties(node->object);
	return compiler->failed ? NULL : node;
}

/* Finds what references lead to, which may bring more of them. */
static void
resolve_references(SchemaCompiler *compiler)
{
	while (compiler->references != NULL && !compiler->failed)
	{
		SchemaReference *reference = compiler->references;
		const SchemaAnchor *anchor;
		SchemaNode *target;

		CHECK_FOR_INTERRUPTS();
		compiler->references = reference->next;
		target = schema_resolve(compiler, reference->node->resource, reference->text,
								reference->place, &anchor);
		if (target == NULL)
			return;
		if (!reference->dynamic)
			reference->node->in_place->ref = target;
		else
		{
			reference->node->in_place->dynamic_ref = target;
			if (anchor != NULL && anchor->dynamic)
			{
				reference->node->in_place->dynamic_anchor = anchor->name;
				reference->node->in_place->dynamic_anchor_length = anchor->length;
				compiler->schema->has_dynamic = true;
			}
		}
	}
}

/* Compiles the dynamic anchors, any of which may be found while checking; false: all were. */
static bool
compile_dynamic_anchors(SchemaCompiler *compiler)
{
	bool some = false;

	for (SchemaResource *resource = compiler->schema->resources; resource != NULL;
		 resource = resource->next)
	{
		for (SchemaAnchor *anchor = resource->anchors; anchor != NULL; anchor = anchor->next)
		{
			if (!anchor->dynamic || anchor->node != NULL || compiler->failed)
				continue;
			anchor->node = schema_compile_node(compiler, &anchor->slot, resource, anchor->place);
			some = true;
		}
	}
	return some;
}

static int measure_chain(SchemaCompiler *compiler, SchemaNode *node, int depth);

/* The longest chain that goes on with one of these. */
static int
measure_nodes(SchemaCompiler *compiler, SchemaNode *const *nodes, int count, int depth)
{
	int longest = 0;

	for (int i = 0; i < count && !compiler->failed; i++)
	{
		if (nodes[i] != NULL)
			longest = Max(longest, measure_chain(compiler, nodes[i], depth + 1) + 1);
	}
	return longest;
}

/*
 * How many schemas apply themselves to one value, one inside of the other, from this one on?
 * Fails when they never end or are too many.
 */
static int
measure_chain(SchemaCompiler *compiler, SchemaNode *node, int depth)
{
	InPlaceRules *rules = node->in_place;
	ObjectRules *object = node->object;
	int longest = 0;

	if (node->measure == MEASURE_UNDER_WAY)
	{
		schema_fail(compiler, node->place,
					"the schema applies itself to the same value, without end");
		return 0;
	}
	if (depth + (node->measure == MEASURE_DONE ? node->chain : 0) > SCHEMA_MAX_CHAIN)
		schema_fail(compiler, node->place, "more than %d schemas refer to each other in a row",
					SCHEMA_MAX_CHAIN);
	if (node->measure == MEASURE_DONE || compiler->failed)
		return node->chain;

	node->measure = MEASURE_UNDER_WAY;
	if (rules != NULL)
	{
		/* Where a dynamic reference leads turns out when it is followed. */
		SchemaNode *const single[] = {
			rules->ref,			rules->dynamic_anchor == NULL ? rules->dynamic_ref : NULL,
			rules->not,			rules->if_schema,
			rules->then_schema, rules->else_schema};
		const SchemaList *const lists[] = {&rules->all_of, &rules->any_of, &rules->one_of};

		longest = measure_nodes(compiler, single, lengthof(single), depth);
		for (int i = 0; i < lengthof(lists); i++)
			longest =
				Max(longest, measure_nodes(compiler, lists[i]->nodes, lists[i]->count, depth));
	}
	for (int i = 0; object != NULL && i < object->property_count; i++)
	{
		for (SchemaDependency *dependency = object->properties[i].dependencies; dependency != NULL;
			 dependency = dependency->next)
			longest = Max(longest, measure_nodes(compiler, &dependency->schema, 1, depth));
	}
	node->chain = longest;
	node->measure = MEASURE_DONE;
	return longest;
}

/* The draft whose metaschema has this URI. */
SchemaDraft
schema_draft(const char *uri, int length)
{
	if (length > 0 && uri[length - 1] == '#')
		length--;
	if (length == strlen(URI_2020_12) && memcmp(uri, URI_2020_12, length) == 0)
		return SCHEMA_DRAFT_2020_12;
	if (length == strlen(URI_7) && memcmp(uri, URI_7, length) == 0)
		return SCHEMA_DRAFT_7;
	return SCHEMA_DRAFT_UNKNOWN;
}

/* The compiled metaschema of a draft, made once in a backend. */
static const JsonSchema *
metaschema(SchemaDraft draft)
{
	static JsonSchema *drafts[2];
	JsonSchema **schema = &drafts[draft == SCHEMA_DRAFT_7];

	if (*schema == NULL)
	{
		MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "behavior metaschema",
													  ALLOCSET_DEFAULT_SIZES);
		MemoryContext caller = MemoryContextSwitchTo(context);
		JsonSchemaError error;
		JsonSchema *made;
		const char *text = schema_meta_text(draft == SCHEMA_DRAFT_7 ? URI_7 : URI_2020_12);

		made = compile_schema(DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text))),
							  0, false, &error);
		if (made == NULL)
			elog(ERROR, "the metaschema is not valid at \"%s\": %s", error.schema_path,
				 error.message);
		MemoryContextSwitchTo(caller);
		MemoryContextSetParent(context, TopMemoryContext);
		*schema = made;
	}
	return *schema;
}

/* Says what the metaschema has against a schema; false when it has something. */
static bool
check_with_metaschema(const JsonSlot *slot, SchemaDraft draft, const SchemaPlace *place,
					  JsonSchemaError *error)
{
	List *errors = NIL;
	StringInfoData path;
	JsonSchemaError *first;

	/* Of scalars true and false alone get here. */
	if (slot->type != JSON_TYPE_OBJECT ||
		json_schema_check(metaschema(draft), (const JsonbContainer *) slot->data, NULL, 0))
		return true;
	json_schema_check(metaschema(draft), (const JsonbContainer *) slot->data, &errors, 1);
	first = linitial(errors);
	initStringInfo(&path);
	schema_place_pointer(&path, place);
	appendStringInfoString(&path, first->instance_path);
	error->schema_path = path.data;
	error->message = first->message;
	return false;
}

static void
compile_document(SchemaCompiler *compiler, Jsonb *schema)
{
	JsonSlot root;
	JsonSlot uri;
	JsonSlot value;
	SchemaDraft draft = SCHEMA_DRAFT_2020_12;
	SchemaResource *resource;
	const SchemaPlace *place = schema_place_member(NULL, "", 0);

	json_slot_root(&root, &schema->root);
	if (json_slot_member(&root, "$schema", 7, &uri) && uri.type == JSON_TYPE_STRING)
	{
		draft = schema_draft(uri.data, uri.length);
		if (draft == SCHEMA_DRAFT_UNKNOWN)
		{
			schema_fail(compiler, schema_place_member(place, "$schema", 7),
						"is not a draft that is supported: " URI_2020_12 " and " URI_7 "# are");
			return;
		}
	}
	if (json_slot_member(&root, ASSERT_FORMAT, strlen(ASSERT_FORMAT), &value))
	{
		if (value.type != JSON_TYPE_BOOLEAN)
			schema_fail(compiler, schema_place_member(place, ASSERT_FORMAT, strlen(ASSERT_FORMAT)),
						"must be true or false");
		else if (value.boolean)
			compiler->options |= JSON_SCHEMA_ASSERT_FORMAT;
	}
	resource = schema_add_document(compiler, &root, "", "", draft);
	compiler->schema->root = schema_compile_node(compiler, &root, resource, resource->place);
	do
		resolve_references(compiler);
	while (compiler->schema->has_dynamic && compile_dynamic_anchors(compiler));

	for (SchemaNode *node = compiler->schema->nodes; node != NULL && !compiler->failed;
		 node = node->next)
		measure_chain(compiler, node, 0);
}

/* Compiles; NULL, and why in *error, when the schema is not valid. */
static JsonSchema *
compile_schema(Jsonb *schema, int options, bool check, JsonSchemaError *error)
{
	SchemaCompiler compiler = {0};
	JsonSlot root;
	HASHCTL control = {0};
	bool valid = true;

	/* Names and values are used where they lie. */
	schema = (Jsonb *) memcpy(palloc(VARSIZE(schema)), schema, VARSIZE(schema));
	compiler.schema = palloc0(sizeof(JsonSchema));
	compiler.options = options;
	control.keysize = sizeof(const char *);
	control.entrysize = sizeof(SchemaLocation);
	control.hcxt = CurrentMemoryContext;
	compiler.locations = hash_create("schemas of a JSON schema", 64, &control,
									 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);

	compile_document(&compiler, schema);
	error->instance_path = "";
	if (compiler.failed)
	{
		StringInfoData path;

		initStringInfo(&path);
		schema_place_pointer(&path, compiler.place);
		error->schema_path = path.data;
		error->message = compiler.message;
		valid = false;
	}
	else if (check)
	{
		SchemaDraft draft = compiler.schema->root->resource->draft;

		json_slot_root(&root, &schema->root);
		valid = check_with_metaschema(&root, draft, compiler.schema->root->resource->place, error);
		for (SchemaTarget *target = compiler.targets; valid && target != NULL;
			 target = target->next)
			valid = check_with_metaschema(&target->slot, draft, target->place, error);
	}
	hash_destroy(compiler.locations);
	return valid ? compiler.schema : NULL;
}

JsonSchema *
json_schema_try_compile(Jsonb *schema, int options, JsonSchemaError *error)
{
	return compile_schema(schema, options, true, error);
}

JsonSchema *
json_schema_compile_options(Jsonb *schema, int options)
{
	JsonSchemaError error;
	JsonSchema *compiled = json_schema_try_compile(schema, options, &error);

	if (compiled == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the JSON schema is not valid: %s", error.message),
						error.schema_path[0] == '\0'
							? errdetail("This is about the schema as a whole.")
							: errdetail("This is about \"%s\" in the schema.", error.schema_path)));
	return compiled;
}

JsonSchema *
json_schema_compile(Jsonb *schema)
{
	return json_schema_compile_options(schema, 0);
}

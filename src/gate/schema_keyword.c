/*
 * schema_keyword.c
 *		The keywords of JSON Schema: where they hold schemas, and how each is compiled.
 *
 * Values are looked at here even though the metaschema is asked as well: its answer comes last
 * because it says less well what is wrong.  What is in no draft's list is a remark.
 */
#include "postgres.h"

#include <limits.h>

#include "gate/jsonb_number.h"
#include "gate/schema_compile.h"

#define BOTH (SCHEMA_DRAFT_7 | SCHEMA_DRAFT_2020_12)
#define OLD	 SCHEMA_DRAFT_7
#define NEW	 SCHEMA_DRAFT_2020_12

/* The rules of a kind, made when they are asked for first. */
#define RULES(node, kind) ((node)->kind != NULL ? (node)->kind : ((node)->kind = new_##kind()))

static StringRules *
new_string(void)
{
	StringRules *rules = palloc0(sizeof(StringRules));

	rules->max_length = INT_MAX;
	return rules;
}

static NumberRules *
new_number(void)
{
	return palloc0(sizeof(NumberRules));
}

static ArrayRules *
new_array(void)
{
	ArrayRules *rules = palloc0(sizeof(ArrayRules));

	rules->max_items = INT_MAX;
	rules->min_contains = 1;
	rules->max_contains = INT_MAX;
	return rules;
}

static ObjectRules *
new_object(void)
{
	ObjectRules *rules = palloc0(sizeof(ObjectRules));

	rules->max_properties = INT_MAX;
	return rules;
}

static InPlaceRules *
new_in_place(void)
{
	return palloc0(sizeof(InPlaceRules));
}

static SchemaNode *
compile_child(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,
			  const SchemaPlace *place)
{
	return schema_compile_node(compiler, value, (SchemaResource *) node->resource, place);
}

static SchemaNode **
compile_list(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,
			 const SchemaPlace *place)
{
	SchemaNode **nodes = palloc(sizeof(SchemaNode *) * Max(value->length, 1));
	JsonWalk walk;
	JsonSlot child;

	if (value->type != JSON_TYPE_ARRAY || value->length == 0)
	{
		schema_fail(compiler, place, "must be an array of at least one schema");
		return NULL;
	}
	json_walk_start(&walk, value);
	while (json_walk_element(&walk, &child))
		nodes[walk.index - 1] =
			compile_child(compiler, node, &child, schema_place_element(place, walk.index - 1));
	return nodes;
}

/* Type. */
static uint8
type_by_name(const JsonSlot *name)
{
	static const struct
	{
		const char *name;
		uint8 type;
	} types[] = {
		{"null", JSON_TYPE_NULL},
		{"boolean", JSON_TYPE_BOOLEAN},
		{"number", JSON_TYPE_NUMBER | JSON_TYPE_INTEGER},
		{"string", JSON_TYPE_STRING},
		{"array", JSON_TYPE_ARRAY},
		{"object", JSON_TYPE_OBJECT},
		{"integer", JSON_TYPE_INTEGER},
	};

	for (int i = 0; i < lengthof(types); i++)
	{
		if (json_slot_is(name, types[i].name))
			return types[i].type;
	}
	return 0;
}

static void
compile_type(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,
			 const SchemaPlace *place)
{
	JsonWalk walk;
	JsonSlot name;
	uint8 type;

	node->types = type_by_name(value);
	if (node->types != 0)
		return;
	if (value->type == JSON_TYPE_ARRAY && value->length > 0)
	{
		json_walk_start(&walk, value);
		while (json_walk_element(&walk, &name))
		{
			type = type_by_name(&name);
			if (type == 0)
			{
				schema_fail(compiler, schema_place_element(place, walk.index - 1),
							"must be null, boolean, integer, number, string, array or object");
				return;
			}
			node->types |= type;
		}
		return;
	}
	schema_fail(
		compiler, place,
		"must be null, boolean, integer, number, string, array or object, or an array of them");
}

/* Numbers. */
static const char *
number_of(SchemaCompiler *compiler, const JsonSlot *value, const SchemaPlace *place)
{
	if (value->type == JSON_TYPE_NUMBER)
		return value->data;
	schema_fail(compiler, place, "must be a number");
	return NULL;
}

static int
size_of(SchemaCompiler *compiler, const JsonSlot *value, const SchemaPlace *place)
{
	if (value->type == JSON_TYPE_NUMBER && json_number_is_integer(value->data))
	{
		int size = json_number_to_int(value->data);

		if (size >= 0)
			return size;
	}
	schema_fail(compiler, place, "must be an integer that is not negative");
	return 0;
}

#define NUMBER_KEYWORD(name)                                                                       \
	static void compile_##name(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,  \
							   const SchemaPlace *place)                                           \
	{                                                                                              \
		RULES(node, number)->name = number_of(compiler, value, place);                             \
	}
#define SIZE_KEYWORD(kind, name)                                                                   \
	static void compile_##name(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,  \
							   const SchemaPlace *place)                                           \
	{                                                                                              \
		RULES(node, kind)->name = size_of(compiler, value, place);                                 \
	}

NUMBER_KEYWORD(minimum)
NUMBER_KEYWORD(maximum)
NUMBER_KEYWORD(exclusive_minimum)
NUMBER_KEYWORD(exclusive_maximum)
SIZE_KEYWORD(string, min_length)
SIZE_KEYWORD(string, max_length)
SIZE_KEYWORD(array, min_items)
SIZE_KEYWORD(array, max_items)
SIZE_KEYWORD(array, min_contains)
SIZE_KEYWORD(array, max_contains)
SIZE_KEYWORD(object, min_properties)
SIZE_KEYWORD(object, max_properties)

static void
compile_multiple_of(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,
					const SchemaPlace *place)
{
	if (value->type != JSON_TYPE_NUMBER || !json_number_is_positive(value->data))
		schema_fail(compiler, place, "must be a number greater than 0");
	else
		RULES(node, number)->multiple_of = value->data;
}

/* Strings. */
static SchemaRegex *
compile_regex(SchemaCompiler *compiler, const char *text, int length, const SchemaPlace *place)
{
	char *message;
	SchemaRegex *regex = schema_regex_compile(text, length, &message);

	if (regex == NULL)
		schema_fail(compiler, place, "is not a valid regular expression: %s", message);
	return regex;
}

static void
compile_pattern(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,
				const SchemaPlace *place)
{
	if (value->type != JSON_TYPE_STRING)
		schema_fail(compiler, place, "must be a string");
	else
		RULES(node, string)->pattern = compile_regex(compiler, value->data, value->length, place);
}

static void
compile_format(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,
			   const SchemaPlace *place)
{
	SchemaFormat format;

	if (value->type != JSON_TYPE_STRING)
	{
		schema_fail(compiler, place, "must be a string");
		return;
	}
	format = schema_format_by_name(value->data, value->length);
	if ((compiler->options & JSON_SCHEMA_ASSERT_FORMAT) && format != SCHEMA_FORMAT_NONE)
		RULES(node, string)->format = format;
}

/* Arrays. */
static void
compile_prefix_items(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,
					 const SchemaPlace *place)
{
	ArrayRules *rules = RULES(node, array);

	rules->prefix = compile_list(compiler, node, value, place);
	rules->prefix_count = rules->prefix == NULL ? 0 : value->length;
}

/* In draft 7 an array is what prefixItems is in 2020-12; it may be empty. */
static void
compile_items(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,
			  const SchemaPlace *place)
{
	if (node->resource->draft == SCHEMA_DRAFT_7 && value->type == JSON_TYPE_ARRAY)
		compile_prefix_items(compiler, node, value, place);
	else
		RULES(node, array)->rest = compile_child(compiler, node, value, place);
}

static void
compile_additional_items(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,
						 const SchemaPlace *place)
{
	SchemaNode *child = compile_child(compiler, node, value, place);
	JsonSlot items;

	if (json_slot_member(value->parent, "items", 5, &items) && items.type == JSON_TYPE_ARRAY)
		RULES(node, array)->rest = child;
}

static void
compile_contains(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,
				 const SchemaPlace *place)
{
	ArrayRules *rules = RULES(node, array);

	rules->contains = compile_child(compiler, node, value, place);
	rules->contains_evaluates = node->resource->draft == SCHEMA_DRAFT_2020_12;
}

static void
compile_unique_items(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,
					 const SchemaPlace *place)
{
	if (value->type != JSON_TYPE_BOOLEAN)
		schema_fail(compiler, place, "must be true or false");
	else if (value->boolean)
		RULES(node, array)->unique = true;
}

/* Objects. */
static SchemaProperty *
add_property(SchemaNode *node, const char *key, int length)
{
	ObjectRules *rules = RULES(node, object);
	SchemaProperty *property;

	/* Grows by doubling: full when the count is a power of two. */
	if (rules->properties == NULL)
		rules->properties = palloc(sizeof(SchemaProperty));
	else if ((rules->property_count & (rules->property_count - 1)) == 0)
		rules->properties =
			repalloc(rules->properties, sizeof(SchemaProperty) * rules->property_count * 2);
	property = &rules->properties[rules->property_count++];
	memset(property, 0, sizeof(*property));
	property->key = key;
	property->length = length;
	return property;
}

static bool
is_object(SchemaCompiler *compiler, const JsonSlot *value, const SchemaPlace *place)
{
	if (value->type != JSON_TYPE_OBJECT)
		schema_fail(compiler, place, "must be an object");
	return value->type == JSON_TYPE_OBJECT;
}

static bool
is_array_of_names(SchemaCompiler *compiler, const JsonSlot *value, const SchemaPlace *place)
{
	JsonWalk walk;
	JsonSlot name;

	if (value->type == JSON_TYPE_ARRAY)
	{
		json_walk_start(&walk, value);
		while (json_walk_element(&walk, &name) && name.type == JSON_TYPE_STRING)
			;
		if (value->length == 0 || (walk.index == walk.count && name.type == JSON_TYPE_STRING))
			return true;
	}
	schema_fail(compiler, place, "must be an array of strings");
	return false;
}

static void
compile_properties(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,
				   const SchemaPlace *place)
{
	JsonWalk walk;
	JsonSlot child;

	if (!is_object(compiler, value, place))
		return;
	json_walk_start(&walk, value);
	while (json_walk_member(&walk, &child))
		add_property(node, child.key, child.key_length)->schema = compile_child(
			compiler, node, &child, schema_place_member(place, child.key, child.key_length));
}

static void
compile_required(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,
				 const SchemaPlace *place)
{
	JsonWalk walk;
	JsonSlot name;

	if (!is_array_of_names(compiler, value, place))
		return;
	json_walk_start(&walk, value);
	while (json_walk_element(&walk, &name))
		add_property(node, name.data, name.length)->required = true;
}

/* dependentSchemas, dependentRequired, and draft 7's dependencies, which is both. */
static void
compile_dependencies(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,
					 const SchemaPlace *place)
{
	JsonWalk walk;
	JsonSlot child;

	if (!is_object(compiler, value, place))
		return;
	json_walk_start(&walk, value);
	while (json_walk_member(&walk, &child))
	{
		SchemaDependency *dependency = palloc0(sizeof(SchemaDependency));
		const SchemaPlace *at = schema_place_member(place, child.key, child.key_length);

		dependency->keyword = pnstrdup(place->token, place->length);
		if (strcmp(dependency->keyword, "dependentRequired") == 0 ||
			(strcmp(dependency->keyword, "dependencies") == 0 && child.type == JSON_TYPE_ARRAY))
		{
			if (!is_array_of_names(compiler, &child, at))
				return;
			dependency->required = child;
			dependency->required.parent = NULL;
		}
		else
			dependency->schema = compile_child(compiler, node, &child, at);
		add_property(node, child.key, child.key_length)->dependencies = dependency;
	}
}

static void
compile_pattern_properties(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,
						   const SchemaPlace *place)
{
	ObjectRules *rules;
	JsonWalk walk;
	JsonSlot child;

	if (!is_object(compiler, value, place))
		return;
	rules = RULES(node, object);
	rules->patterns = palloc0(sizeof(SchemaPattern) * (value->length + 1));
	json_walk_start(&walk, value);
	while (json_walk_member(&walk, &child) && !compiler->failed)
	{
		const SchemaPlace *at = schema_place_member(place, child.key, child.key_length);
		SchemaPattern *pattern = &rules->patterns[rules->pattern_count++];

		pattern->regex = compile_regex(compiler, child.key, child.key_length, at);
		pattern->schema = compile_child(compiler, node, &child, at);
	}
}

#define SCHEMA_KEYWORD(target, function)                                                           \
	static void function(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,        \
						 const SchemaPlace *place)                                                 \
	{                                                                                              \
		target = compile_child(compiler, node, value, place);                                      \
	}

SCHEMA_KEYWORD(RULES(node, object)->additional, compile_additional_properties)
SCHEMA_KEYWORD(RULES(node, object)->names, compile_property_names)
SCHEMA_KEYWORD(node->unevaluated_items, compile_unevaluated_items)
SCHEMA_KEYWORD(node->unevaluated_properties, compile_unevaluated_properties)
SCHEMA_KEYWORD(RULES(node, in_place)->not, compile_not)
SCHEMA_KEYWORD(RULES(node, in_place)->if_schema, compile_if)
SCHEMA_KEYWORD(RULES(node, in_place)->then_schema, compile_then)
SCHEMA_KEYWORD(RULES(node, in_place)->else_schema, compile_else)

/* In place. */
static int
compare_values(const void *a, const void *b)
{
	const JsonSlot *x = a;
	const JsonSlot *y = b;

	if (x->type != JSON_TYPE_STRING || y->type != JSON_TYPE_STRING)
		return (y->type == JSON_TYPE_STRING) - (x->type == JSON_TYPE_STRING);
	return json_key_compare(x->data, x->length, y->data, y->length);
}

static void
compile_enum(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,
			 const SchemaPlace *place)
{
	InPlaceRules *rules = RULES(node, in_place);
	JsonWalk walk;

	if (value->type != JSON_TYPE_ARRAY)
	{
		schema_fail(compiler, place, "must be an array");
		return;
	}
	rules->enum_list = *value;
	rules->enum_list.parent = NULL;
	rules->values = palloc(sizeof(JsonSlot) * Max(value->length, 1));
	json_walk_start(&walk, value);
	while (json_walk_element(&walk, &rules->values[rules->enum_count]))
	{
		JsonSlot *entry = &rules->values[rules->enum_count];

		entry->parent = NULL;
		rules->enum_strings += entry->type == JSON_TYPE_STRING;
		rules->enum_count++;
	}
	qsort(rules->values, rules->enum_count, sizeof(JsonSlot), compare_values);
}

static void
compile_const(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,
			  const SchemaPlace *place)
{
	InPlaceRules *rules = RULES(node, in_place);

	rules->has_const = true;
	rules->constant = *value;
	rules->constant.parent = NULL;
}

static void
add_reference(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,
			  const SchemaPlace *place, bool dynamic)
{
	SchemaReference *reference;

	if (value->type != JSON_TYPE_STRING)
	{
		schema_fail(compiler, place, "must be a string");
		return;
	}
	(void) RULES(node, in_place);
	reference = palloc(sizeof(SchemaReference));
	reference->node = node;
	reference->text = pnstrdup(value->data, value->length);
	reference->dynamic = dynamic;
	reference->place = place;
	reference->next = compiler->references;
	compiler->references = reference;
}

static void
compile_ref(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,
			const SchemaPlace *place)
{
	add_reference(compiler, node, value, place, false);
}

static void
compile_dynamic_ref(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,
					const SchemaPlace *place)
{
	add_reference(compiler, node, value, place, true);
}

#define LIST_KEYWORD(name, text)                                                                   \
	static void compile_##name(SchemaCompiler *compiler, SchemaNode *node, const JsonSlot *value,  \
							   const SchemaPlace *place)                                           \
	{                                                                                              \
		SchemaList *list = &RULES(node, in_place)->name;                                           \
                                                                                                   \
		list->keyword = text;                                                                      \
		list->nodes = compile_list(compiler, node, value, place);                                  \
		list->count = list->nodes == NULL ? 0 : value->length;                                     \
	}

LIST_KEYWORD(all_of, "allOf")
LIST_KEYWORD(any_of, "anyOf")
LIST_KEYWORD(one_of, "oneOf")

static const SchemaKeyword keywords[] = {
	{"$ref", BOTH, SHAPE_NONE, compile_ref},
	{"$dynamicRef", NEW, SHAPE_NONE, compile_dynamic_ref},
	{"$defs", NEW, SHAPE_MAP, NULL},
	{"definitions", BOTH, SHAPE_MAP, NULL},
	{"type", BOTH, SHAPE_NONE, compile_type},
	{"enum", BOTH, SHAPE_NONE, compile_enum},
	{"const", BOTH, SHAPE_NONE, compile_const},
	{"minimum", BOTH, SHAPE_NONE, compile_minimum},
	{"maximum", BOTH, SHAPE_NONE, compile_maximum},
	{"exclusiveMinimum", BOTH, SHAPE_NONE, compile_exclusive_minimum},
	{"exclusiveMaximum", BOTH, SHAPE_NONE, compile_exclusive_maximum},
	{"multipleOf", BOTH, SHAPE_NONE, compile_multiple_of},
	{"minLength", BOTH, SHAPE_NONE, compile_min_length},
	{"maxLength", BOTH, SHAPE_NONE, compile_max_length},
	{"pattern", BOTH, SHAPE_NONE, compile_pattern},
	{"format", BOTH, SHAPE_NONE, compile_format},
	{"contentSchema", NEW, SHAPE_SCHEMA, NULL},
	{"prefixItems", NEW, SHAPE_LIST, compile_prefix_items},
	{"items", OLD, SHAPE_SCHEMA_OR_LIST, compile_items},
	{"items", NEW, SHAPE_SCHEMA, compile_items},
	{"additionalItems", OLD, SHAPE_SCHEMA, compile_additional_items},
	{"unevaluatedItems", NEW, SHAPE_SCHEMA, compile_unevaluated_items},
	{"contains", BOTH, SHAPE_SCHEMA, compile_contains},
	{"minContains", NEW, SHAPE_NONE, compile_min_contains},
	{"maxContains", NEW, SHAPE_NONE, compile_max_contains},
	{"minItems", BOTH, SHAPE_NONE, compile_min_items},
	{"maxItems", BOTH, SHAPE_NONE, compile_max_items},
	{"uniqueItems", BOTH, SHAPE_NONE, compile_unique_items},
	{"properties", BOTH, SHAPE_MAP, compile_properties},
	{"patternProperties", BOTH, SHAPE_MAP, compile_pattern_properties},
	{"additionalProperties", BOTH, SHAPE_SCHEMA, compile_additional_properties},
	{"unevaluatedProperties", NEW, SHAPE_SCHEMA, compile_unevaluated_properties},
	{"propertyNames", BOTH, SHAPE_SCHEMA, compile_property_names},
	{"minProperties", BOTH, SHAPE_NONE, compile_min_properties},
	{"maxProperties", BOTH, SHAPE_NONE, compile_max_properties},
	{"required", BOTH, SHAPE_NONE, compile_required},
	{"dependentRequired", NEW, SHAPE_NONE, compile_dependencies},
	{"dependentSchemas", NEW, SHAPE_MAP, compile_dependencies},
	{"dependencies", OLD, SHAPE_SCHEMA_OR_NAMES_MAP, compile_dependencies},
	{"allOf", BOTH, SHAPE_LIST, compile_all_of},
	{"anyOf", BOTH, SHAPE_LIST, compile_any_of},
	{"oneOf", BOTH, SHAPE_LIST, compile_one_of},
	{"not", BOTH, SHAPE_SCHEMA, compile_not},
	{"if", BOTH, SHAPE_SCHEMA, compile_if},
	{"then", BOTH, SHAPE_SCHEMA, compile_then},
	{"else", BOTH, SHAPE_SCHEMA, compile_else},
};

/* What a draft knows by a name; NULL: nothing. */
const SchemaKeyword *
schema_keyword(const char *name, int length, SchemaDraft draft)
{
	for (int i = 0; i < lengthof(keywords); i++)
	{
		if ((keywords[i].drafts & draft) && strlen(keywords[i].name) == length &&
			memcmp(keywords[i].name, name, length) == 0)
			return &keywords[i];
	}
	return NULL;
}

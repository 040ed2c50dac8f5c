/*
 * schema_check.c
 *		Checks an instance against a compiled JSON schema.
 *
 * Recursion is along the schema and the instance at once, over values as they lie in the jsonb.
 * Without a list for errors it ends with the first thing found and allocates nothing, but for
 * what keeps track of unevaluated members of large instances.  Annotations are not kept: only
 * which members and elements some schema has looked at, and only below a schema that asks.
 *
 * Whatever a schema makes of an instance, a check ends: steps, depth and each regular expression
 * are limited.  At a limit the check is given up and the instance is not valid, wherever in the
 * schema that was: an answer that is not known must not become its opposite below a "not".
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "gate/jsonb_number.h"
#include "gate/schema_node.h"

/* Steps between two looks for interrupts. */
#define INTERRUPT_STEPS 4096

/* Steps that an error costs, which may be forgotten in favour of another branch. */
#define REPORT_STEPS 50

static void
give_up(SchemaCheck *check, const char *why)
{
	if (check->given_up == NULL)
		check->given_up = why;
}

/* Takes steps off the check's; false when there are none left. */
bool
schema_check_work(SchemaCheck *check, int64 steps)
{
	int64 before = check->steps;

	check->steps -= steps;
	if (before / INTERRUPT_STEPS != check->steps / INTERRUPT_STEPS)
		CHECK_FOR_INTERRUPTS();
	if (check->steps <= 0)
		give_up(check, "checking takes too many steps");
	return check->given_up == NULL;
}

bool
schema_check_regex(SchemaCheck *check, const SchemaRegex *regex, const char *text, int length)
{
	int64 steps = Max(check->steps, 0);
	int64 before = steps;
	SchemaMatch match = schema_regex_match(regex, text, length, &steps);

	schema_check_work(check, before - steps);
	if (match == SCHEMA_MATCH_LIMIT)
		give_up(check, "a regular expression takes too many steps");
	return match == SCHEMA_MATCH;
}

/* A text in just the memory that it needs. */
static char *
keep_text(StringInfo text)
{
	char *kept = pnstrdup(text->data, text->len);

	resetStringInfo(text);
	return kept;
}

void
schema_report(SchemaCheck *check, const SchemaNode *node, const char *keyword, const JsonSlot *slot,
			  const char *format, ...)
{
	JsonSchemaError *error;
	StringInfoData text;

	if (!schema_check_goes_on(check))
		return;
	check->steps -= REPORT_STEPS;
	error = palloc(sizeof(JsonSchemaError));
	initStringInfo(&text);
	for (;;)
	{
		va_list arguments;
		int needed;

		va_start(arguments, format);
		needed = appendStringInfoVA(&text, format, arguments);
		va_end(arguments);
		if (needed == 0)
			break;
		enlargeStringInfo(&text, needed);
	}
	error->message = keep_text(&text);
	json_slot_pointer(&text, slot);
	error->instance_path = keep_text(&text);
	schema_place_pointer(&text, node->place);
	if (keyword != NULL)
		json_pointer_append(&text, keyword, strlen(keyword));
	error->schema_path = keep_text(&text);
	pfree(text.data);
	*check->errors = lappend(*check->errors, error);
}

/* Forgets what branches found that does not matter: there may be much of it. */
static void
free_errors(List *errors)
{
	ListCell *cell;

	foreach (cell, errors)
	{
		JsonSchemaError *error = lfirst(cell);

		pfree((char *) error->message);
		pfree((char *) error->instance_path);
		pfree((char *) error->schema_path);
	}
	list_free_deep(errors);
}

/* What is kept of a value's members while a schema with unevaluated… is at work. */
static void
evaluated_init(SchemaCheck *check, Evaluated *evaluated, const JsonSlot *slot)
{
	int words = (slot->length + 63) / 64;

	evaluated->all = false;
	evaluated->words = 0;
	evaluated->bits = evaluated->few;
	if (slot->type != JSON_TYPE_OBJECT && slot->type != JSON_TYPE_ARRAY)
		return;
	evaluated->words = words;
	if (words > EVALUATED_INLINE)
	{
		schema_check_work(check, words);
		evaluated->bits = palloc0(sizeof(uint64) * words);
	}
	else
		memset(evaluated->few, 0, sizeof(evaluated->few));
}

static void
evaluated_free(Evaluated *evaluated)
{
	if (evaluated->bits != evaluated->few)
		pfree(evaluated->bits);
}

static void
evaluated_add(Evaluated *into, const Evaluated *from)
{
	into->all |= from->all;
	for (int i = 0; i < from->words; i++)
		into->bits[i] |= from->bits[i];
}

/*
 * Checks a schema whose failure is no error of the instance, or not yet: in *errors what it finds,
 * if errors are wanted and the argument is not NULL.
 */
static bool
check_branch(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot, Evaluated *evaluated,
			 List **errors)
{
	List **outer_errors = check->errors;
	int outer_limit = check->limit;
	Evaluated own;
	bool valid;

	if (outer_errors == NULL || errors == NULL || !schema_check_goes_on(check))
		check->errors = NULL;
	else
	{
		if (check->limit > 0)
			check->limit -= list_length(*outer_errors);
		check->errors = errors;
	}
	if (evaluated != NULL)
	{
		evaluated_init(check, &own, slot);
		valid = schema_check_node(check, node, slot, &own);
		if (valid)
			evaluated_add(evaluated, &own);
		evaluated_free(&own);
	}
	else
		valid = schema_check_node(check, node, slot, NULL);
	check->errors = outer_errors;
	check->limit = outer_limit;
	return valid;
}

/* Adds what the branches found to the errors, behind the one that says that none of them fits. */
static void
add_branch_errors(SchemaCheck *check, List *errors)
{
	ListCell *cell;

	foreach (cell, errors)
	{
		if (!schema_check_goes_on(check))
			break;
		*check->errors = lappend(*check->errors, lfirst(cell));
	}
}

static bool
check_any_of(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot, Evaluated *evaluated)
{
	const SchemaList *list = &node->in_place->any_of;
	List *errors = NIL;
	bool valid = false;

	for (int i = 0; i < list->count && check->given_up == NULL; i++)
	{
		if (check_branch(check, list->nodes[i], slot, evaluated, &errors))
		{
			valid = true;
			if (evaluated == NULL)
				break;
		}
	}
	if (!valid)
	{
		schema_report(check, node, "anyOf", slot, "must match at least one of %d schemas",
					  list->count);
		add_branch_errors(check, errors);
	}
	else
		free_errors(errors);
	return valid;
}

static bool
check_one_of(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot, Evaluated *evaluated)
{
	const SchemaList *list = &node->in_place->one_of;
	List *errors = NIL;
	int first = -1;

	for (int i = 0; i < list->count && check->given_up == NULL; i++)
	{
		if (!check_branch(check, list->nodes[i], slot, evaluated, &errors))
			continue;
		if (first >= 0)
		{
			schema_report(check, node, "oneOf", slot,
						  "must match exactly one of %d schemas, but matches those at %d and %d",
						  list->count, first, i);
			free_errors(errors);
			return false;
		}
		first = i;
	}
	if (first < 0)
	{
		schema_report(check, node, "oneOf", slot,
					  "must match exactly one of %d schemas, but matches none", list->count);
		add_branch_errors(check, errors);
	}
	else
		free_errors(errors);
	return first >= 0;
}

/* Where a dynamic reference leads: the outermost resource on the way here that has its anchor. */
static const SchemaNode *
dynamic_target(SchemaCheck *check, const InPlaceRules *rules)
{
	const SchemaNode *target = rules->dynamic_ref;

	if (rules->dynamic_anchor == NULL)
		return target;
	for (const SchemaScope *scope = check->scope; scope != NULL; scope = scope->outer)
	{
		check->steps--;
		for (const SchemaAnchor *anchor = scope->resource->anchors; anchor != NULL;
			 anchor = anchor->next)
		{
			check->steps--;
			if (anchor->dynamic && anchor->length == rules->dynamic_anchor_length &&
				memcmp(anchor->name, rules->dynamic_anchor, anchor->length) == 0)
				target = anchor->node;
		}
	}
	return target;
}

/* The schemas that a schema applies to the same value. */
static bool
check_in_place(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot,
			   Evaluated *evaluated)
{
	const InPlaceRules *rules = node->in_place;
	bool valid = true;

	if ((rules->has_const || rules->enum_list.type != 0) &&
		schema_check_ends(check, schema_check_value(check, node, slot), &valid))
		return false;
	if (rules->ref != NULL &&
		schema_check_ends(check, schema_check_node(check, rules->ref, slot, evaluated), &valid))
		return false;
	if (rules->dynamic_ref != NULL &&
		schema_check_ends(
			check, schema_check_node(check, dynamic_target(check, rules), slot, evaluated), &valid))
		return false;
	for (int i = 0; i < rules->all_of.count; i++)
	{
		if (schema_check_ends(
				check, schema_check_node(check, rules->all_of.nodes[i], slot, evaluated), &valid))
			return false;
	}
	if (rules->any_of.count > 0 &&
		schema_check_ends(check, check_any_of(check, node, slot, evaluated), &valid))
		return false;
	if (rules->one_of.count > 0 &&
		schema_check_ends(check, check_one_of(check, node, slot, evaluated), &valid))
		return false;
	if (rules->not != NULL && check_branch(check, rules->not, slot, NULL, NULL))
	{
		schema_report(check, node, "not", slot, "must not match the schema");
		if (schema_check_ends(check, false, &valid))
			return false;
	}
	if (rules->if_schema != NULL)
	{
		const SchemaNode *branch = check_branch(check, rules->if_schema, slot, evaluated, NULL)
									   ? rules->then_schema
									   : rules->else_schema;

		if (branch != NULL && !schema_check_node(check, branch, slot, evaluated))
			return false;
	}
	return valid;
}

/* Members or elements that no schema has looked at so far. */
static bool
check_unevaluated(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot,
				  Evaluated *evaluated)
{
	bool is_object = slot->type == JSON_TYPE_OBJECT;
	const SchemaNode *schema = is_object ? node->unevaluated_properties : node->unevaluated_items;
	JsonWalk walk;
	JsonSlot child;
	bool valid = true;

	if (evaluated->all)
		return true;
	json_walk_start(&walk, slot);
	while (is_object ? json_walk_member(&walk, &child) : json_walk_element(&walk, &child))
	{
		if (!evaluated_has(evaluated, walk.index - 1) &&
			schema_check_ends(check, schema_check_node(check, schema, &child, NULL), &valid))
			return false;
	}
	evaluated->all = true;
	return valid;
}

static const char *
type_name(uint8 type)
{
	switch (type)
	{
		case JSON_TYPE_NULL:
			return "null";
		case JSON_TYPE_BOOLEAN:
			return "boolean";
		case JSON_TYPE_NUMBER:
			return "number";
		case JSON_TYPE_STRING:
			return "string";
		case JSON_TYPE_ARRAY:
			return "array";
		case JSON_TYPE_OBJECT:
			return "object";
		default:
			return "integer";
	}
}

static void
report_type(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot)
{
	uint8 types = node->types;
	StringInfoData names;

	if (!schema_check_goes_on(check))
		return;
	if (types & JSON_TYPE_NUMBER)
		types &= ~JSON_TYPE_INTEGER;
	initStringInfo(&names);
	for (uint8 type = 1; type != 0 && type <= JSON_TYPE_INTEGER; type <<= 1)
	{
		if (types & type)
			appendStringInfo(&names, "%s%s", names.len > 0 ? " or " : "", type_name(type));
	}
	schema_report(check, node, "type", slot, "must be of type %s, not %s", names.data,
				  type_name(slot->type));
	pfree(names.data);
}

/* The rules of a schema that is neither true nor false. */
static bool
check_rules(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot, Evaluated *evaluated)
{
	bool valid = true;

	if (node->types != JSON_TYPE_ANY && !(node->types & slot->type) &&
		!(slot->type == JSON_TYPE_NUMBER && (node->types & JSON_TYPE_INTEGER) &&
		  json_number_is_integer(slot->data)))
	{
		report_type(check, node, slot);
		if (schema_check_ends(check, false, &valid))
			return false;
	}
	switch (slot->type)
	{
		case JSON_TYPE_STRING:
			if (node->string != NULL)
				valid &= schema_check_string(check, node, slot);
			break;
		case JSON_TYPE_NUMBER:
			if (node->number != NULL)
				valid &= schema_check_number(check, node, slot);
			break;
		case JSON_TYPE_ARRAY:
			if (node->array != NULL)
				valid &= schema_check_array(check, node, slot, evaluated);
			break;
		case JSON_TYPE_OBJECT:
			if (node->object != NULL)
				valid &= schema_check_object(check, node, slot, evaluated);
			break;
		default:
			break;
	}
	if (!valid && !schema_check_goes_on(check))
		return false;
	if (node->in_place != NULL)
		valid &= check_in_place(check, node, slot, evaluated);
	return valid;
}

/* The same for one with unevaluated…, which sees what the schema itself has looked at alone. */
static bool
check_and_evaluate(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot,
				   Evaluated *outer)
{
	Evaluated own;
	bool valid;

	evaluated_init(check, &own, slot);
	valid = check_rules(check, node, slot, &own);
	/* Of what is not valid nothing counts as looked at; to list it all would say nothing. */
	if (valid)
		valid = check_unevaluated(check, node, slot, &own);
	if (valid && outer != NULL)
		evaluated_add(outer, &own);
	evaluated_free(&own);
	return valid;
}

bool
schema_check_node(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot,
				  Evaluated *evaluated)
{
	SchemaScope scope;
	const SchemaScope *outer = check->scope;
	bool valid;

	if (!schema_check_work(check, 1))
		return false;
	if (node->always)
	{
		if (!node->verdict)
			schema_report(check, node, NULL, slot, "is not allowed");
		return node->verdict;
	}
	if (check->depth >= SCHEMA_MAX_DEPTH || ((check->depth & 15) == 0 && stack_is_too_deep()))
	{
		give_up(check, "checking goes too deep");
		return false;
	}
	check->depth++;
	if (check->schema->has_dynamic && (outer == NULL || outer->resource != node->resource))
	{
		scope.resource = node->resource;
		scope.outer = outer;
		check->scope = &scope;
	}
	if ((slot->type == JSON_TYPE_OBJECT && node->unevaluated_properties != NULL) ||
		(slot->type == JSON_TYPE_ARRAY && node->unevaluated_items != NULL))
		valid = check_and_evaluate(check, node, slot, evaluated);
	else
		valid = check_rules(check, node, slot, evaluated);
	check->scope = outer;
	check->depth--;
	return valid && check->given_up == NULL;
}

bool
json_schema_check(const JsonSchema *schema, const JsonbContainer *instance, List **errors,
				  int limit)
{
	SchemaCheck check;
	JsonSlot root;
	bool valid;

	json_slot_root(&root, instance);
	check.schema = schema;
	check.errors = errors;
	check.limit = limit;
	check.steps = SCHEMA_BASE_STEPS + SCHEMA_BYTE_STEPS * (int64) json_slot_size(&root);
	check.depth = 0;
	check.given_up = NULL;
	check.scope = NULL;
	valid = schema_check_node(&check, schema->root, &root, NULL);
	if (check.given_up != NULL)
	{
		const char *why = check.given_up;

		check.given_up = NULL;
		schema_report(&check, schema->root, NULL, &root, "%s", why);
		return false;
	}
	return valid;
}

/*
 * schema_object.c
 *		Checks objects: a merge of the schema's properties with the instance's members.
 *
 * Both are in jsonb's order of keys, by length and then by bytes, so that one pass finds all that
 * match and all that are missing.  Where the schema knows far more names than the instance has,
 * each is looked up instead.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "gate/schema_node.h"

/* So many times more properties than members: look up. */
#define LOOK_UP_RATIO 16

/* What a member's presence asks for. */
static bool
check_dependencies(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot,
				   const SchemaProperty *property, Evaluated *evaluated)
{
	bool valid = true;

	for (const SchemaDependency *dependency = property->dependencies; dependency != NULL;
		 dependency = dependency->next)
	{
		if (dependency->schema != NULL)
		{
			if (schema_check_ends(
					check, schema_check_node(check, dependency->schema, slot, evaluated), &valid))
				return false;
		}
		else
		{
			JsonWalk walk;
			JsonSlot name;
			JsonSlot member;

			schema_check_work(check, dependency->required.length);
			json_walk_start(&walk, &dependency->required);
			while (json_walk_element(&walk, &name))
			{
				if (json_slot_member(slot, name.data, name.length, &member))
					continue;
				schema_report(check, node, dependency->keyword, slot,
							  "must have \"%.*s\" because it has \"%.*s\"", name.length, name.data,
							  property->length, property->key);
				if (schema_check_ends(check, false, &valid))
					return false;
			}
		}
	}
	return valid;
}

/* A member that no entry of the schema's properties has a schema for, or all have been tried. */
static bool
check_other_schemas(SchemaCheck *check, const ObjectRules *rules, const JsonSlot *child,
					bool matched, Evaluated *evaluated, int index)
{
	bool valid = true;

	for (int i = 0; i < rules->pattern_count; i++)
	{
		const SchemaPattern *pattern = &rules->patterns[i];

		if (!schema_check_regex(check, pattern->regex, child->key, child->key_length))
		{
			if (check->given_up != NULL)
				return false;
			continue;
		}
		matched = true;
		evaluated_mark(evaluated, index);
		if (schema_check_ends(check, schema_check_node(check, pattern->schema, child, NULL),
							  &valid))
			return false;
	}
	if (!matched && rules->additional != NULL)
	{
		evaluated_mark(evaluated, index);
		valid &= schema_check_node(check, rules->additional, child, NULL);
	}
	return valid;
}

static bool
check_name(SchemaCheck *check, const SchemaNode *schema, const JsonSlot *child)
{
	JsonSlot name = *child;

	name.type = JSON_TYPE_STRING;
	name.data = child->key;
	name.length = child->key_length;
	return schema_check_node(check, schema, &name, NULL);
}

static void
report_missing(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot)
{
	const ObjectRules *rules = node->object;
	JsonSlot member;

	schema_check_work(check, rules->property_count / 4);
	for (int i = 0; i < rules->property_count && schema_check_goes_on(check); i++)
	{
		const SchemaProperty *property = &rules->properties[i];

		if (property->required && !json_slot_member(slot, property->key, property->length, &member))
			schema_report(check, node, "required", slot, "must have \"%.*s\"", property->length,
						  property->key);
	}
}

/* The schema's entry for a key: the one at *at, which goes along with the keys, or looked up. */
static inline const SchemaProperty *
find_property(const ObjectRules *rules, const char *key, int length, int *at, bool look_up)
{
	int high = rules->property_count;

	if (look_up)
	{
		while (*at < high)
		{
			int middle = *at + (high - *at) / 2;
			const SchemaProperty *property = &rules->properties[middle];

			if (json_key_compare(property->key, property->length, key, length) < 0)
				*at = middle + 1;
			else
				high = middle;
		}
		high = rules->property_count;
	}
	for (; *at < high; (*at)++)
	{
		const SchemaProperty *property = &rules->properties[*at];
		int order = json_key_compare(property->key, property->length, key, length);

		if (order == 0)
			return &rules->properties[(*at)++];
		if (order > 0)
			break;
	}
	return NULL;
}

bool
schema_check_object(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot,
					Evaluated *evaluated)
{
	const ObjectRules *rules = node->object;
	bool others = rules->pattern_count > 0 || rules->additional != NULL;
	bool look_up = rules->property_count > LOOK_UP_RATIO * (slot->length + 1);
	bool valid = true;
	int missing = rules->required_count;
	int at = 0;
	JsonWalk walk;
	JsonSlot child;

	if (slot->length < rules->min_properties)
	{
		schema_report(check, node, "minProperties", slot, "must have at least %d member%s",
					  rules->min_properties, PLURAL(rules->min_properties));
		if (schema_check_ends(check, false, &valid))
			return false;
	}
	if (slot->length > rules->max_properties)
	{
		schema_report(check, node, "maxProperties", slot, "must have at most %d member%s",
					  rules->max_properties, PLURAL(rules->max_properties));
		if (schema_check_ends(check, false, &valid))
			return false;
	}
	if (!schema_check_work(check, slot->length + (look_up ? 0 : rules->property_count / 16)))
		return false;

	json_walk_start(&walk, slot);
	while (json_walk_member(&walk, &child))
	{
		const SchemaProperty *property =
			find_property(rules, child.key, child.key_length, &at, look_up);

		if (property != NULL)
		{
			missing -= property->required;
			if (property->schema != NULL)
			{
				evaluated_mark(evaluated, walk.index - 1);
				if (schema_check_ends(
						check, schema_check_node(check, property->schema, &child, NULL), &valid))
					return false;
			}
			if (property->dependencies != NULL &&
				schema_check_ends(check, check_dependencies(check, node, slot, property, evaluated),
								  &valid))
				return false;
		}
		if (others &&
			schema_check_ends(check,
							  check_other_schemas(check, rules, &child,
												  property != NULL && property->schema != NULL,
												  evaluated, walk.index - 1),
							  &valid))
			return false;
		if (rules->names != NULL &&
			schema_check_ends(check, check_name(check, rules->names, &child), &valid))
			return false;
	}
	if (missing > 0)
	{
		report_missing(check, node, slot);
		return false;
	}
	return valid;
}

/*
 * schema_values.c
 *		Checks strings, numbers, arrays, and values against enum and const.
 */
#include "postgres.h"

#include <limits.h>

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"

#include "gate/jsonb_number.h"
#include "gate/schema_node.h"

/* Messages show values of the schema up to this many bytes. */
#define SHOWN_BYTES 100

/* Arrays up to this length are compared pair by pair. */
#define UNIQUE_PAIRS 8

/* Bytes of two values that are compared for a step, and bytes of numbers. */
#define EQUAL_BYTES	 8
#define NUMBER_BYTES 32

/* Steps that an element costs to be brought together with its equals. */
#define UNIQUE_STEPS 24

/* Equality, which takes steps when there is much to compare; false when there are none left. */
static bool
are_equal(SchemaCheck *check, const JsonSlot *a, const JsonSlot *b)
{
	if (a->type != b->type || a->length != b->length)
		return false;
	if ((a->type == JSON_TYPE_OBJECT || a->type == JSON_TYPE_ARRAY) &&
		!schema_check_work(check,
						   a->length + Min(json_slot_size(a), json_slot_size(b)) / EQUAL_BYTES))
		return false;
	return json_slot_equal(a, b);
}

/* Characters of UTF-8: all bytes but those that go on with one. */
static int
count_characters(const char *text, int length)
{
	int count = 0;

	for (int i = 0; i < length; i++)
		count += (text[i] & 0xC0) != 0x80;
	return count;
}

bool
schema_check_string(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot)
{
	const StringRules *rules = node->string;
	bool valid = true;

	/* A character takes one to four bytes: most lengths need no counting. */
	if (slot->length > rules->max_length || slot->length < (int64) rules->min_length * 4)
	{
		int characters = count_characters(slot->data, slot->length);

		schema_check_work(check, slot->length / 64);
		if (characters > rules->max_length)
		{
			schema_report(check, node, "maxLength", slot, "must have at most %d character%s",
						  rules->max_length, PLURAL(rules->max_length));
			if (schema_check_ends(check, false, &valid))
				return false;
		}
		if (characters < rules->min_length)
		{
			schema_report(check, node, "minLength", slot, "must have at least %d character%s",
						  rules->min_length, PLURAL(rules->min_length));
			if (schema_check_ends(check, false, &valid))
				return false;
		}
	}
	if (rules->pattern != NULL &&
		!schema_check_regex(check, rules->pattern, slot->data, slot->length))
	{
		schema_report(check, node, "pattern", slot, "must match the pattern");
		if (schema_check_ends(check, false, &valid))
			return false;
	}
	if (rules->format != SCHEMA_FORMAT_NONE)
	{
		schema_check_work(check, 1 + slot->length / 16);
		if (!schema_format_matches(rules->format, slot->data, slot->length))
		{
			schema_report(check, node, "format", slot, "must be of format %s",
						  schema_format_name(rules->format));
			valid = false;
		}
	}
	return valid;
}

/* Appends a value of the schema as messages show it. */
static void
show_value(StringInfo text, const JsonSlot *slot)
{
	int start = text->len;
	char *shown;

	switch (slot->type)
	{
		case JSON_TYPE_NULL:
			appendStringInfoString(text, "null");
			break;
		case JSON_TYPE_BOOLEAN:
			appendStringInfoString(text, slot->boolean ? "true" : "false");
			break;
		case JSON_TYPE_NUMBER:
			shown = DatumGetCString(DirectFunctionCall1(numeric_out, PointerGetDatum(slot->data)));
			appendStringInfoString(text, shown);
			pfree(shown);
			break;
		case JSON_TYPE_STRING:
			shown = pnstrdup(slot->data, Min(slot->length, 4 * SHOWN_BYTES));
			escape_json(text, shown);
			pfree(shown);
			break;
		default:
			if (json_slot_size(slot) > 4 * SHOWN_BYTES)
				appendStringInfoString(text, slot->type == JSON_TYPE_ARRAY ? "a certain array"
																		   : "a certain object");
			else
			{
				shown = JsonbToCString(NULL, (JsonbContainer *) slot->data, json_slot_size(slot));
				appendStringInfoString(text, shown);
				pfree(shown);
			}
			break;
	}
	if (text->len - start > SHOWN_BYTES)
	{
		text->len = start + pg_mbcliplen(text->data + start, text->len - start, SHOWN_BYTES);
		text->data[text->len] = '\0';
		appendStringInfoString(text, "…");
	}
}

/* Reports that a value must be, or be in relation to, one of the schema's. */
static void
report_value(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot, const char *keyword,
			 const char *rule, const JsonSlot *value)
{
	StringInfoData text;

	if (!schema_check_goes_on(check))
		return;
	if (value->type == JSON_TYPE_NUMBER)
		schema_check_work(check, VARSIZE_ANY(value->data));
	initStringInfo(&text);
	show_value(&text, value);
	schema_report(check, node, keyword, slot, "%s %s", rule, text.data);
	pfree(text.data);
}

static void
report_number(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot, const char *keyword,
			  const char *rule, const char *limit)
{
	JsonSlot number = {.type = JSON_TYPE_NUMBER, .data = limit};

	report_value(check, node, slot, keyword, rule, &number);
}

bool
schema_check_number(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot)
{
	const NumberRules *rules = node->number;
	bool valid = true;

	if (!schema_check_work(check, VARSIZE_ANY(slot->data) / NUMBER_BYTES))
		return false;
	if (rules->minimum != NULL && json_number_compare(slot->data, rules->minimum) < 0)
	{
		report_number(check, node, slot, "minimum", "must be at least", rules->minimum);
		if (schema_check_ends(check, false, &valid))
			return false;
	}
	if (rules->maximum != NULL && json_number_compare(slot->data, rules->maximum) > 0)
	{
		report_number(check, node, slot, "maximum", "must be at most", rules->maximum);
		if (schema_check_ends(check, false, &valid))
			return false;
	}
	if (rules->exclusive_minimum != NULL &&
		json_number_compare(slot->data, rules->exclusive_minimum) <= 0)
	{
		report_number(check, node, slot, "exclusiveMinimum", "must be greater than",
					  rules->exclusive_minimum);
		if (schema_check_ends(check, false, &valid))
			return false;
	}
	if (rules->exclusive_maximum != NULL &&
		json_number_compare(slot->data, rules->exclusive_maximum) >= 0)
	{
		report_number(check, node, slot, "exclusiveMaximum", "must be less than",
					  rules->exclusive_maximum);
		if (schema_check_ends(check, false, &valid))
			return false;
	}
	if (rules->multiple_of != NULL)
	{
		int64 work;
		bool multiple =
			json_number_is_multiple(slot->data, rules->multiple_of, Max(check->steps, 0), &work);

		if (!schema_check_work(check, work))
			return false;
		if (!multiple)
		{
			report_number(check, node, slot, "multipleOf", "must be a multiple of",
						  rules->multiple_of);
			valid = false;
		}
	}
	return valid;
}

/* An element of an array with its hash, to bring equal ones together. */
typedef struct HashedElement
{
	uint64 hash;
	JsonSlot slot;
} HashedElement;

static int
compare_hashes(const void *a, const void *b)
{
	const HashedElement *x = a;
	const HashedElement *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return x->slot.key_length - y->slot.key_length;
}

/* The first pair of equal elements, if there is one. */
static bool
find_equal(SchemaCheck *check, const JsonSlot *slot, int *first, int *second)
{
	HashedElement *elements;
	JsonWalk walk;
	bool found = false;

	if (slot->length <= UNIQUE_PAIRS)
	{
		JsonSlot few[UNIQUE_PAIRS];

		json_walk_start(&walk, slot);
		for (int i = 0; json_walk_element(&walk, &few[i]); i++)
		{
			for (int j = 0; j < i; j++)
			{
				if (are_equal(check, &few[i], &few[j]))
				{
					*first = j;
					*second = i;
					return true;
				}
			}
			if (i == UNIQUE_PAIRS - 1)
				break;
		}
		return false;
	}

	if (!schema_check_work(check, (int64) slot->length * UNIQUE_STEPS + json_slot_size(slot) / 16))
		return false;
	elements = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(HashedElement) * slot->length);
	json_walk_start(&walk, slot);
	for (int i = 0; i < slot->length; i++)
	{
		json_walk_element(&walk, &elements[i].slot);
		elements[i].hash = json_slot_hash(&elements[i].slot);
	}
	qsort(elements, slot->length, sizeof(HashedElement), compare_hashes);
	for (int i = 1; i < slot->length && !found; i++)
	{
		/* Equal hashes of values that differ do not happen often, but may. */
		for (int j = i - 1; j >= 0 && elements[j].hash == elements[i].hash && !found; j--)
		{
			if (!schema_check_work(check, 1))
				break;
			if (are_equal(check, &elements[i].slot, &elements[j].slot))
			{
				*first = Min(elements[i].slot.key_length, elements[j].slot.key_length);
				*second = Max(elements[i].slot.key_length, elements[j].slot.key_length);
				found = true;
			}
		}
	}
	pfree(elements);
	return found;
}

static bool
check_contains(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot,
			   Evaluated *evaluated)
{
	const ArrayRules *rules = node->array;
	List **errors = check->errors;
	Evaluated *marks = rules->contains_evaluates ? evaluated : NULL;
	JsonWalk walk;
	JsonSlot child;
	int count = 0;

	/* An element that does not match is no error. */
	check->errors = NULL;
	json_walk_start(&walk, slot);
	while (json_walk_element(&walk, &child) && check->given_up == NULL)
	{
		if (!schema_check_node(check, rules->contains, &child, NULL))
			continue;
		count++;
		evaluated_mark(marks, walk.index - 1);
		if (marks == NULL && count >= rules->min_contains && rules->max_contains == INT_MAX)
			break;
		if (count > rules->max_contains)
			break;
	}
	check->errors = errors;
	if (count < rules->min_contains)
	{
		if (rules->min_contains == 1)
			schema_report(check, node, "contains", slot, "must contain an element that matches");
		else
			schema_report(check, node, "minContains", slot,
						  "must contain at least %d element%s that match", rules->min_contains,
						  PLURAL(rules->min_contains));
		return false;
	}
	if (count > rules->max_contains)
	{
		schema_report(check, node, "maxContains", slot,
					  "must contain at most %d element%s that match", rules->max_contains,
					  PLURAL(rules->max_contains));
		return false;
	}
	return true;
}

bool
schema_check_array(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot,
				   Evaluated *evaluated)
{
	const ArrayRules *rules = node->array;
	JsonWalk walk;
	JsonSlot child;
	bool valid = true;
	int first;
	int second;

	if (slot->length < rules->min_items)
	{
		schema_report(check, node, "minItems", slot, "must have at least %d element%s",
					  rules->min_items, PLURAL(rules->min_items));
		if (schema_check_ends(check, false, &valid))
			return false;
	}
	if (slot->length > rules->max_items)
	{
		schema_report(check, node, "maxItems", slot, "must have at most %d element%s",
					  rules->max_items, PLURAL(rules->max_items));
		if (schema_check_ends(check, false, &valid))
			return false;
	}
	if (rules->unique && slot->length > 1 && find_equal(check, slot, &first, &second))
	{
		schema_report(check, node, "uniqueItems", slot,
					  "must have no equal elements, but those at %d and %d are", first, second);
		if (schema_check_ends(check, false, &valid))
			return false;
	}
	if (rules->prefix_count > 0 || rules->rest != NULL)
	{
		json_walk_start(&walk, slot);
		while (json_walk_element(&walk, &child))
		{
			const SchemaNode *schema =
				walk.index <= rules->prefix_count ? rules->prefix[walk.index - 1] : rules->rest;

			if (schema == NULL)
				break;
			if (schema_check_ends(check, schema_check_node(check, schema, &child, NULL), &valid))
				return false;
			evaluated_mark(evaluated, walk.index - 1);
		}
		if (rules->rest != NULL && evaluated != NULL)
			evaluated->all = true;
	}
	if (rules->contains != NULL && !check_contains(check, node, slot, evaluated))
		valid = false;
	return valid;
}

/* Is a value one of enum's? */
static bool
is_in_enum(SchemaCheck *check, const InPlaceRules *rules, const JsonSlot *slot)
{
	int low = 0;
	int high = rules->enum_strings;

	if (slot->type == JSON_TYPE_STRING)
	{
		schema_check_work(check, slot->length / 64);
		while (low < high)
		{
			int middle = low + (high - low) / 2;
			const JsonSlot *value = &rules->values[middle];
			int order = json_key_compare(value->data, value->length, slot->data, slot->length);

			if (order == 0)
				return true;
			if (order < 0)
				low = middle + 1;
			else
				high = middle;
		}
		return false;
	}
	schema_check_work(check, (rules->enum_count - rules->enum_strings) / 4);
	for (int i = rules->enum_strings; i < rules->enum_count; i++)
	{
		if (are_equal(check, &rules->values[i], slot))
			return true;
	}
	return false;
}

static void
report_enum(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot)
{
	const InPlaceRules *rules = node->in_place;
	StringInfoData values;
	JsonWalk walk;
	JsonSlot value;

	if (!schema_check_goes_on(check))
		return;
	initStringInfo(&values);
	json_walk_start(&walk, &rules->enum_list);
	while (json_walk_element(&walk, &value))
	{
		if (values.len > SHOWN_BYTES)
		{
			appendStringInfo(&values, " and %d more", walk.count - walk.index + 1);
			break;
		}
		if (walk.index > 1)
			appendStringInfoString(&values, ", ");
		show_value(&values, &value);
	}
	if (walk.count == 0)
		schema_report(check, node, "enum", slot, "must be one of no values");
	else
		schema_report(check, node, "enum", slot, "must be one of %s", values.data);
	pfree(values.data);
}

/* enum and const. */
bool
schema_check_value(SchemaCheck *check, const SchemaNode *node, const JsonSlot *slot)
{
	const InPlaceRules *rules = node->in_place;
	bool valid = true;

	if (rules->enum_list.type != 0 && !is_in_enum(check, rules, slot))
	{
		report_enum(check, node, slot);
		if (schema_check_ends(check, false, &valid))
			return false;
	}
	if (rules->has_const && !are_equal(check, &rules->constant, slot))
	{
		report_value(check, node, slot, "const", "must be", &rules->constant);
		valid = false;
	}
	return valid;
}

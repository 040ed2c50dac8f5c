/*
 * pattern_explain.c
 *		Why an event matches a pattern, or does not: a row for each field.
 *
 * A field that is part of several rules ($or around or beside it) is shown as in the rule that
 * matches, or else as in the one where it does best.
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/numeric.h"

#include "core/compat.h"
#include "route/pattern_explain.h"
#include "route/pattern_internal.h"

#define SHOWN_BYTES 100

static const char *
show_leaf(const Leaf *leaf)
{
	StringInfoData text;

	initStringInfo(&text);
	switch (leaf->kind)
	{
		case LEAF_STRING:
		{
			int length = leaf->string.length;

			if (length > SHOWN_BYTES)
				length = pg_mbcliplen(leaf->string.data, length, SHOWN_BYTES);
			escape_json(&text, pnstrdup(leaf->string.data, length));
			if (length < leaf->string.length)
				appendStringInfoString(&text, "...");
			break;
		}
		case LEAF_TRUE:
			return "true";
		case LEAF_FALSE:
			return "false";
		case LEAF_NULL:
			return "null";
		default:
			appendStringInfoString(&text, DatumGetCString(DirectFunctionCall1(
											  numeric_out, PointerGetDatum(leaf->string.data))));
			break;
	}
	return text.data;
}

static const char *
show_alternative(const Field *field, int position)
{
	JsonbValue *value = getIthJsonbValueFromContainer(field->alternatives, position);
	char *text;
	int length;

	if (value->type == jbvBinary)
		text = JsonbToCString(NULL, value->val.binary.data, value->val.binary.len);
	else
	{
		Jsonb *scalar = JsonbValueToJsonb(value);

		text = JsonbToCString(NULL, &scalar->root, VARSIZE(scalar));
	}
	length = strlen(text);
	if (length > SHOWN_BYTES)
		return psprintf("%.*s...", pg_mbcliplen(text, length, SHOWN_BYTES), text);
	return text;
}

/* The leaf that is taken to be the one that matched, and what accepts it. */
static const char *
explain_accepted(const Field *field, LeafList *list, bool elsewhere)
{
	for (int i = 0; i < list->count; i++)
	{
		Leaf *leaf = &list->leaves[i];
		const char *by = NULL;

		if (!matcher_list_accepts(&field->list, leaf))
			continue;
		for (int j = 0; j < field->list.count && by == NULL; j++)
		{
			if (matcher_accepts(&field->list.matchers[j], leaf))
				by = show_alternative(field, field->list.matchers[j].position);
		}
		if (elsewhere)
			return psprintf(
				"%s matches, but not in the same element of an array as the fields before it",
				show_leaf(leaf));
		if (by == NULL)
			return psprintf("%s is in the list", show_leaf(leaf));
		return psprintf("%s matches %s", show_leaf(leaf), by);
	}
	return "";
}

static const char *
explain_field(const Field *field, LeafList *list, FieldVerdict verdict)
{
	switch (verdict)
	{
		case FIELD_MATCHED:
			return explain_accepted(field, list, false);
		case FIELD_OTHER_ELEMENT:
			return explain_accepted(field, list, true);
		case FIELD_ABSENT:
			return "there is no value, as {\"exists\": false} asks";
		case FIELD_ELSEWHERE:
			return "there are values, but in other elements of an array than those of the fields before it, which counts as absent";
		case FIELD_NO_VALUE:
			return "there is no value; an object or an empty array is none";
		case FIELD_NOT_ACCEPTED:
			if (list->count == 1)
				return psprintf("%s does not match", show_leaf(&list->leaves[0]));
			return psprintf("none of %d values matches; the first is %s", list->count,
							show_leaf(&list->leaves[0]));
	}
	return "";
}

void
pattern_explain(EventPattern *pattern, bool is_object, Tuplestorestate *rows, TupleDesc desc)
{
	int count = pattern->field_count;
	uint32 first = count > 0 ? pattern->fields[0]->number : 0;
	FieldVerdict *verdicts = palloc(count * sizeof(FieldVerdict));
	FieldVerdict *best = palloc(count * sizeof(FieldVerdict));
	int *rank = palloc0(count * sizeof(int)); /* 0: in no rule */

	for (int i = 0; i < pattern->count; i++)
	{
		const Rule *rule = &pattern->rules[i];
		bool all;

		CHECK_FOR_INTERRUPTS();
		all = rule_explain(rule, pattern->view, verdicts);
		for (int j = 0; j < rule->count; j++)
		{
			int field = rule->fields[j]->number - first;
			int this_rank = verdicts[j] > FIELD_ELSEWHERE ? 1 : all ? 3 : 2;

			if (this_rank > rank[field])
			{
				rank[field] = this_rank;
				best[field] = verdicts[j];
			}
		}
	}
	for (int i = 0; i < count; i++)
	{
		const Field *field = pattern->fields[i];
		Datum values[3];
		bool nulls[3] = {false, false, false};
		const char *why;

		if (!is_object)
		{
			why = "the event is not an object";
			rank[i] = 1;
		}
		else if (rank[i] == 0)
			why = "not used: the same path stands further inside of $or, or once more";
		else
			why = explain_field(field, event_view_leaves(pattern->view, field->path), best[i]);
		values[0] = CStringGetTextDatum(field->shown);
		values[1] = BoolGetDatum(rank[i] > 1);
		values[2] = CStringGetTextDatum(why);
		nulls[1] = rank[i] == 0;
		tuplestore_putvalues(rows, desc, values, nulls);
	}
}

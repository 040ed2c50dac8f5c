/*
 * json_patch.c
 *		JSON merge patch (RFC 7396), from text to text.
 *
 * What the patch does not touch stays as it stands, byte for byte: numbers keep their digits, and
 * a value that no jsonb can hold does not keep another from being mended.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/json.h"

#include "core/json.h"

static inline bool
same_key(const JsonNode *a, const JsonNode *b)
{
	return a->key_length == b->key_length && memcmp(a->key, b->key, a->key_length) == 0;
}

/* The member of an object with the same key; of repeated ones the last.  NULL when there is none.
 */
static const JsonNode *
member_like(const JsonNode *object, const JsonNode *member)
{
	const JsonNode *found = NULL;

	for (const JsonNode *child = object->first_child; child != NULL; child = child->next)
	{
		if (same_key(child, member))
			found = child;
	}
	return found;
}

static void
append_comma(StringInfo out)
{
	if (out->data[out->len - 1] != '{')
		appendStringInfoChar(out, ',');
}

/* Appends the members of the target that the patch leaves alone, each with its key as it stands. */
static void
append_untouched(StringInfo out, const char *text, const JsonNode *target, const JsonNode *patch)
{
	int from = target->start + 1; /* behind the brace */

	for (const JsonNode *child = target->first_child; child != NULL; child = child->next)
	{
		while (strchr(" \t\r\n,", text[from]) != NULL)
			from++;
		if (member_like(patch, child) == NULL)
		{
			append_comma(out);
			appendBinaryStringInfo(out, text + from, child->end - from);
		}
		from = child->end;
	}
}

void
json_merge_patch(StringInfo out, const char *text, const JsonNode *target, const char *patch_text,
				 const JsonNode *patch)
{
	check_stack_depth();
	if (patch->kind != JSON_OBJECT)
	{
		appendBinaryStringInfo(out, patch_text + patch->start, patch->end - patch->start);
		return;
	}
	if (target != NULL && target->kind != JSON_OBJECT)
		target = NULL;
	if (target != NULL && target->first_child == NULL && target->flaw != NULL)
	{
		/* So deep that the parser has not looked inside: it is refused as it stands. */
		appendBinaryStringInfo(out, text + target->start, target->end - target->start);
		return;
	}

	appendStringInfoChar(out, '{');
	if (target != NULL)
		append_untouched(out, text, target, patch);
	for (const JsonNode *child = patch->first_child; child != NULL; child = child->next)
	{
		if (child->kind == JSON_NULL)
			continue;
		append_comma(out);
		escape_json(out, pnstrdup(child->key, child->key_length));
		appendStringInfoChar(out, ':');
		json_merge_patch(out, text, target != NULL ? member_like(target, child) : NULL, patch_text,
						 child);
	}
	appendStringInfoChar(out, '}');
}

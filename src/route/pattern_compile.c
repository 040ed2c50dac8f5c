/*
 * pattern_compile.c
 *		From the JSON of an event pattern to rules: conjunctions of fields.
 *
 * $or is multiplied out, to at most MAX_RULES rules.  A path that is in several places of a rule:
 * the one inside more $or wins, and of equals the one that jsonb has last.  Messages are those of
 * EventBridge, without what stands before "Reason:".
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "core/compat.h"
#include "route/pattern_compile.h"

#define MAX_RULES  1000
#define MAX_FIELDS 1000000 /* of all rules together */

/* A rule in the making, and a list of them: alternatives. */
typedef struct Draft
{
	Field **fields;
	int count;
	int room;
} Draft;

typedef struct DraftList
{
	Draft *drafts;
	int count;
} DraftList;

static void compile_object(PatternCompiler *c, PathNode *node, JsonbContainer *object, int depth,
						   DraftList *result);

void
pattern_refuse(PatternCompiler *c, const char *format, ...)
{
	StringInfoData reason;

	initStringInfo(&reason);
	for (;;)
	{
		va_list args;
		int needed;

		va_start(args, format);
		needed = appendStringInfoVA(&reason, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&reason, needed);
	}
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", reason.data),
					c->where.len > 0 ? errdetail("At path \"%s\".", c->where.data)
									 : errdetail("At the top level of the pattern.")));
}

int
pattern_enter(PatternCompiler *c, const char *key, int length)
{
	int back = c->where.len;

	if (back > 0)
		appendStringInfoChar(&c->where, '.');
	appendBinaryStringInfo(&c->where, key, length);
	return back;
}

int
pattern_enter_item(PatternCompiler *c, int index)
{
	int back = c->where.len;

	appendStringInfo(&c->where, "[%d]", index);
	return back;
}

void
pattern_leave(PatternCompiler *c, int back)
{
	c->where.len = back;
	c->where.data[back] = '\0';
}

static void
draft_add(Draft *draft, Field *const *fields, int count)
{
	if (count == 0)
		return;
	if (draft->count + count > draft->room)
	{
		draft->room = Max(draft->room * 2, Max(8, draft->count + count));
		if (draft->fields == NULL)
			draft->fields = palloc_extended(draft->room * sizeof(Field *), MCXT_ALLOC_HUGE);
		else
			draft->fields = repalloc_huge(draft->fields, draft->room * sizeof(Field *));
	}
	memcpy(draft->fields + draft->count, fields, count * sizeof(Field *));
	draft->count += count;
}

static void
check_complexity(PatternCompiler *c, const DraftList *list)
{
	int64 fields = 0;

	for (int i = 0; i < list->count; i++)
		fields += list->drafts[i].count;
	if (fields > MAX_FIELDS)
		pattern_refuse(c, "Rule is too complex - its $or relationships make more than %d fields",
					   MAX_FIELDS);
}

/* list := list AND more. */
static void
multiply(PatternCompiler *c, DraftList *list, const DraftList *more)
{
	DraftList product;

	if (more->count > 1)
	{
		if ((int64) list->count * more->count > MAX_RULES)
			pattern_refuse(c, "Rule is too complex - its $or relationships make more than %d rules",
						   MAX_RULES);
		product.count = list->count * more->count;
		product.drafts = palloc0(product.count * sizeof(Draft));
		for (int i = 0; i < product.count; i++)
		{
			const Draft *a = &list->drafts[i / more->count];
			const Draft *b = &more->drafts[i % more->count];

			draft_add(&product.drafts[i], a->fields, a->count);
			draft_add(&product.drafts[i], b->fields, b->count);
		}
		*list = product;
	}
	else
	{
		for (int i = 0; i < list->count; i++)
			draft_add(&list->drafts[i], more->drafts[0].fields, more->drafts[0].count);
	}
	if (list->count > 1)
		check_complexity(c, list);
}

/* Those of "$or": alternatives, one after the other. */
static void
compile_or(PatternCompiler *c, PathNode *node, const JsonbValue *value, int depth,
		   DraftList *result)
{
	JsonbContainer *array;
	int count;

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		pattern_refuse(c, "It must be an Array followed with $or.");
	array = value->val.binary.data;
	count = JsonContainerSize(array);
	result->drafts = NULL;
	result->count = 0;
	for (int i = 0; i < count; i++)
	{
		JsonbValue *item = getIthJsonbValueFromContainer(array, i);
		int back = pattern_enter_item(c, i);
		DraftList branch;

		if (item->type != jbvBinary || !JsonContainerIsObject(item->val.binary.data))
			pattern_refuse(c, "Only JSON object is allowed in array of $or relationship.");
		compile_object(c, node, item->val.binary.data, depth + 1, &branch);
		if (result->count + branch.count > MAX_RULES)
			pattern_refuse(c, "Rule is too complex - its $or relationships make more than %d rules",
						   MAX_RULES);
		if (result->drafts == NULL)
			result->drafts = palloc(branch.count * sizeof(Draft));
		else
			result->drafts =
				repalloc(result->drafts, (result->count + branch.count) * sizeof(Draft));
		memcpy(result->drafts + result->count, branch.drafts, branch.count * sizeof(Draft));
		result->count += branch.count;
		pattern_leave(c, back);
	}
	if (count < 2)
		pattern_refuse(c, "There must have at least 2 Objects in $or relationship.");
	check_complexity(c, result);
}

/* A list of alternatives at a path. */
static Field *
compile_field(PatternCompiler *c, PathNode *node, JsonbContainer *array, int depth)
{
	MemoryContext old = MemoryContextSwitchTo(c->context);
	Field *field = palloc0(sizeof(Field));

	field->path = node;
	field->depth = depth;
	field->number = ++c->pattern->paths->fields;
	field->shown = pstrdup(c->where.data);
	field->alternatives = array;
	pattern_compile_list(c, array, &field->list);
	if (!node->wanted)
	{
		StringInfoData name;

		initStringInfo(&name);
		for (PathNode *cur = node; cur->parent != NULL; cur = cur->parent)
		{
			Str segment = cur->segment;
			int length = segment.length + (cur != node);

			enlargeStringInfo(&name, length);
			memmove(name.data + length, name.data, name.len);
			memcpy(name.data, segment.data, segment.length);
			if (cur != node)
				name.data[segment.length] = '.';
			name.len += length;
		}
		node->name = str_make(name.data, name.len);
		node->wanted = true;
	}
	if (c->pattern->field_count == c->field_room)
	{
		c->field_room = Max(8, c->field_room * 2);
		if (c->pattern->fields == NULL)
			c->pattern->fields = palloc(c->field_room * sizeof(Field *));
		else
			c->pattern->fields = repalloc(c->pattern->fields, c->field_room * sizeof(Field *));
	}
	c->pattern->fields[c->pattern->field_count++] = field;
	MemoryContextSwitchTo(old);
	return field;
}

/* The words that EventBridge keeps for operators, and so refuses as names inside of $or. */
static bool
is_reserved(Str name)
{
	static const char *const words[] = {"exactly",
										"equals-ignore-case",
										"prefix",
										"suffix",
										"anything-but",
										"exists",
										"wildcard",
										"numeric",
										"cidr",
										"=",
										"<",
										"<=",
										">",
										">=",
										"regex",
										"not-wildcard",
										"not-equals-ignore-case",
										"date-after",
										"date-on-or-after",
										"date-before",
										"date-on-or-before",
										"in-date-range",
										"ip-address-in-range",
										"ip-address-not-in-range"};

	for (int i = 0; i < lengthof(words); i++)
	{
		if (str_equal(name, str_make(words[i], strlen(words[i]))))
			return true;
	}
	return false;
}

static void
compile_object(PatternCompiler *c, PathNode *node, JsonbContainer *object, int depth,
			   DraftList *result)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbValue key;
	JsonbValue value;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (JsonContainerSize(object) == 0)
		pattern_refuse(c, "Empty objects are not allowed");
	result->count = 1;
	result->drafts = palloc0(sizeof(Draft));
	(void) JsonbIteratorNext(&it, &key, true);
	while (JsonbIteratorNext(&it, &key, true) == WJB_KEY)
	{
		Str name = str_make(key.val.string.val, key.val.string.len);
		int back = pattern_enter(c, name.data, name.length);
		DraftList part;
		Draft draft = {NULL, 0, 0};

		(void) JsonbIteratorNext(&it, &value, true);
		if (str_equal(name, str_make("$or", 3)))
			compile_or(c, node, &value, depth, &part);
		else
		{
			PathNode *child;
			MemoryContext old;

			if (depth > 0 && is_reserved(name))
				pattern_refuse(c,
							   "%.*s is Ruler reserved fieldName which cannot be used inside $or.",
							   name.length, name.data);
			if (value.type != jbvBinary)
				pattern_refuse(c, "\"%.*s\" must be an object or an array", name.length, name.data);
			old = MemoryContextSwitchTo(c->context);
			child = path_make(c->pattern->paths, node, name);
			MemoryContextSwitchTo(old);
			if (JsonContainerIsObject(value.val.binary.data))
				compile_object(c, child, value.val.binary.data, depth, &part);
			else
			{
				Field *field = compile_field(c, child, value.val.binary.data, depth);

				draft_add(&draft, &field, 1);
				part.count = 1;
				part.drafts = &draft;
			}
		}
		multiply(c, result, &part);
		pattern_leave(c, back);
	}
}

static int
compare_fields(const void *a, const void *b)
{
	const Field *x = *(Field *const *) a;
	const Field *y = *(Field *const *) b;

	if (x->path != y->path)
		return path_compare(x->path->name, y->path->name);
	if (x->depth != y->depth)
		return x->depth < y->depth ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

/* Sorts the fields, and keeps one of each path. */
static void
finish_rule(PatternCompiler *c, const Draft *draft, Rule *rule)
{
	qsort(draft->fields, draft->count, sizeof(Field *), compare_fields);
	rule->fields = MemoryContextAlloc(c->context, draft->count * sizeof(Field *));
	rule->count = 0;
	for (int i = 0; i < draft->count; i++)
	{
		if (i + 1 == draft->count || draft->fields[i]->path != draft->fields[i + 1]->path)
			rule->fields[rule->count++] = draft->fields[i];
	}
}

void
pattern_compile_into(EventPattern *pattern, Jsonb *source)
{
	MemoryContext work =
		AllocSetContextCreate(CurrentMemoryContext, "event pattern", ALLOCSET_DEFAULT_SIZES);
	PatternCompiler c;
	MemoryContext old;
	DraftList list;

	c.pattern = pattern;
	c.context = CurrentMemoryContext;
	c.field_room = 0;
	/* What is compiled points into a copy of its own. */
	source = memcpy(palloc(VARSIZE(source)), source, VARSIZE(source));
	old = MemoryContextSwitchTo(work);
	initStringInfo(&c.where);
	if (!JB_ROOT_IS_OBJECT(source))
		pattern_refuse(&c, "Filter is not an object");
	compile_object(&c, pattern->paths->nodes[0], &source->root, 0, &list);
	pattern->rules = MemoryContextAlloc(c.context, list.count * sizeof(Rule));
	pattern->count = list.count;
	for (int i = 0; i < list.count; i++)
		finish_rule(&c, &list.drafts[i], &pattern->rules[i]);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(work);
}

/*
 * pattern_set.c
 *		Many patterns at once.
 *
 * All patterns share one tree of paths, so an event is taken apart once.  The index
 * (pattern_index.h) brings up the rules that may match, and those are compared exactly.  It is made
 * at the first match after patterns were added.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "core/compat.h"
#include "log/log_row.h"
#include "route/event_json.h"
#include "route/pattern_index.h"

#define KEPT_ROW_MEMORY (256 * 1024)

/* What stands at the top of an event, as far as it comes from columns. */
typedef enum EnvelopeField
{
	ENVELOPE_VERSION,
	ENVELOPE_ID,
	ENVELOPE_DETAIL_TYPE,
	ENVELOPE_SOURCE,
	ENVELOPE_TIME,
	ENVELOPE_DETAIL,
	ENVELOPE_USER_ID,
	ENVELOPE_ANONYMOUS_ID,
	ENVELOPE_ACTOR,
	ENVELOPE_SEQUENCE,
	ENVELOPE_CONTEXT,
	ENVELOPE_RECEIVED_AT,
	ENVELOPE_FIELDS
} EnvelopeField;

static const char *const envelope_keys[] = {[ENVELOPE_VERSION] = "version",
											[ENVELOPE_ID] = "id",
											[ENVELOPE_DETAIL_TYPE] = "detail-type",
											[ENVELOPE_SOURCE] = "source",
											[ENVELOPE_TIME] = "time",
											[ENVELOPE_DETAIL] = "detail",
											[ENVELOPE_USER_ID] = "user_id",
											[ENVELOPE_ANONYMOUS_ID] = "anonymous_id",
											[ENVELOPE_ACTOR] = "actor",
											[ENVELOPE_SEQUENCE] = "sequence",
											[ENVELOPE_CONTEXT] = "context",
											[ENVELOPE_RECEIVED_AT] = "received_at"};

typedef struct SetRule
{
	int pattern; /* number of SetPattern */
	uint32 seen; /* event that it was compared with last */
} SetRule;

typedef struct SetPattern
{
	int number; /* the caller's */
	uint32 matched;
} SetPattern;

struct PatternSet
{
	MemoryContext context;
	MemoryContext index_context;
	MemoryContext row_context; /* what a row's columns were unpacked into */
	PathTable *paths;
	EventView *view;
	PatternIndex *index; /* NULL: to be made */
	PathNode *envelope[ENVELOPE_FIELDS];
	SetPattern *patterns;
	int pattern_count;
	int pattern_room;
	Rule **rules; /* of all patterns */
	SetRule *state;
	int rule_count;
	int rule_room;
	uint32 event; /* number of the event being matched */
	int *result;
	int result_count;
};

PatternSet *
pattern_set_make(void)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "pattern set", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	PatternSet *set = palloc0(sizeof(PatternSet));

	set->context = context;
	set->row_context = AllocSetContextCreate(context, "pattern set row", ALLOCSET_DEFAULT_SIZES);
	set->paths = path_table_make();
	set->view = event_view_make(set->paths);
	MemoryContextSwitchTo(old);
	return set;
}

void
pattern_set_free(PatternSet *set)
{
	MemoryContextDelete(set->context);
}

void
pattern_set_add(PatternSet *set, Jsonb *source, int rule)
{
	MemoryContext old = MemoryContextSwitchTo(set->context);
	EventPattern pattern;
	int needed;

	memset(&pattern, 0, sizeof(pattern));
	pattern.paths = set->paths;
	pattern_compile_into(&pattern, source);

	if (set->index != NULL)
	{
		MemoryContextDelete(set->index_context);
		set->index = NULL;
	}
	if (set->pattern_count == set->pattern_room)
	{
		set->pattern_room = Max(16, set->pattern_room * 2);
		if (set->patterns == NULL)
			set->patterns = palloc(set->pattern_room * sizeof(SetPattern));
		else
			set->patterns = repalloc(set->patterns, set->pattern_room * sizeof(SetPattern));
	}
	needed = set->rule_count + pattern.count;
	if (needed > set->rule_room)
	{
		set->rule_room = Max(needed, set->rule_room * 2);
		if (set->rules == NULL)
		{
			set->rules = palloc(set->rule_room * sizeof(Rule *));
			set->state = palloc(set->rule_room * sizeof(SetRule));
		}
		else
		{
			set->rules = repalloc_huge(set->rules, set->rule_room * sizeof(Rule *));
			set->state = repalloc_huge(set->state, set->rule_room * sizeof(SetRule));
		}
	}
	set->patterns[set->pattern_count].number = rule;
	set->patterns[set->pattern_count].matched = 0;
	for (int i = 0; i < pattern.count; i++)
	{
		set->rules[set->rule_count] = &pattern.rules[i];
		set->state[set->rule_count].pattern = set->pattern_count;
		set->state[set->rule_count].seen = 0;
		set->rule_count++;
	}
	set->pattern_count++;
	MemoryContextSwitchTo(old);
}

static void
make_index(PatternSet *set)
{
	MemoryContext old;

	set->index_context =
		AllocSetContextCreate(set->context, "pattern index", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(set->index_context);
	for (int i = 0; i < ENVELOPE_FIELDS; i++)
		set->envelope[i] = path_child(set->paths, set->paths->nodes[0],
									  str_make(envelope_keys[i], strlen(envelope_keys[i])));
	set->result = palloc(Max(1, set->pattern_count) * sizeof(int));
	set->index = pattern_index_make(set->paths, set->rules, set->rule_count);
	MemoryContextSwitchTo(old);
}

static void
begin_event(PatternSet *set)
{
	if (set->index == NULL)
		make_index(set);
	event_view_begin(set->view);
	set->result_count = 0;
	if (++set->event == 0)
	{
		/* The numbers have gone round. */
		for (int i = 0; i < set->rule_count; i++)
			set->state[i].seen = 0;
		for (int i = 0; i < set->pattern_count; i++)
			set->patterns[i].matched = 0;
		set->event = 1;
	}
}

static void
compare_rule(void *arg, int number)
{
	PatternSet *set = arg;
	SetRule *rule = &set->state[number];
	SetPattern *pattern = &set->patterns[rule->pattern];

	if (rule->seen == set->event || pattern->matched == set->event)
		return;
	rule->seen = set->event;
	CHECK_FOR_INTERRUPTS();
	if (rule_matches(set->rules[number], set->view))
	{
		pattern->matched = set->event;
		set->result[set->result_count++] = pattern->number;
	}
}

static int
compare_ints(const void *a, const void *b)
{
	int x = *(const int *) a;
	int y = *(const int *) b;

	return x < y ? -1 : x > y;
}

static int
end_event(PatternSet *set, const int **rules)
{
	MemoryContext old = MemoryContextSwitchTo(set->index_context);
	int count = 0;

	pattern_index_find(set->index, set->view, compare_rule, set);
	MemoryContextSwitchTo(old);
	if (set->result_count > 1)
		qsort(set->result, set->result_count, sizeof(int), compare_ints);
	for (int i = 0; i < set->result_count; i++)
	{
		if (count == 0 || set->result[count - 1] != set->result[i])
			set->result[count++] = set->result[i];
	}
	*rules = set->result;
	return count;
}

int
pattern_set_match(PatternSet *set, const JsonbContainer *event, const int **rules)
{
	*rules = NULL;
	if (!JsonContainerIsObject(event))
		return 0;
	begin_event(set);
	event_view_object(set->view, set->paths->nodes[0], event);
	return end_event(set, rules);
}

static void
take_text(PatternSet *set, EnvelopeField field, const Datum *values, const bool *isnull, int column)
{
	PathNode *node = set->envelope[field];
	text *value;

	if (node == NULL || !node->wanted || isnull[column - 1])
		return;
	value = DatumGetTextPP(values[column - 1]);
	event_view_string(set->view, node, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

static void
take_time(PatternSet *set, EnvelopeField field, const Datum *values, const bool *isnull, int column)
{
	PathNode *node = set->envelope[field];
	char *text;

	if (node == NULL || !node->wanted || isnull[column - 1])
		return;
	text = palloc(EVENT_TIME_LENGTH);
	event_view_string(set->view, node, text,
					  event_time_text(DatumGetTimestampTz(values[column - 1]), text));
}

static void
take_object(PatternSet *set, EnvelopeField field, const Datum *values, const bool *isnull,
			int column)
{
	PathNode *node = set->envelope[field];
	Jsonb *value;

	if (node == NULL || node->children == 0 || isnull[column - 1])
		return;
	value = DatumGetJsonbP(values[column - 1]);
	if (JB_ROOT_IS_OBJECT(value))
		event_view_object(set->view, node, &value->root);
}

int
pattern_set_match_row(PatternSet *set, const Datum *values, const bool *isnull, const int **rules)
{
	MemoryContext old;
	PathNode *node;

	begin_event(set);
	MemoryContextReset(set->row_context);
	old = MemoryContextSwitchTo(set->row_context);
	event_view_string(set->view, set->envelope[ENVELOPE_VERSION], EVENT_VERSION,
					  strlen(EVENT_VERSION));
	take_text(set, ENVELOPE_ID, values, isnull, LOG_EVENT_ID);
	take_text(set, ENVELOPE_DETAIL_TYPE, values, isnull, LOG_TYPE);
	take_text(set, ENVELOPE_SOURCE, values, isnull, LOG_SOURCE);
	take_time(set, ENVELOPE_TIME, values, isnull, LOG_OCCURRED_AT);
	take_object(set, ENVELOPE_DETAIL, values, isnull, LOG_PROPERTIES);
	take_text(set, ENVELOPE_USER_ID, values, isnull, LOG_USER_ID);
	take_text(set, ENVELOPE_ANONYMOUS_ID, values, isnull, LOG_ANONYMOUS_ID);
	take_text(set, ENVELOPE_ACTOR, values, isnull,
			  isnull[LOG_USER_ID - 1] ? LOG_ANONYMOUS_ID : LOG_USER_ID);
	node = set->envelope[ENVELOPE_SEQUENCE];
	if (node != NULL && node->wanted && !isnull[LOG_SEQUENCE - 1])
		event_view_number(set->view, node,
						  int64_to_numeric(DatumGetInt64(values[LOG_SEQUENCE - 1])));
	take_object(set, ENVELOPE_CONTEXT, values, isnull, LOG_CONTEXT);
	take_time(set, ENVELOPE_RECEIVED_AT, values, isnull, LOG_RECEIVED_AT);
	MemoryContextSwitchTo(old);
	return end_event(set, rules);
}

/*
 * pattern_match.c
 *		Does an event match a rule: a conjunction of fields?
 *
 * Fields are visited in the order of their paths.  A field is satisfied by a leaf that one of its
 * alternatives accepts and that does not lie in another element of an array than the leaves taken
 * for fields before; or, when it has exists false, by there being no leaf at its path that is
 * compatible so (so absence is judged by what was taken before, not by what comes).  The rule
 * matches when there is any choice of leaves for all fields.
 *
 * Instead of going back and forth, all choices are carried along at once, as states: the elements
 * that a choice has committed itself to, one for each array, without arrays that no later field
 * has leaves in.  Fields of one array are neighbours in the order of paths, so there are hardly
 * more states than elements.  (Only the same path written with dots and nested, with arrays in each
 * of them, lets states multiply; at MAX_STATES and MAX_WORK the rest of them is given up.)
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "route/pattern_internal.h"

#define MAX_STATES 100000
#define MAX_WORK   10000000 /* leaves compared with states, of one rule */

/* Elements, ascending; the array says how many there are. */
typedef struct State
{
	int count;
	int elements[FLEXIBLE_ARRAY_MEMBER];
} State;

/* A set of states. */
typedef struct StateSet
{
	State **states;
	int count;
	int room;
	int *slots; /* hash table; NULL: few */
	uint32 mask;
} StateSet;

static inline bool
field_accepts(const Field *field, Leaf *leaf)
{
	if (leaf->judged != field->number)
	{
		leaf->accepted = matcher_list_accepts(&field->list, leaf);
		leaf->judged = field->number;
	}
	return leaf->accepted;
}

static bool
any_accepted(const Field *field, LeafList *list)
{
	for (int i = 0; i < list->count; i++)
	{
		if (field_accepts(field, &list->leaves[i]))
			return true;
	}
	return false;
}

/* Notes for each array the last field that has leaves in it. */
static void
find_last_fields(const Rule *rule, EventView *view)
{
	for (int i = 0; i < view->array_count; i++)
		view->arrays[i].last_field = -1;
	for (int i = 0; i < rule->count; i++)
	{
		LeafList *list = event_view_leaves(view, rule->fields[i]->path);

		for (int j = 0; j < list->count; j++)
		{
			int element = list->leaves[j].element;

			while (element >= 0 && view->arrays[view->elements[element].array].last_field < i)
			{
				view->arrays[view->elements[element].array].last_field = i;
				element = view->elements[element].parent;
			}
		}
	}
}

static uint32
state_hash(const State *state)
{
	return (uint32) hash_text(0, (const char *) state->elements, state->count * sizeof(int));
}

static inline bool
state_equal(const State *a, const State *b)
{
	return a->count == b->count && memcmp(a->elements, b->elements, a->count * sizeof(int)) == 0;
}

static void
enter_state(StateSet *set, int index)
{
	uint32 slot = state_hash(set->states[index]) & set->mask;

	while (set->slots[slot] >= 0)
		slot = (slot + 1) & set->mask;
	set->slots[slot] = index;
}

static bool
has_state(const StateSet *set, const State *state)
{
	if (set->slots == NULL)
	{
		for (int i = 0; i < set->count; i++)
		{
			if (state_equal(set->states[i], state))
				return true;
		}
		return false;
	}
	for (uint32 slot = state_hash(state) & set->mask; set->slots[slot] >= 0;
		 slot = (slot + 1) & set->mask)
	{
		if (state_equal(set->states[set->slots[slot]], state))
			return true;
	}
	return false;
}

/* Adds a copy, unless it is there. */
static void
add_state(StateSet *set, const State *state)
{
	State *copy;
	Size size = offsetof(State, elements) + state->count * sizeof(int);

	if (set->count >= MAX_STATES || has_state(set, state))
		return;
	if (set->count == set->room)
	{
		set->room = Max(8, set->room * 2);
		if (set->states == NULL)
			set->states = palloc(set->room * sizeof(State *));
		else
		{
			set->states = repalloc(set->states, set->room * sizeof(State *));
			if (set->slots != NULL)
				pfree(set->slots);
			set->mask = set->room * 2 - 1;
			set->slots = palloc((set->mask + 1) * sizeof(int));
			memset(set->slots, -1, (set->mask + 1) * sizeof(int));
			for (int i = 0; i < set->count; i++)
				enter_state(set, i);
		}
	}
	copy = memcpy(palloc(size), state, size);
	set->states[set->count++] = copy;
	if (set->slots != NULL)
		enter_state(set, set->count - 1);
}

/* The state and the leaf's elements together, as far as fields behind "field" care. */
static void
merge_state(EventView *view, const State *state, int element, int field, State *merged)
{
	merged->count = 0;
	for (int i = 0; i < state->count; i++)
	{
		if (view->arrays[view->elements[state->elements[i]].array].last_field > field)
			merged->elements[merged->count++] = state->elements[i];
	}
	for (; element >= 0; element = view->elements[element].parent)
	{
		const Array *array = &view->arrays[view->elements[element].array];
		int at = merged->count;

		if (array->chosen >= 0 || array->last_field <= field)
			continue;
		while (at > 0 && merged->elements[at - 1] > element)
		{
			merged->elements[at] = merged->elements[at - 1];
			at--;
		}
		merged->elements[at] = element;
		merged->count++;
	}
}

/* The first leaf of the list at or behind a place in the event. */
static int
leaf_from(const LeafList *list, int low, int sequence)
{
	int high = list->count;

	while (low < high)
	{
		int middle = (low + high) / 2;

		if (list->leaves[middle].sequence < sequence)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/*
 * The next leaf from *at on that is compatible with the chosen elements; NULL: there is none.
 * What lies in elements that were not chosen is passed over.
 */
static Leaf *
next_compatible(EventView *view, LeafList *list, int *at)
{
	while (*at < list->count)
	{
		Leaf *leaf = &list->leaves[*at];
		int skip = -1;

		for (int e = leaf->element; e >= 0; e = view->elements[e].parent)
		{
			const Element *element = &view->elements[e];
			const Array *array = &view->arrays[element->array];

			if (array->chosen < 0 || array->chosen == e)
				continue;
			if (array->scalars)
				skip = element->end;
			else if (array->chosen > e)
				skip = view->elements[array->chosen].begin;
			else
				skip = array->end;
		}
		if (skip < 0)
			return leaf;
		*at = leaf_from(list, *at + 1, skip);
	}
	return NULL;
}

static void
choose(EventView *view, const State *state, bool on)
{
	for (int i = 0; i < state->count; i++)
		view->arrays[view->elements[state->elements[i]].array].chosen =
			on ? state->elements[i] : -1;
}

/* From the states before a field to those behind it. */
static void
advance(const Rule *rule, int number, EventView *view, const StateSet *from, StateSet *to,
		State *merged, FieldVerdict *verdict)
{
	const Field *field = rule->fields[number];
	LeafList *list = event_view_leaves(view, field->path);

	for (int i = 0; i < from->count; i++)
	{
		const State *state = from->states[i];
		Leaf *leaf;
		bool present = false;

		CHECK_FOR_INTERRUPTS();
		choose(view, state, true);
		for (int at = 0; (leaf = next_compatible(view, list, &at)) != NULL; at++)
		{
			present = true;
			if (++view->work > MAX_WORK)
				break;
			if (field_accepts(field, leaf))
			{
				merge_state(view, state, leaf->element, number, merged);
				add_state(to, merged);
				*verdict = FIELD_MATCHED;
			}
		}
		if (!present && field->list.absence)
		{
			merge_state(view, state, -1, number, merged);
			add_state(to, merged);
			if (*verdict != FIELD_MATCHED)
				*verdict = list->count == 0 ? FIELD_ABSENT : FIELD_ELSEWHERE;
		}
		choose(view, state, false);
	}
}

/* An empty state, with room for an element of each array. */
static State *
make_state(EventView *view)
{
	State *state = palloc(offsetof(State, elements) + (view->array_count + 1) * sizeof(int));

	state->count = 0;
	return state;
}

static bool
match_arrays(const Rule *rule, EventView *view)
{
	MemoryContext old = MemoryContextSwitchTo(view->scratch);
	StateSet sets[2];
	State *merged = make_state(view);
	bool result = true;

	/* What an error left. */
	for (int i = 0; i < view->array_count; i++)
		view->arrays[i].chosen = -1;
	view->work = 0;
	find_last_fields(rule, view);
	memset(sets, 0, sizeof(sets));
	add_state(&sets[0], merged);
	for (int i = 0; i < rule->count && result; i++)
	{
		StateSet *to = &sets[(i + 1) % 2];
		FieldVerdict verdict = FIELD_NO_VALUE;

		memset(to, 0, sizeof(StateSet));
		advance(rule, i, view, &sets[i % 2], to, merged, &verdict);
		result = to->count > 0;
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(view->scratch);
	return result;
}

static bool
in_elements(const LeafList *list)
{
	for (int i = 0; i < list->count; i++)
	{
		if (list->leaves[i].element >= 0)
			return true;
	}
	return false;
}

bool
rule_matches(const Rule *rule, EventView *view)
{
	bool arrays = false;

	for (int i = 0; i < rule->count; i++)
	{
		const Field *field = rule->fields[i];
		LeafList *list = event_view_leaves(view, field->path);
		bool elements = view->element_count > 0 && in_elements(list);

		arrays |= elements;
		if (list->count == 0 ? field->list.absence : any_accepted(field, list))
			continue;
		/* Absent it may still be, next to another element. */
		if (!field->list.absence || !elements)
			return false;
	}
	return !arrays || match_arrays(rule, view);
}

bool
rule_explain(const Rule *rule, EventView *view, FieldVerdict *verdicts)
{
	StateSet from;
	State *merged = make_state(view);
	bool result = true;

	view->work = 0;
	find_last_fields(rule, view);
	memset(&from, 0, sizeof(from));
	add_state(&from, merged);
	for (int i = 0; i < rule->count; i++)
	{
		const Field *field = rule->fields[i];
		LeafList *list = event_view_leaves(view, field->path);
		StateSet to;

		memset(&to, 0, sizeof(to));
		verdicts[i] = FIELD_NO_VALUE;
		advance(rule, i, view, &from, &to, merged, &verdicts[i]);
		if (to.count == 0)
		{
			result = false;
			if (list->count > 0)
				verdicts[i] = any_accepted(field, list) ? FIELD_OTHER_ELEMENT : FIELD_NOT_ACCEPTED;
			/* The others are judged as if it were not there. */
			for (int j = 0; j < from.count; j++)
			{
				merge_state(view, from.states[j], -1, i, merged);
				add_state(&to, merged);
			}
		}
		from = to;
	}
	return result;
}

/*
 * session_run.c
 *		Merging what is known of a session: minima, maxima and sums.
 */
#include "postgres.h"

#include "fold/session.h"

/* So many types are cheaper to look through than to sort. */
#define FEW_TYPES 16

/* As text COLLATE "C" compares. */
int
bytes_compare(Bytes a, Bytes b)
{
	int result = memcmp(a.data, b.data, Min(a.length, b.length));

	if (result != 0)
		return result;
	return (a.length > b.length) - (a.length < b.length);
}

int
order_key_compare(const OrderKey *a, const OrderKey *b)
{
	if (a->at != b->at)
		return a->at < b->at ? -1 : 1;
	if (a->has_sequence != b->has_sequence)
		return a->has_sequence ? 1 : -1;
	if (a->has_sequence && a->sequence != b->sequence)
		return a->sequence < b->sequence ? -1 : 1;
	return bytes_compare(a->event_id, b->event_id);
}

/* Keeps the earlier of two values, each with its key; without a value there is no key. */
static void
take_earlier(OrderKey *key, Bytes *value, const OrderKey *other_key, Bytes other)
{
	int order;

	if (other.data == NULL)
		return;
	if (value->data != NULL)
	{
		order = order_key_compare(other_key, key);
		if (order > 0 || (order == 0 && bytes_compare(other, *value) >= 0))
			return;
	}
	*key = *other_key;
	*value = other;
}

static void
take_later(OrderKey *key, Bytes *value, const OrderKey *other_key, Bytes other)
{
	int order;

	if (other.data == NULL)
		return;
	if (value->data != NULL)
	{
		order = order_key_compare(other_key, key);
		if (order < 0 || (order == 0 && bytes_compare(other, *value) <= 0))
			return;
	}
	*key = *other_key;
	*value = other;
}

static void
take_earlier_properties(SessionRun *run, const OrderKey *other_key, Jsonb *other)
{
	int order;

	if (other == NULL)
		return;
	if (run->properties != NULL)
	{
		order = order_key_compare(other_key, &run->properties_key);
		if (order > 0 ||
			(order == 0 && compareJsonbContainers(&other->root, &run->properties->root) >= 0))
			return;
	}
	run->properties_key = *other_key;
	run->properties = other;
}

static int
type_count_compare(const void *a, const void *b)
{
	return bytes_compare(((const TypeCount *) a)->type, ((const TypeCount *) b)->type);
}

/* Sums up the counts of each type. */
void
session_run_sum_types(SessionRun *run)
{
	int n = 0;

	if (run->ntypes <= FEW_TYPES)
		return;
	qsort(run->types, run->ntypes, sizeof(TypeCount), type_count_compare);
	for (int i = 1; i < run->ntypes; i++)
	{
		if (bytes_compare(run->types[n].type, run->types[i].type) == 0)
			run->types[n].count += run->types[i].count;
		else
			run->types[++n] = run->types[i];
	}
	run->ntypes = n + 1;
}

/* A larger array, in the current context. */
static void
grow_types(SessionRun *run)
{
	int max = Max(4, run->max_types * 2);
	TypeCount *types = palloc_extended(sizeof(TypeCount) * max, MCXT_ALLOC_HUGE);

	if (run->ntypes > 0)
		memcpy(types, run->types, sizeof(TypeCount) * run->ntypes);
	run->types = types;
	run->max_types = max;
}

/*
 * Counts a type.  Few types are looked through; with many, entries are appended and summed
 * up when the array is full, so that a client that makes up types costs n log n.
 */
static void
count_type(SessionRun *run, Bytes type, int64 count)
{
	if (run->ntypes <= FEW_TYPES)
	{
		for (int i = 0; i < run->ntypes; i++)
		{
			if (bytes_equal(run->types[i].type, type))
			{
				run->types[i].count += count;
				return;
			}
		}
	}
	if (run->ntypes == run->max_types)
	{
		session_run_sum_types(run);
		if (run->types == NULL || run->ntypes > run->max_types / 2)
			grow_types(run);
	}
	run->types[run->ntypes].type = type;
	run->types[run->ntypes].count = count;
	run->ntypes++;
}

/* Begins a run with one event; what the run points to is the event's.  "types" may be NULL. */
void
session_run_start(SessionRun *run, const SessionEvent *event, TypeCount *types, int max_types)
{
	memset(run, 0, sizeof(*run));
	run->types = types;
	run->max_types = max_types;
	session_run_add(run, event);
}

/* Adds an event that lies behind all of the run's. */
static void
append(SessionRun *run, const SessionEvent *event)
{
	run->last = event->key;
	run->exit_type = event->type;
	if (event->page.data != NULL)
	{
		if (run->entry_page.data == NULL)
		{
			run->entry_page_key = event->key;
			run->entry_page = event->page;
		}
		run->exit_page_key = event->key;
		run->exit_page = event->page;
	}
	if (event->properties != NULL && run->properties == NULL)
	{
		run->properties_key = event->key;
		run->properties = event->properties;
	}
	if (event->user_id.data != NULL)
	{
		run->user_key = event->key;
		run->user_id = event->user_id;
	}
}

/* Adds an event that may lie anywhere. */
static void
insert(SessionRun *run, const SessionEvent *event)
{
	take_earlier(&run->first, &run->entry_type, &event->key, event->type);
	take_later(&run->last, &run->exit_type, &event->key, event->type);
	take_earlier(&run->entry_page_key, &run->entry_page, &event->key, event->page);
	take_later(&run->exit_page_key, &run->exit_page, &event->key, event->page);
	take_earlier_properties(run, &event->key, event->properties);
	take_later(&run->user_key, &run->user_id, &event->key, event->user_id);
}

void
session_run_add(SessionRun *run, const SessionEvent *event)
{
	if (run->events > 0 && order_key_compare(&event->key, &run->last) > 0)
		append(run, event);
	else
		insert(run, event);
	run->events++;
	if (event->page.data != NULL)
		run->page_views++;
	count_type(run, event->type, 1);
}

/* Merges "other" into "run", which keeps its row. */
void
session_run_merge(SessionRun *run, const SessionRun *other)
{
	take_earlier(&run->first, &run->entry_type, &other->first, other->entry_type);
	take_later(&run->last, &run->exit_type, &other->last, other->exit_type);
	take_earlier(&run->entry_page_key, &run->entry_page, &other->entry_page_key, other->entry_page);
	take_later(&run->exit_page_key, &run->exit_page, &other->exit_page_key, other->exit_page);
	take_earlier_properties(run, &other->properties_key, other->properties);
	take_later(&run->user_key, &run->user_id, &other->user_key, other->user_id);
	run->events += other->events;
	run->page_views += other->page_views;
	for (int i = 0; i < other->ntypes; i++)
		count_type(run, other->types[i].type, other->types[i].count);
}

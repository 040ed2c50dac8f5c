/*
 * batch_set.c
 *		A set of batch ids as sorted, disjoint, inclusive runs.
 */
#include "postgres.h"

#include "log/batch_set.h"

static int
compare_runs(const void *a, const void *b)
{
	const BatchRun *left = (const BatchRun *) a;
	const BatchRun *right = (const BatchRun *) b;

	if (left->first != right->first)
		return left->first < right->first ? -1 : 1;
	return 0;
}

BatchSet *
batch_set_make(void)
{
	BatchSet *set = (BatchSet *) palloc(sizeof(BatchSet));

	set->nruns = 0;
	set->max_runs = 16;
	set->runs = (BatchRun *) palloc(set->max_runs * sizeof(BatchRun));
	return set;
}

/* Adds a run behind the others, whatever its order; batch_set_normalize() must follow. */
void
batch_set_add(BatchSet *set, int64 first, int64 last)
{
	if (set->nruns == set->max_runs)
	{
		set->max_runs *= 2;
		set->runs = (BatchRun *) repalloc_huge(set->runs, set->max_runs * sizeof(BatchRun));
	}
	set->runs[set->nruns].first = first;
	set->runs[set->nruns].last = last;
	set->nruns++;
}

void
batch_set_append(BatchSet *set, int64 first, int64 last)
{
	BatchRun *tail = set->nruns > 0 ? &set->runs[set->nruns - 1] : NULL;

	if (first > last)
		return;
	if (tail == NULL || (tail->last != PG_INT64_MAX && first > tail->last + 1))
	{
		batch_set_add(set, first, last);
		return;
	}
	Assert(first >= tail->first);
	tail->last = Max(tail->last, last);
}

void
batch_set_normalize(BatchSet *set)
{
	int kept = 0;

	qsort(set->runs, set->nruns, sizeof(BatchRun), compare_runs);
	for (int i = 0; i < set->nruns; i++)
	{
		BatchRun run = set->runs[i];

		if (run.first > run.last)
			continue;
		/* Written without last + 1, which overflows for an open run. */
		if (kept > 0 && run.first - 1 <= set->runs[kept - 1].last)
			set->runs[kept - 1].last = Max(set->runs[kept - 1].last, run.last);
		else
			set->runs[kept++] = run;
	}
	set->nruns = kept;
}

bool
batch_set_contains(const BatchSet *set, int64 batch_id)
{
	int low = 0;
	int high = set->nruns;

	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (set->runs[middle].last < batch_id)
			low = middle + 1;
		else
			high = middle;
	}
	return low < set->nruns && set->runs[low].first <= batch_id;
}

/*
 * batch_set.h
 *		A set of batch ids as sorted, disjoint, inclusive runs.
 *
 * A tick is a few runs with holes where senders rolled back or are still in
 * flight.  Membership is a binary search.
 */
#ifndef BEHAVIOR_BATCH_SET_H
#define BEHAVIOR_BATCH_SET_H

typedef struct BatchRun
{
	int64 first;
	int64 last; /* inclusive */
} BatchRun;

typedef struct BatchSet
{
	int nruns;
	int max_runs;
	BatchRun *runs; /* ascending, disjoint, not adjacent */
} BatchSet;

extern BatchSet *batch_set_make(void); /* empty, in the current context */
/* Adds first..last, which must lie above everything added before or extend the last run. */
extern void batch_set_append(BatchSet *set, int64 first, int64 last);
/* Sorts and joins runs that were appended out of order by batch_set_add(). */
extern void batch_set_add(BatchSet *set, int64 first, int64 last);
extern void batch_set_normalize(BatchSet *set);
extern bool batch_set_contains(const BatchSet *set, int64 batch_id);

#endif

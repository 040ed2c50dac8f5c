/*
 * chores.h
 *		What the storage needs done now and then: partitions, keys, batches.
 */
#ifndef BEHAVIOR_CHORES_H
#define BEHAVIOR_CHORES_H

typedef enum ChoreKind
{
	CHORE_PARTITIONS,
	CHORE_DEFAULT_PARTITION,
	CHORE_BATCHES,
	CHORE_KEYS,
	CHORE_COUNT
} ChoreKind;

typedef enum ChoreResult
{
	CHORE_DONE,
	CHORE_MORE,
	CHORE_BUSY /* somebody else is at it, or its locks could not be had at once */
} ChoreResult;

/* What pg_stat_activity says of it. */
extern const char *chore_activity(ChoreKind chore);

/* One step of a chore, of about a second, in the caller's transaction. */
extern ChoreResult chore_step(ChoreKind chore);

#endif

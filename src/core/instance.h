/*
 * instance.h
 *		What exists once per database: the seed of every hash.
 *
 * The row of behavior._instance is made at first use, by the first sender, in
 * the sender's transaction: until that one ends other first senders wait for
 * it.  Read with the latest snapshot, so that it is found in every isolation
 * level; cached per backend until the relation changes.
 */
#ifndef BEHAVIOR_INSTANCE_H
#define BEHAVIOR_INSTANCE_H

/* The 16-byte seed of this database, made now when there is none yet. */
extern const uint8 *instance_seed(void);

/*
 * True when keys are expected to come in, or are there, without the rows that tell how to read
 * them: a partition of keys has no index yet (the last thing a restore makes) or is not empty.
 * Partitions that are empty and have their index are what a schema-only restore leaves.
 */
extern bool instance_awaits_restore(void);

#endif

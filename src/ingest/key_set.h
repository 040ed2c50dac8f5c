/*
 * key_set.h
 *		The live generations, opened for looking keys up.
 *
 * Internal to event_key*.c.  Opening takes the switch shared, so that the list and the tables
 * stay what they are until the set is closed; nobody may wait for a transaction with a set open.
 */
#ifndef BEHAVIOR_KEY_SET_H
#define BEHAVIOR_KEY_SET_H

#include "access/genam.h"
#include "access/relscan.h"
#include "executor/tuptable.h"
#include "storage/buf.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "ingest/key_generation.h"
#include "ingest/key_page.h"
#include "ingest/key_run.h"

/* One generation. */
typedef struct KeySetMember
{
	KeyGeneration generation;
	KeyGenerationTables *tables;
	Relation heap; /* keys, or pages when packed: then NULL until they are needed */
	Relation index;
	IndexScanDesc scan; /* NULL until it is needed */
	TupleTableSlot *slot;
	Relation run_heap; /* not packed */
	KeyRuns *runs;	   /* not packed */
	Relation filter;   /* packed only, as all below */
	int64 segment;	   /* that "bits" are of; -1: none */
	Buffer segment_buffer;
	const uint8 *bits;	/* NULL: this segment is not where it should be */
	int64 segment_told; /* whose buffer the processor was told about last */
	bool page_loaded;	/* "page" points into the slot */
	KeyPage page;
} KeySetMember;

typedef struct KeySet
{
	Oid lock_relid;
	Oid switch_relid;
	bool locked; /* the switch is ours, shared */
	bool for_insert;
	MemoryContext context;
	SnapshotData dirty;
	int count;
	KeySetMember *members; /* the newest first: retries tend to come soon */
	KeySetMember *hot;
} KeySet;

/*
 * For inserting, makes the first generation when there is none, and sees keys of
 * open transactions.  Otherwise sees what is committed and the own transaction's.
 */
extern KeySet *key_set_open(bool for_insert);
extern void key_set_close(KeySet *set);

/* The bucket of a key: keys of one bucket stand together in the order of keys. */
static inline int
key_bucket(const uint8 *key)
{
	return key[0] / (256 / KEY_BUCKETS);
}

/*
 * Gets ready to look up n keys of a bucket in one generation, with the bucket's lock held if
 * others may write to it.  Returns how many rows of runs there are.  To be called again for
 * another bucket, and after another generation.
 */
extern int key_set_prepare(KeySetMember *member, int bucket, int n);

/*
 * Looks up those of n ascending keys that are new as far as is known, in one packed generation, and
 * sets the verdict of each that it has.
 */
extern void key_set_probe_packed(KeySet *set, KeySetMember *member, EventKey *keys, int n);

/* Looks one key up in one generation, prepared for its bucket unless it is packed. */
extern bool key_set_probe(KeySet *set, KeySetMember *member, const uint8 *key, KeyFound *found);

#endif

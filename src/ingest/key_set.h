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

/* One generation. */
typedef struct KeySetMember
{
	KeyGeneration generation;
	Relation heap; /* keys, or pages when packed */
	Relation index;
	IndexScanDesc scan; /* NULL until it is needed */
	TupleTableSlot *slot;
	Relation filter;		   /* packed only, as all below */
	BlockNumber filter_blocks; /* heap blocks it has */
	int64 segment;			   /* that "bits" are of; -1: none */
	Buffer segment_buffer;
	const uint8 *bits; /* NULL: this segment is not where it should be */
	bool page_loaded;  /* "page" points into the slot */
	KeyPage page;
} KeySetMember;

typedef struct KeySet
{
	Oid lock_relid;
	bool locked; /* the switch is ours, shared */
	bool for_insert;
	MemoryContext context;
	SnapshotData dirty;
	int count;
	KeySetMember *members; /* the newest first: retries tend to come soon */
	KeySetMember *hot;
} KeySet;

typedef struct KeyFound
{
	int64 fingerprint;
	int64 batch_id;
	TransactionId in_progress; /* the open transaction that has the key, or invalid */
} KeyFound;

/*
 * For inserting, makes the first generation when there is none, and sees keys of
 * open transactions.  Otherwise sees what is committed and the own transaction's.
 */
extern KeySet *key_set_open(bool for_insert);
extern void key_set_close(KeySet *set);

/* Looks one key up in one generation. */
extern bool key_set_probe(KeySet *set, KeySetMember *member, const uint8 *key, KeyFound *found);

#endif

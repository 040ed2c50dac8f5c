/*
 * key_run.h
 *		Runs: the keys of a large flush, packed before they are written.
 *
 * Internal to event_key*.c.  A row of behavior._key_run holds the new keys that one flush had in
 * one bucket, in the form of key_page.h, so that some two hundred keys share a tuple, an index
 * entry and their WAL records.  A row belongs to one (sub)transaction as a whole.
 *
 * Its column "part" is the leading eight bytes of the first key, so that the rows of a bucket
 * stand together in the index, and eight random ones, so that no two rows that ever were have the
 * same: (part, tid) is a row's identity, whatever VACUUM frees and others fill again.
 */
#ifndef BEHAVIOR_KEY_RUN_H
#define BEHAVIOR_KEY_RUN_H

#include "access/genam.h"
#include "access/relscan.h"
#include "catalog/indexing.h"
#include "executor/tuptable.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "ingest/event_key.h"
#include "ingest/key_page.h"

/* Columns of behavior._key_run. */
#define ATT_RUN_PART	   1
#define ATT_RUN_KEYS	   2
#define ATT_RUN_GENERATION 3
#define RUN_COLUMNS		   3

/* Keys a heap page of runs has, about: a row mostly has a page to itself. */
#define RUN_KEYS_PER_BLOCK 256

typedef struct KeyFound
{
	int64 fingerprint;
	int64 batch_id;
	TransactionId in_progress; /* the open transaction that has the key, or invalid */
} KeyFound;

typedef struct RunCache RunCache;
typedef struct RunWriter RunWriter;

/* A generation's runs, opened. */
typedef struct KeyRuns
{
	int generation;
	Relation heap;
	bool any;			/* false: had no row when last asked */
	BlockNumber blocks; /* of the table, at least */
	Relation index;		/* NULL until it is needed, as all below */
	IndexScanDesc scan;
	TupleTableSlot *slot;
	RunCache *cache;
	RunWriter *writer;
	Snapshot snapshot;	   /* dirty, or SnapshotSelf */
	SnapshotData *dirty;   /* the same when it is dirty; else NULL */
	MemoryContext context; /* of what is opened */
	int loaded_bucket;	   /* whose row "page" shows, -1: none */
	int loaded_row;
	bool loaded_visible;
	TransactionId loaded_in_progress;
	KeyPage page;
} KeyRuns;

/* The table is the caller's to open and close; key_runs_close() closes the rest. */
extern KeyRuns *key_runs_open(Relation heap, int generation, SnapshotData *dirty);
extern void key_runs_close(KeyRuns *runs);

/*
 * Gets ready to look up n keys of a bucket, whose lock is held, or any lock that keeps its runs as
 * they are.  Returns how many rows the bucket has; 0: there is nothing to look up.
 */
extern int key_runs_prepare(KeyRuns *runs, int bucket, int n);

/* Looks a key up in its bucket. */
extern bool key_runs_find(KeyRuns *runs, int bucket, const uint8 *key, KeyFound *found);

/* Writes new keys of one bucket, ascending. */
extern void key_runs_insert(KeyRuns *runs, EventKey **keys, int n, int64 batch_id);

/* Frees what the backend keeps of tables other than these. */
extern void key_runs_forget_others(const Oid *relids, int count);

#endif

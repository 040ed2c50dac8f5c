/*
 * event_key.h
 *		Idempotency: claims (source, event_id) for a batch, at most once.
 *
 * A key is SipHash-2-4-128 of the length-prefixed source and event_id, seeded with the
 * database's seed.  With it stand a fingerprint of the payload, which tells a conflict from a
 * duplicate, and the batch that has it.
 *
 * Claiming.  Take the switch lock shared, read the list of generations as it is committed now
 * and open their tables.  Look all keys up in the packed generations, which never change.  The
 * keys are in 64 buckets by their leading bits.  For each bucket, ascending: lock it, exclusive,
 * and probe the other generations with a dirty snapshot; when a probe meets a key of an open
 * transaction, let go of the bucket, the tables and the switch, wait for that transaction, and
 * start the bucket again; else insert the new keys into the hot generation and let go of the
 * bucket.  So no lock is held while waiting for a transaction, and two senders of the same keys
 * wait for each other instead of failing.  All these are heavyweight locks (core/lock.h): the
 * deadlock detector sees them and an error releases them.
 *
 * Inserting.  Many new keys of a bucket go into one row, a run, sorted and packed; few go into a
 * row and an index entry each.  A key of a large flush costs 0.35 us of processor and 25 bytes of
 * WAL so, where one by one it costs 2 us and 137 bytes (PostgreSQL 15, flushes of 16,384).
 *
 * Generations.  One is hot and takes inserts; a sealed one takes no more; a packed one is rows
 * of sorted keys with a Bloom filter in front.  The list, its locks and its tables are in
 * key_generation.h, looking a key up in key_set.h, runs in key_run.h, the packed form in
 * key_page.h, merging in event_key_pack.c, and when what is done in event_key_maintain.c.
 */
#ifndef BEHAVIOR_EVENT_KEY_H
#define BEHAVIOR_EVENT_KEY_H

#include "datatype/timestamp.h"

typedef enum KeyVerdict
{
	KEY_NEW,	   /* claimed now */
	KEY_DUPLICATE, /* known, same fingerprint */
	KEY_CONFLICT   /* known, another fingerprint */
} KeyVerdict;

typedef struct EventKey
{
	uint8 key[16];
	int64 fingerprint;
	int32 ordinal;		/* position in the flush: of equal keys the lowest wins */
	KeyVerdict verdict; /* out */
	int64 batch_id;		/* out: of the batch that has the key */
} EventKey;

/* The key is known: with this fingerprint, of this batch. */
static inline void
event_key_set_known(EventKey *key, int64 fingerprint, int64 batch_id)
{
	key->verdict = fingerprint == key->fingerprint ? KEY_DUPLICATE : KEY_CONFLICT;
	key->batch_id = batch_id;
}

/* The key of an event, into key[16]. */
extern void event_key_hash(const char *source, int source_length, const char *event_id,
						   int event_id_length, uint8 *key);

/*
 * Claims n keys for batch_id; fills verdict and batch_id of each.  Reorders the array.  "bulk": the
 * statement has sent many before these.
 */
extern void event_key_claim(EventKey *keys, int n, int64 batch_id, bool bulk);

/* Looks a key up as the latest snapshot sees it, own transaction included; false when it is not
 * there. */
extern bool event_key_find(const uint8 *key, int64 *batch_id);

/*
 * One step of maintenance: seals the hot generation when it is large enough,
 * packs sealed ones and merges levels, drops generations that have left
 * behavior.idempotency_window, drops tables that are no longer needed.  Returns
 * true when it did something: commit and call it again, for there may be more.
 *
 * A step holds the switch, or the new tables, until the transaction ends, so the
 * transaction must be its own and short: call it first thing in one and commit right
 * after.  Inside a transaction block or a subtransaction, in a transaction that has made a step
 * already, in one that may not write, and while somebody else maintains, it does nothing and
 * returns false.
 */
extern bool event_key_maintain(void);

#endif

/*
 * event_key.h
 *		Idempotency: claims (source, event_id) for a batch, at most once.
 *
 * A key is SipHash-2-4-128 of the length-prefixed source and event_id, seeded
 * with the database's seed.  With it stand a fingerprint of the payload, which
 * tells a conflict from a duplicate, and the batch that has it.
 *
 * Claiming.  Keys are sorted into 64 buckets by their leading bits.  For each
 * bucket, ascending: take the switch lock shared, lock the bucket (core/lock.h,
 * Exclusive), read the list of generations with the latest snapshot, probe all of them
 * with a dirty snapshot; when a probe meets a key of an open transaction, let go of the bucket
 * and the switch, wait for that transaction, and start the bucket again; else
 * insert the new keys into the hot generation and let go of both.  So
 * no lock is held while waiting for a transaction, and two senders of the same
 * keys wait for each other instead of failing.  All these are heavyweight locks:
 * the deadlock detector sees them and an error releases them.
 *
 * Generations.  Pages 0..63 of _key as lock tags are buckets, page 64 is the
 * switch: shared while a flush inserts into the hot generation, exclusive for the
 * moment in which a new hot one replaces it.  Sealing, packing and
 * merging are in event_key_pack.c.
 */
#ifndef BEHAVIOR_EVENT_KEY_H
#define BEHAVIOR_EVENT_KEY_H

#include "datatype/timestamp.h"

typedef enum KeyVerdict
{
	KEY_NEW,					/* claimed now */
	KEY_DUPLICATE,				/* known, same fingerprint */
	KEY_CONFLICT				/* known, another fingerprint */
} KeyVerdict;

typedef struct EventKey
{
	uint8		key[16];
	int64		fingerprint;
	int32		ordinal;		/* position in the flush: of equal keys the lowest wins */
	KeyVerdict	verdict;		/* out */
	int64		batch_id;		/* out: of the batch that has the key */
} EventKey;

/* The key of an event, into key[16]. */
extern void event_key_hash(const char *source, int source_length,
						   const char *event_id, int event_id_length, uint8 *key);

/* Claims n keys for batch_id; fills verdict and batch_id of each.  Reorders the array. */
extern void event_key_claim(EventKey *keys, int n, int64 batch_id);

/* Looks a key up as the latest snapshot sees it, own transaction included; false when it is not there. */
extern bool event_key_find(const uint8 *key, int64 *batch_id);

/*
 * One step of maintenance, in transactions of its own making by the caller: seals the
 * hot generation when it is large enough, packs one sealed generation, merges
 * levels, drops generations that have left behavior.idempotency_window.  Returns true when there is more to do.
 */
extern bool event_key_maintain(void);

#endif

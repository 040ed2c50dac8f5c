/*
 * event_key_maintain.c
 *		Decides which generation of keys is sealed, packed, merged or dropped.
 *
 * A step is one transaction, in this order: drop tables that nothing looks at any more; forget
 * generations that have left the window; seal the hot generation when it is large; pack sealed
 * ones.  Each changes the list last, with the switch held exclusively from just before that
 * until after commit, so senders stand still for that moment only.
 *
 * Levels.  A sealed generation is merged at once with the packed one of level 1, and when the
 * result has grown to max(4 g, sqrt(g n)) keys, with that of level 2, where g is
 * behavior.key_generation_size and n the keys of level 2.  So a sender looks at one hot
 * generation, those sealed that wait for a transaction to end, and two filters.  Of n keys each
 * is written about sqrt(n/g)/2 times into level 1 and 2/3 sqrt(n/g) times into level 2, at 26
 * bytes of WAL: 8 times at 50 million keys (200 bytes), 3 times at 8 million (78 bytes
 * measured, and 0.9 us of processor).
 *
 * What is sealed cannot be packed while a transaction that wrote to it is open, and every
 * sealed generation costs a sender a probe.  So with s of them waiting the next is sealed at
 * g 2^s keys: a COPY of any size in one transaction leaves a handful behind.
 *
 * g is a million.  A hot index is written all over between two checkpoints: at 579 keys a second
 * and 5 minutes that is 240 bytes of full-page images a key for a million, 980 for four million,
 * which is more than the merging saves; and claims are cheaper while the hot index is small.
 *
 * With a finite behavior.idempotency_window a merge may not span more than a quarter of it:
 * generations that stay within a quarter are forgotten whole, at most a quarter late.  There may
 * then be several generations of level 2.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/guc.h"
#include "core/lock.h"
#include "core/spi.h"
#include "ingest/event_key.h"
#include "ingest/event_key_pack.h"
#include "ingest/key_generation.h"

/* Keys that a heap page of behavior._key holds: tuple header, 36 bytes of data, line pointer. */
#define KEYS_PER_BLOCK                                                                             \
	((BLCKSZ - SizeOfPageHeaderData) /                                                             \
	 (MAXALIGN(MAXALIGN(SizeofHeapTupleHeader) + 36) + sizeof(ItemIdData)))

#define LEVEL_1_FACTOR 4 /* level 1 has at least room for this many hot generations */
#define WINDOW_SHARE   4 /* a merge spans at most this part of the window */

PG_FUNCTION_INFO_V1(behavior__key_maintain);

/* The transaction that made a step last, in this backend. */
static LocalTransactionId stepped_in = InvalidLocalTransactionId;

/* Takes the switch for the rest of the transaction: from here on hurry. */
static void
take_switch(void)
{
	behavior_lock(behavior_relid(REL_KEY), KEY_LOCK_SWITCH, ExclusiveLock);
}

/* Most keys that an unpacked generation can have, by its size. */
static int64
keys_at_most(int generation)
{
	Relation rel = table_open(key_table_oid(KEY_TABLE_KEY, generation), AccessShareLock);
	int64 keys = (int64) RelationGetNumberOfBlocks(rel) * KEYS_PER_BLOCK;

	table_close(rel, AccessShareLock);
	return keys;
}

/*
 * Whether every generation's table has its index.  A dump makes indexes after all
 * data, so without them the list may be there before the keys.
 */
static bool
tables_complete(const KeyGeneration *list, int count)
{
	for (int i = 0; i < count; i++)
	{
		KeyTable table = list[i].state == KEY_STATE_PACKED ? KEY_TABLE_PAGE : KEY_TABLE_KEY;
		Relation rel;
		bool indexed;

		if (list[i].state == KEY_STATE_DROPPED)
			continue;
		rel = table_open(key_table_oid(table, list[i].generation), AccessShareLock);
		indexed = OidIsValid(key_table_index_oid(rel));
		table_close(rel, AccessShareLock);
		if (!indexed)
			return false;
	}
	return true;
}

static int
next_generation(const KeyGeneration *list, int count)
{
	return list[count - 1].generation + 1;
}

static bool
drop_tables(KeyGeneration *list, int count)
{
	bool stepped = false;

	for (int i = 0; i < count; i++)
	{
		if (list[i].state == KEY_STATE_DROPPED && key_table_drop_all(list[i].generation))
		{
			key_generation_delete(&list[i]);
			stepped = true;
		}
	}
	return stepped;
}

/* The newest received_at in the database, by its newest batches; false when there are none. */
static bool
newest_received_at(TimestampTz *result)
{
	SecureContext secure;
	bool isnull = true;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	secure_begin(&secure, behavior_owner());
	/* Ids ascend with time but for senders that overlap. */
	(void) spi_exec("SELECT max(b.received_at) FROM (SELECT received_at FROM behavior._batch"
					" ORDER BY batch_id DESC LIMIT 100) b",
					SPI_OK_SELECT, true, 0, NULL, NULL, NULL);
	if (SPI_processed == 1)
		*result = DatumGetTimestampTz(
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	secure_end(&secure);
	SPI_finish();
	return !isnull;
}

static bool
forget_expired(KeyGeneration *list, int count)
{
	TimestampTz newest = 0;
	bool stepped = false;

	if (behavior_idempotency_window < 0 || count < 2 || !newest_received_at(&newest))
		return false;
	for (int i = 0; i < count; i++)
	{
		if ((list[i].state != KEY_STATE_SEALED && list[i].state != KEY_STATE_PACKED) ||
			list[i].newest_received_at >= newest - behavior_idempotency_window * USECS_PER_SEC)
			continue;
		if (!stepped)
			take_switch();
		list[i].state = KEY_STATE_DROPPED;
		key_generation_update(&list[i]);
		stepped = true;
	}
	return stepped;
}

static bool
seal_hot(KeyGeneration *list, int count)
{
	KeyGeneration *hot = NULL;
	KeyGeneration next = {0};
	int64 enough = behavior_key_generation_size;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz newest;

	for (int i = 0; i < count; i++)
	{
		if (list[i].state == KEY_STATE_HOT)
			hot = &list[i];
		else if (list[i].state == KEY_STATE_SEALED)
			enough *= 2;
	}
	if (hot == NULL || keys_at_most(hot->generation) < enough)
		return false;

	next.generation = next_generation(list, count);
	next.state = KEY_STATE_HOT;
	next.newest_received_at = DT_NOEND;
	key_table_make(KEY_TABLE_KEY, next.generation);
	key_table_make_index(KEY_TABLE_KEY, next.generation);

	/* A clock that was set back must not make keys look older than they are. */
	if (newest_received_at(&newest))
		now = Max(now, newest);

	take_switch();
	hot->state = KEY_STATE_SEALED;
	hot->newest_received_at = Max(now, hot->oldest_received_at);
	next.oldest_received_at = hot->newest_received_at;
	key_generation_update(hot);
	key_generation_insert(&next);
	return true;
}

/* Whether keys received from "oldest" to "newest" may stand in one generation. */
static bool
span_allowed(TimestampTz oldest, TimestampTz newest)
{
	return behavior_idempotency_window < 0 ||
		   newest - oldest <= behavior_idempotency_window * USECS_PER_SEC / WINDOW_SHARE;
}

static void
add_input(KeyGeneration *inputs, int *count, KeyGeneration *result, const KeyGeneration *input)
{
	if (*count == 0 || input->oldest_received_at < result->oldest_received_at)
		result->oldest_received_at = input->oldest_received_at;
	if (*count == 0 || input->newest_received_at > result->newest_received_at)
		result->newest_received_at = input->newest_received_at;
	inputs[(*count)++] = *input;
}

/* Merges sealed generations that no open transaction has keys in, with level 1 and when due
 * level 2. */
static bool
pack_sealed(KeyGeneration *list, int count)
{
	KeyGeneration *inputs = palloc(count * sizeof(KeyGeneration));
	int input_count = 0;
	KeyGeneration *level_1 = NULL;
	KeyGeneration *level_2 = NULL;
	KeyGeneration result = {0};
	int64 keys = 0;
	double limit;

	for (int i = 0; i < count; i++)
	{
		if (list[i].state == KEY_STATE_PACKED && list[i].level == 1)
			level_1 = &list[i];
		else if (list[i].state == KEY_STATE_PACKED)
			level_2 = &list[i];
		/* Writers keep RowExclusiveLock until their transaction ends; this one we keep until we
		 * commit. */
		else if (list[i].state == KEY_STATE_SEALED &&
				 (input_count == 0 ||
				  span_allowed(result.oldest_received_at, list[i].newest_received_at)) &&
				 ConditionalLockRelationOid(key_table_oid(KEY_TABLE_KEY, list[i].generation),
											ShareLock))
		{
			add_input(inputs, &input_count, &result, &list[i]);
			keys += keys_at_most(list[i].generation);
		}
	}
	if (input_count == 0)
		return false;

	result.generation = next_generation(list, count);
	result.state = KEY_STATE_PACKED;
	result.level = 1;
	if (level_1 != NULL && span_allowed(level_1->oldest_received_at, result.newest_received_at))
	{
		add_input(inputs, &input_count, &result, level_1);
		keys += level_1->keys;
		level_1 = NULL;
	}
	limit =
		Max((double) LEVEL_1_FACTOR * behavior_key_generation_size,
			level_2 == NULL ? 0.0 : sqrt((double) behavior_key_generation_size * level_2->keys));
	if (keys >= limit)
	{
		result.level = 2;
		for (int i = 0; i < count; i++)
		{
			if (list[i].state == KEY_STATE_PACKED && list[i].level == 2 &&
				span_allowed(list[i].oldest_received_at, result.newest_received_at))
				add_input(inputs, &input_count, &result, &list[i]);
		}
	}

	key_pack(inputs, input_count, &result);

	take_switch();
	for (int i = 0; i < input_count; i++)
	{
		inputs[i].state = KEY_STATE_DROPPED;
		key_generation_update(&inputs[i]);
	}
	/* Of level 1 there is only one: what could not be merged any more is done growing. */
	if (level_1 != NULL)
	{
		level_1->level = 2;
		key_generation_update(level_1);
	}
	if (result.keys > 0)
		key_generation_insert(&result);
	return true;
}

bool
event_key_maintain(void)
{
	Oid lock_relid;
	KeyGeneration *list;
	int count;
	bool stepped;

	if (IsTransactionBlock() || GetCurrentTransactionNestLevel() > 1 || XactReadOnly ||
		RecoveryInProgress() || stepped_in == MY_LXID)
		return false;
	lock_relid = behavior_relid(REL_KEY);
	if (!behavior_lock_conditional(lock_relid, KEY_LOCK_MAINTENANCE, ExclusiveLock))
		return false;

	list = key_generation_list(NULL, &count);
	stepped = count > 0 && tables_complete(list, count) &&
			  (drop_tables(list, count) || forget_expired(list, count) || seal_hot(list, count) ||
			   pack_sealed(list, count));
	pfree(list);
	if (stepped)
		stepped_in = MY_LXID;
	else
		behavior_unlock(lock_relid, KEY_LOCK_MAINTENANCE, ExclusiveLock);
	return stepped;
}

/* _key_maintain(): one step; for tests and for the curious. */
Datum
behavior__key_maintain(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(event_key_maintain());
}

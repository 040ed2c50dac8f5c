/*
 * event_key_maintain.c
 *		Decides which generation of keys is sealed, packed, merged or dropped.
 *
 * A step is one transaction, in this order: drop tables that nothing looks at any more; forget
 * generations that have left the window; seal the hot generation when it is large; pack sealed
 * ones.  Each changes the list last, with the switch held exclusively from just before that
 * until after commit, so senders stand still for that moment only.
 *
 * Levels.  A sealed generation is packed at once.  With three packed ones of its level (1 while
 * below 4 g keys, 2 below 16 g and so on, g being behavior.key_generation_size) it becomes one of
 * the next level, and when that is full too, of the one after, all in one go.  So of n keys each
 * is written 1 + log4(n/g) times at most, 3 times at 50 million, and a sender looks at three
 * filters a level at most, some five at 50 million: 25 ns each, where writing every key once more
 * is 250 ns.
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
 * then be more than three generations of a level.
 */
#include "postgres.h"

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
#include "ingest/key_run.h"

/* Keys that a heap page of behavior._key holds: tuple header, 36 bytes of data, line pointer. */
#define KEYS_PER_BLOCK                                                                             \
	((BLCKSZ - SizeOfPageHeaderData) /                                                             \
	 (MAXALIGN(MAXALIGN(SizeofHeapTupleHeader) + 36) + sizeof(ItemIdData)))

#define LEVEL_FACTOR 4 /* so many generations of a level are merged into one of the next */
#define WINDOW_SHARE 4 /* a merge spans at most this part of the window */

PG_FUNCTION_INFO_V1(behavior__key_maintain);

/* The transaction that made a step last, in this backend. */
static LocalTransactionId stepped_in = InvalidLocalTransactionId;

/* Takes the switch for the rest of the transaction: from here on hurry. */
static void
take_switch(void)
{
	(void) key_switch_lock(ExclusiveLock);
}

/* How many keys an unpacked generation has, by its size: about, and rather too many. */
static int64
keys_about(int generation)
{
	Relation rel = table_open(key_table_oid(KEY_TABLE_KEY, generation), AccessShareLock);
	Relation runs = table_open(key_table_oid(KEY_TABLE_RUN, generation), AccessShareLock);
	int64 keys = (int64) RelationGetNumberOfBlocks(rel) * KEYS_PER_BLOCK +
				 (int64) RelationGetNumberOfBlocks(runs) * RUN_KEYS_PER_BLOCK;

	table_close(rel, AccessShareLock);
	table_close(runs, AccessShareLock);
	return keys;
}

static bool
has_index(KeyTable table, int generation)
{
	Relation rel = table_open(key_table_oid(table, generation), AccessShareLock);
	bool result = OidIsValid(key_table_index_oid(rel));

	table_close(rel, AccessShareLock);
	return result;
}

/*
 * Whether every generation's tables have their indexes.  A dump makes indexes after all
 * data, so without them the list may be there before the keys.
 */
static bool
tables_complete(const KeyGeneration *list, int count)
{
	for (int i = 0; i < count; i++)
	{
		if (list[i].state == KEY_STATE_DROPPED)
			continue;
		if (list[i].state == KEY_STATE_PACKED ? !has_index(KEY_TABLE_PAGE, list[i].generation)
											  : !has_index(KEY_TABLE_KEY, list[i].generation) ||
													!has_index(KEY_TABLE_RUN, list[i].generation))
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
	if (hot == NULL || keys_about(hot->generation) < enough)
		return false;

	next.generation = next_generation(list, count);
	next.state = KEY_STATE_HOT;
	next.newest_received_at = DT_NOEND;
	key_table_make_hot(next.generation);

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

/* The level of a packed generation by its size. */
static int
level_for(int64 keys)
{
	double limit = (double) behavior_key_generation_size * LEVEL_FACTOR;
	int level = 1;

	for (; keys >= limit; limit *= LEVEL_FACTOR)
		level++;
	return level;
}

/* Whether a packed generation may be merged with what "result" spans. */
static bool
mergeable(const KeyGeneration *packed, const KeyGeneration *result)
{
	return packed->state == KEY_STATE_PACKED &&
		   span_allowed(Min(packed->oldest_received_at, result->oldest_received_at),
						Max(packed->newest_received_at, result->newest_received_at));
}

/*
 * Adds the packed generations that are to be merged with the sealed ones in "inputs", which have
 * about so many keys: all of lower levels, since they cost little beside these, and where the level
 * would be full, all of it.  Returns the least level that the result has.
 */
static int
add_packed(const KeyGeneration *list, int count, KeyGeneration *inputs, int *input_count,
		   KeyGeneration *result, int64 keys)
{
	int level = level_for(keys);
	int added = 0; /* levels up to this one are among the inputs */
	int upto = level - 1;

	for (;;)
	{
		int same = 0;

		for (int i = 0; i < count; i++)
		{
			if (list[i].level > added && list[i].level <= upto && mergeable(&list[i], result))
			{
				add_input(inputs, input_count, result, &list[i]);
				keys += list[i].keys;
			}
		}
		added = Max(added, upto);
		level = Max(added + 1, level_for(keys));
		if (level > added + 1)
		{
			upto = level - 1;
			continue;
		}
		for (int i = 0; i < count; i++)
			same += list[i].level == level && mergeable(&list[i], result);
		if (same < LEVEL_FACTOR - 1)
			return added + 1;
		upto = level;
	}
}

/* Packs sealed generations that no open transaction has keys in. */
static bool
pack_sealed(KeyGeneration *list, int count)
{
	KeyGeneration *inputs = palloc(count * sizeof(KeyGeneration));
	int input_count = 0;
	KeyGeneration result = {0};
	int64 keys = 0;
	int sealed;
	int level;

	for (int i = 0; i < count; i++)
	{
		/* Writers keep RowExclusiveLock until their transaction ends; this one we keep until we
		 * commit. */
		if (list[i].state == KEY_STATE_SEALED &&
			(input_count == 0 ||
			 span_allowed(result.oldest_received_at, list[i].newest_received_at)) &&
			ConditionalLockRelationOid(key_table_oid(KEY_TABLE_KEY, list[i].generation),
									   ShareLock) &&
			/* Senders hold both; a restore of the data alone holds the one that it fills. */
			ConditionalLockRelationOid(key_table_oid(KEY_TABLE_RUN, list[i].generation), ShareLock))
		{
			add_input(inputs, &input_count, &result, &list[i]);
			keys += keys_about(list[i].generation);
		}
	}
	if (input_count == 0)
		return false;

	sealed = input_count;
	result.generation = next_generation(list, count);
	result.state = KEY_STATE_PACKED;
	level = add_packed(list, count, inputs, &input_count, &result, keys);

	key_pack(inputs, input_count, &result);
	/* Of the keys that were sealed some may have been rolled back. */
	result.level =
		input_count > sealed ? Max(level, level_for(result.keys)) : level_for(result.keys);

	take_switch();
	for (int i = 0; i < input_count; i++)
	{
		inputs[i].state = KEY_STATE_DROPPED;
		key_generation_update(&inputs[i]);
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

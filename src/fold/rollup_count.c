/*
 * rollup_count.c
 *		Groups of events of which only the size is asked for.
 *
 * Most of what an executor's hash aggregate spends on count(*) GROUP BY a, b, c are calls: of hash
 * functions, of equality functions for each key, of deforming a group's row to compare it.  Where
 * all partials of a rollup are count(*), with or without FILTER, and keys are equal when their
 * bytes are, the plan returns the keys of each event and true for each partial that counts it, and
 * they are counted here.  Conditions, keys and filters are the plan's, evaluated once an event.
 *
 * Groups stay in the order in which they came, which is that of time more or less: so new cells are
 * neighbours in the state.  When they take as much memory as a hash table may, events of other
 * groups wait in a tuplestore until these are handed over.
 *
 * Keys come from senders, so the hash is multiplied by a secret.
 */
#include "postgres.h"

#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "core/compat.h"
#include "core/instance.h"
#include "fold/rollup.h"

/* A group, and the event that looks for its own. */
typedef struct CountedGroup
{
	uint32 hash;
	Datum *values; /* byval, or a varlena that is not toasted */
	bool *isnull;
	int64 *counts;
} CountedGroup;

typedef struct GroupEntry
{
	CountedGroup *group;
	uint32 hash;
	char status;
} GroupEntry;

typedef struct CountedKey
{
	int16 length;
	bool byval;
	uint64 mask; /* of a byval, the bits that count */
} CountedKey;

struct RollupCounter
{
	TupleDesc desc; /* key_hash, keys, partials */
	int nkeys;
	int npartials;
	CountedKey *keys;
	uint64 secret;

	struct groups_hash *table;
	CountedGroup **groups; /* in the order in which they came */
	int64 ngroups;
	int64 max_groups;
	MemoryContext context; /* of the table */
	MemoryContext memory;  /* of the groups */
	Size used;
	Size limit;
	CountedGroup probe;

	MemoryContext scratch; /* for values that are toasted */
	bool scratch_used;
	Tuplestorestate *waiting; /* events of groups for which there is no room; NULL: none */
	TupleDesc event_desc;
};

static bool same_group(const RollupCounter *counter, const CountedGroup *a, const CountedGroup *b);

#define SH_PREFIX			   groups
#define SH_ELEMENT_TYPE		   GroupEntry
#define SH_KEY_TYPE			   CountedGroup *
#define SH_KEY				   group
#define SH_HASH_KEY(tb, key)   ((key)->hash)
#define SH_GET_HASH(tb, entry) ((entry)->hash)
#define SH_STORE_HASH
#define SH_EQUAL(tb, a, b) same_group((tb)->private_data, a, b)
#define SH_SCOPE		   static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

static inline bool
same_group(const RollupCounter *counter, const CountedGroup *a, const CountedGroup *b)
{
	for (int i = 0; i < counter->nkeys; i++)
	{
		const CountedKey *key = &counter->keys[i];
		const char *left = DatumGetPointer(a->values[i]);
		const char *right = DatumGetPointer(b->values[i]);

		if (a->isnull[i] != b->isnull[i])
			return false;
		if (a->isnull[i])
			continue;
		if (key->byval)
		{
			if (a->values[i] != b->values[i])
				return false;
		}
		else if (key->length > 0)
		{
			if (memcmp(left, right, key->length) != 0)
				return false;
		}
		else if (VARSIZE_ANY_EXHDR(left) != VARSIZE_ANY_EXHDR(right) ||
				 memcmp(VARDATA_ANY(left), VARDATA_ANY(right), VARSIZE_ANY_EXHDR(left)) != 0)
			return false;
	}
	return true;
}

static inline uint64
mix(const RollupCounter *counter, uint64 hash, uint64 value)
{
	hash = (hash ^ value) * counter->secret;
	return hash ^ (hash >> 32);
}

static inline uint64
mix_bytes(const RollupCounter *counter, uint64 hash, const char *data, Size length)
{
	uint64 word;

	hash = mix(counter, hash, length);
	for (; length >= sizeof(word); data += sizeof(word), length -= sizeof(word))
	{
		memcpy(&word, data, sizeof(word));
		hash = mix(counter, hash, word);
	}
	word = 0;
	while (length > 0)
		word = word << 8 | (uint8) data[--length];
	return mix(counter, hash, word);
}

/* Can the rollup's partial query be answered by counting here? */
bool
rollup_can_count(const RollupShape *shape, const RollupKeyHasher *hasher)
{
	if (shape->nkeys == 0)
		return false;
	for (int i = 0; i < shape->npartials; i++)
	{
		if (shape->partials[i].counts == NULL)
			return false;
	}
	return rollup_keys_are_bytes(hasher);
}

static void
clear(RollupCounter *counter)
{
	counter->ngroups = 0;
	counter->used = 0;
	MemoryContextReset(counter->memory);
	groups_reset(counter->table);
}

/* A counter in the current context.  desc: key_hash, then keys, then partials. */
RollupCounter *
rollup_counter(TupleDesc desc, int nkeys)
{
	RollupCounter *counter = palloc0(sizeof(RollupCounter));

	counter->desc = desc;
	counter->nkeys = nkeys;
	counter->npartials = desc->natts - 1 - nkeys;
	counter->keys = palloc0(sizeof(CountedKey) * nkeys);
	for (int i = 0; i < nkeys; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, 1 + i);

		counter->keys[i].length = attribute->attlen;
		counter->keys[i].byval = attribute->attbyval;
		counter->keys[i].mask = attribute->attbyval && attribute->attlen < sizeof(uint64)
									? (UINT64CONST(1) << (attribute->attlen * BITS_PER_BYTE)) - 1
									: PG_UINT64_MAX;
	}
	memcpy(&counter->secret, instance_seed(), sizeof(counter->secret));
	counter->secret |= 1;
	counter->limit = get_hash_memory_limit();
	counter->context = AllocSetContextCreate(CurrentMemoryContext, "behavior rollup counts",
											 ALLOCSET_DEFAULT_SIZES);
	counter->memory =
		GenerationContextCreate(counter->context, "behavior rollup groups", ALLOCSET_DEFAULT_SIZES);
	counter->scratch =
		AllocSetContextCreate(counter->context, "behavior rollup keys", ALLOCSET_SMALL_SIZES);
	counter->table = groups_create(counter->context, 256, counter);
	counter->max_groups = 256;
	counter->groups =
		MemoryContextAlloc(counter->context, sizeof(CountedGroup *) * counter->max_groups);
	counter->probe.values = palloc(sizeof(Datum) * nkeys);
	counter->probe.isnull = palloc(sizeof(bool) * nkeys);
	return counter;
}

/* Sets the probe to the keys of an event. */
static void
probe_for(RollupCounter *counter, const Datum *values, const bool *isnull)
{
	CountedGroup *probe = &counter->probe;
	uint64 hash = 0;

	for (int i = 0; i < counter->nkeys; i++)
	{
		const CountedKey *key = &counter->keys[i];
		struct varlena *value;

		probe->isnull[i] = isnull[i];
		if (isnull[i])
			hash = mix(counter, hash, UINT64CONST(0x9e3779b97f4a7c15));
		else if (key->byval)
		{
			/* What is above a type's length may differ for the same value. */
			probe->values[i] = values[i] & (Datum) key->mask;
			hash = mix(counter, hash, probe->values[i]);
		}
		else if (key->length > 0)
		{
			probe->values[i] = values[i];
			hash = mix_bytes(counter, hash, DatumGetPointer(values[i]), key->length);
		}
		else
		{
			value = (struct varlena *) DatumGetPointer(values[i]);
			if (VARATT_IS_EXTERNAL(value) || VARATT_IS_COMPRESSED(value))
			{
				MemoryContext caller = MemoryContextSwitchTo(counter->scratch);

				value = PG_DETOAST_DATUM_PACKED(values[i]);
				counter->scratch_used = true;
				MemoryContextSwitchTo(caller);
			}
			probe->values[i] = PointerGetDatum(value);
			hash = mix_bytes(counter, hash, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
		}
	}
	probe->hash = (uint32) (hash >> 16);
}

static Size
size_of_value(const CountedKey *key, Datum value)
{
	return key->length > 0 ? key->length : VARSIZE_ANY(DatumGetPointer(value));
}

/* A group with the keys of the probe. */
static CountedGroup *
make_group(RollupCounter *counter)
{
	const CountedGroup *probe = &counter->probe;
	Size size = MAXALIGN(sizeof(CountedGroup)) + MAXALIGN(sizeof(Datum) * counter->nkeys) +
				MAXALIGN(sizeof(int64) * counter->npartials) +
				MAXALIGN(sizeof(bool) * counter->nkeys);
	Size values_size = 0;
	CountedGroup *group;
	char *next;

	for (int i = 0; i < counter->nkeys; i++)
	{
		if (!probe->isnull[i] && !counter->keys[i].byval)
			values_size += MAXALIGN(size_of_value(&counter->keys[i], probe->values[i]));
	}
	next = MemoryContextAllocHuge(counter->memory, size + values_size);
	group = (CountedGroup *) next;
	next += MAXALIGN(sizeof(CountedGroup));
	group->hash = probe->hash;
	group->values = (Datum *) next;
	next += MAXALIGN(sizeof(Datum) * counter->nkeys);
	group->counts = memset(next, 0, sizeof(int64) * counter->npartials);
	next += MAXALIGN(sizeof(int64) * counter->npartials);
	group->isnull = memcpy(next, probe->isnull, sizeof(bool) * counter->nkeys);
	next += MAXALIGN(sizeof(bool) * counter->nkeys);
	for (int i = 0; i < counter->nkeys; i++)
	{
		Size length;

		group->values[i] = probe->values[i];
		if (probe->isnull[i] || counter->keys[i].byval)
			continue;
		length = size_of_value(&counter->keys[i], probe->values[i]);
		group->values[i] = PointerGetDatum(memcpy(next, DatumGetPointer(probe->values[i]), length));
		next += MAXALIGN(length);
	}
	if (counter->ngroups == counter->max_groups)
	{
		counter->max_groups *= 2;
		counter->groups =
			repalloc_huge(counter->groups, sizeof(CountedGroup *) * counter->max_groups);
	}
	counter->groups[counter->ngroups++] = group;
	/* The table is at most twice as large as it has to be, and half of it is empty. */
	counter->used += size + values_size + sizeof(CountedGroup *) + 4 * sizeof(GroupEntry);
	return group;
}

/* The event waits until there is room for its group. */
static void
put_off(RollupCounter *counter, TupleTableSlot *event)
{
	if (counter->waiting == NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(counter->context);

		counter->waiting = tuplestore_begin_heap(false, false, work_mem);
		if (counter->event_desc == NULL)
			counter->event_desc = CreateTupleDescCopy(event->tts_tupleDescriptor);
		MemoryContextSwitchTo(caller);
	}
	tuplestore_puttupleslot(counter->waiting, event);
}

/* Takes a row of rollup_keys_sql(). */
void
rollup_count(RollupCounter *counter, TupleTableSlot *event)
{
	GroupEntry *entry;
	bool found;

	slot_getallattrs(event);
	probe_for(counter, event->tts_values, event->tts_isnull);
	if (counter->used >= counter->limit && counter->ngroups > 0)
	{
		entry = groups_lookup(counter->table, &counter->probe);
		if (entry == NULL)
			put_off(counter, event);
	}
	else
	{
		entry = groups_insert(counter->table, &counter->probe, &found);
		if (!found)
			entry->group = make_group(counter);
	}
	for (int i = 0; entry != NULL && i < counter->npartials; i++)
	{
		if (!event->tts_isnull[counter->nkeys + i] &&
			DatumGetBool(event->tts_values[counter->nkeys + i]))
			entry->group->counts[i]++;
	}
	if (counter->scratch_used)
	{
		MemoryContextReset(counter->scratch);
		counter->scratch_used = false;
	}
}

static void
hand_over(RollupCounter *counter, RollupCounted callback, void *arg)
{
	int natts = counter->nkeys + counter->npartials;
	Datum *values = palloc(sizeof(Datum) * natts);
	bool *isnull = palloc0(sizeof(bool) * natts);

	for (int64 n = 0; n < counter->ngroups; n++)
	{
		const CountedGroup *group = counter->groups[n];

		memcpy(values, group->values, sizeof(Datum) * counter->nkeys);
		memcpy(isnull, group->isnull, sizeof(bool) * counter->nkeys);
		for (int i = 0; i < counter->npartials; i++)
			values[counter->nkeys + i] = Int64GetDatum(group->counts[i]);
		callback(values, isnull, arg);
	}
	pfree(values);
	pfree(isnull);
}

/* Hands over each group once, keys and counts, and frees the counter. */
void
rollup_counted(RollupCounter *counter, RollupCounted callback, void *arg)
{
	hand_over(counter, callback, arg);
	while (counter->waiting != NULL)
	{
		Tuplestorestate *events = counter->waiting;
		TupleTableSlot *slot = MakeSingleTupleTableSlot(counter->event_desc, &TTSOpsMinimalTuple);

		counter->waiting = NULL;
		clear(counter);
		while (tuplestore_gettupleslot(events, true, false, slot))
		{
			CHECK_FOR_INTERRUPTS();
			rollup_count(counter, slot);
		}
		ExecDropSingleTupleTableSlot(slot);
		tuplestore_end(events);
		hand_over(counter, callback, arg);
	}
	MemoryContextDelete(counter->context);
}

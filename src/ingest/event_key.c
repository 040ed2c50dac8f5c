/*
 * event_key.c
 *		Idempotency: claims (source, event_id) for a batch, at most once.
 *
 * The algorithm and its locks are described in event_key.h and key_generation.h.
 *
 * The switch is taken once a flush and kept over its buckets, not once a bucket: the list is
 * then read and the tables are opened once.  Kept, it holds up a change of generations for the
 * time of one flush at most, since whoever meets an open transaction lets go of everything
 * before waiting.  Measured on PostgreSQL 15 with flushes of 4,096 new keys, each with an index
 * entry of its own: 2.0 us of processor a key, and 2.3 with the switch taken for each bucket.
 *
 * SERIALIZABLE: lists and keys are read with SnapshotSelf and dirty snapshots, which take no
 * predicate locks, so no insert of a key can complete a cycle: a key never causes 40001.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "core/compat.h"
#include "core/guc.h"
#include "core/hash.h"
#include "core/instance.h"
#include "core/lock.h"
#include "core/table_row.h"
#include "ingest/event_key.h"
#include "ingest/key_set.h"

/* Rows that one heap_multi_insert gets. */
#define INSERT_CHUNK 128

/*
 * New keys of a bucket become a run unless they are few, for every sender has to know the rows of
 * runs there are, or unless those are too many already: this bounds what a backend keeps of them to
 * 192 rows of some 256 keys in 64 buckets, 16 to 33 MB, while packing is held up.  The last,
 * smaller flush of a large COPY makes a run as well: it is one more row then, and while the hot
 * table of single keys stays empty nobody has to look there.
 */
#define RUN_LAST_SIZE 4
#define RUN_ROWS_MAX  192

/* Columns of behavior._key; fixed widths and no NULLs, so the data stands at fixed offsets. */
#define KEY_COLUMNS		   4
#define OFFSET_KEY		   0
#define OFFSET_FINGERPRINT 16

PG_FUNCTION_INFO_V1(behavior__key_claim);
PG_FUNCTION_INFO_V1(behavior__key_find);

static inline int
compare_keys(const EventKey *a, const EventKey *b)
{
	uint64 left = key_leading(a->key);
	uint64 right = key_leading(b->key);
	int order;

	if (left != right)
		return left < right ? -1 : 1;
	order = memcmp(a->key + 8, b->key + 8, KEY_BYTES - 8);
	if (order != 0)
		return order;
	return (a->ordinal > b->ordinal) - (a->ordinal < b->ordinal);
}

#define ST_SORT			 sort_keys
#define ST_ELEMENT_TYPE	 EventKey
#define ST_COMPARE(a, b) compare_keys(a, b)
#define ST_SCOPE		 static
#define ST_DECLARE
#define ST_DEFINE
#include "lib/sort_template.h"

void
event_key_hash(const char *source, int source_length, const char *event_id, int event_id_length,
			   uint8 *key)
{
	SipState state;
	uint8 length[4];

	sip_init(&state, instance_seed(), true);
	for (int part = 0; part < 2; part++)
	{
		const char *text = part == 0 ? source : event_id;
		uint32 bytes = part == 0 ? source_length : event_id_length;

		for (int i = 0; i < 4; i++)
			length[i] = (uint8) (bytes >> (8 * i));
		sip_update(&state, length, sizeof(length));
		sip_update(&state, text, bytes);
	}
	sip_final128(&state, key);
}

static inline bool
same_key(const EventKey *a, const EventKey *b)
{
	return memcmp(a->key, b->key, KEY_BYTES) == 0;
}

static inline void
set_known(EventKey *key, const KeyFound *found)
{
	event_key_set_known(key, found->fingerprint, found->batch_id);
}

/*
 * Looks keys up in the packed generations.  Needs no bucket: while the set is open these
 * generations stay and do not change.
 */
static void
probe_packed(KeySet *set, EventKey *keys, int n)
{
	for (int i = 0; i < n; i++)
		keys[i].verdict = KEY_NEW;
	for (int m = 0; m < set->count; m++)
	{
		if (set->members[m].generation.state == KEY_STATE_PACKED)
			key_set_probe_packed(set, &set->members[m], keys, n);
	}
}

/*
 * Looks up a bucket's keys, of equal ones the first, in the generations that are not packed.  Sets
 * the verdict of those found; the others stay what they were.  Returns the open transaction that
 * has one of them, if any: then the verdicts mean nothing yet.  Adds up the rows of runs there are.
 *
 * Generation by generation, so that the pages of one index stay in the processor's cache.
 */
static TransactionId
probe_bucket(KeySet *set, EventKey *keys, int n, int *run_rows)
{
	KeyFound found;

	*run_rows = 0;
	for (int m = 0; m < set->count; m++)
	{
		if (set->members[m].generation.state == KEY_STATE_PACKED)
			continue;
		*run_rows += key_set_prepare(&set->members[m], key_bucket(keys[0].key), n);
		for (int i = 0; i < n; i++)
		{
			if (keys[i].verdict != KEY_NEW || (i > 0 && same_key(&keys[i], &keys[i - 1])) ||
				!key_set_probe(set, &set->members[m], keys[i].key, &found))
				continue;
			if (TransactionIdIsValid(found.in_progress))
				return found.in_progress;
			set_known(&keys[i], &found);
			/* Equal keys behind this one are compared with what is stored. */
			for (int j = i + 1; j < n && same_key(&keys[j], &keys[i]); j++)
				set_known(&keys[j], &found);
		}
	}
	return InvalidTransactionId;
}

/* What inserting needs; lives in the memory context of the set. */
typedef struct KeyWriter
{
	HeapTuple pattern;			   /* batch and generation filled in */
	CatalogIndexState all_indexes; /* where the table has more than ours; else NULL */
	CommandId cid;
	int slot_count;
	TupleTableSlot *slots[INSERT_CHUNK];
	const EventKey *pending[INSERT_CHUNK];
	int pending_count;
} KeyWriter;

static HeapTuple
form_key(KeySet *set, const uint8 *key, int64 fingerprint, int64 batch_id)
{
	Datum values[KEY_COLUMNS] = {
		PointerGetDatum(key),
		Int64GetDatum(fingerprint),
		Int64GetDatum(batch_id),
		Int32GetDatum(set->hot->generation.generation),
	};
	bool nulls[KEY_COLUMNS] = {false};

	return heap_form_tuple(RelationGetDescr(set->hot->heap), values, nulls);
}

static KeyWriter *
make_writer(KeySet *set, int64 batch_id)
{
	static const uint8 no_key[KEY_BYTES] = {0};
	MemoryContext old = MemoryContextSwitchTo(set->context);
	KeyWriter *writer = palloc0(sizeof(KeyWriter));

	writer->pattern = form_key(set, no_key, 0, batch_id);
	if (!set->hot->tables->only_index)
		writer->all_indexes = CatalogOpenIndexes(set->hot->heap);
	writer->cid = GetCurrentCommandId(true);
	MemoryContextSwitchTo(old);
	return writer;
}

static void
free_writer(KeyWriter *writer)
{
	for (int i = 0; i < writer->slot_count; i++)
		ExecDropSingleTupleTableSlot(writer->slots[i]);
	if (writer->all_indexes != NULL)
		CatalogCloseIndexes(writer->all_indexes);
}

/*
 * The tuple of the i-th slot, made when it is first asked for and then used again: inserting
 * sets its header anew.  The slot owns it, or heap_multi_insert would copy it.
 */
static HeapTuple
slot_tuple(KeySet *set, KeyWriter *writer, int i)
{
	if (i == writer->slot_count)
	{
		MemoryContext old = MemoryContextSwitchTo(set->context);

		writer->slots[i] =
			MakeSingleTupleTableSlot(RelationGetDescr(set->hot->heap), &TTSOpsHeapTuple);
		ExecStoreHeapTuple(heap_copytuple(writer->pattern), writer->slots[i], true);
		writer->slot_count++;
		MemoryContextSwitchTo(old);
	}
	return ExecFetchSlotHeapTuple(writer->slots[i], false, NULL);
}

/* The entry of a key that stands in the hot generation, which has no index but ours. */
static void
enter_key(KeySet *set, const uint8 *key, ItemPointer tid)
{
	Datum value = PointerGetDatum(key);
	bool isnull = false;

	table_index_insert(set->hot->heap, set->hot->index, &value, &isnull, tid);
}

/* Writes the keys that are pending to the hot generation and its index. */
static void
flush_writer(KeySet *set, KeyWriter *writer)
{
	Relation heap = set->hot->heap;
	int n = writer->pending_count;

	for (int i = 0; i < n; i++)
	{
		HeapTuple tuple = slot_tuple(set, writer, i);
		char *data = (char *) tuple->t_data + tuple->t_data->t_hoff;

		memcpy(data + OFFSET_KEY, writer->pending[i]->key, KEY_BYTES);
		memcpy(data + OFFSET_FINGERPRINT, &writer->pending[i]->fingerprint, sizeof(int64));
	}

	/* REINDEX CONCURRENTLY is at work, or somebody made an index: none may miss a key. */
	if (writer->all_indexes != NULL)
	{
		table_rows_insert(heap, writer->slots, n, writer->all_indexes);
		writer->pending_count = 0;
		return;
	}

	/*
	 * No bulk insert state: its ring would push out pages that the next flush wants
	 * to probe.  No free space map: nothing is ever freed here.
	 */
	heap_multi_insert(heap, writer->slots, n, writer->cid, HEAP_INSERT_SKIP_FSM, NULL);
	for (int i = 0; i < n; i++)
		enter_key(set, writer->pending[i]->key, &writer->slots[i]->tts_tid);
	writer->pending_count = 0;
}

/* Writes a key without a writer, which costs more than one key: false where it takes one. */
static bool
insert_single(KeySet *set, const EventKey *key, int64 batch_id)
{
	HeapTuple tuple;

	if (!set->hot->tables->only_index)
		return false;
	tuple = form_key(set, key->key, key->fingerprint, batch_id);
	heap_insert(set->hot->heap, tuple, GetCurrentCommandId(true), HEAP_INSERT_SKIP_FSM, NULL);
	enter_key(set, key->key, &tuple->t_self);
	heap_freetuple(tuple);
	return true;
}

/* Settles keys that are in the bucket twice; lists those to be written. */
static int
list_new(EventKey *keys, int n, int64 batch_id, EventKey **fresh)
{
	int count = 0;

	for (int i = 0; i < n; i++)
	{
		int first = i;

		if (keys[i].verdict != KEY_NEW)
			continue;
		keys[i].batch_id = batch_id;
		fresh[count++] = &keys[i];
		for (; i + 1 < n && same_key(&keys[i + 1], &keys[first]); i++)
		{
			keys[i + 1].verdict =
				keys[i + 1].fingerprint == keys[first].fingerprint ? KEY_DUPLICATE : KEY_CONFLICT;
			keys[i + 1].batch_id = batch_id;
		}
	}
	return count;
}

/* Writes a bucket's new keys: many as a run, few one by one. */
static void
insert_bucket(KeySet *set, KeyWriter **writer, EventKey **fresh, int count, int64 batch_id,
			  int run_rows, int run_size)
{
	if (count >= run_size && run_rows < RUN_ROWS_MAX)
	{
		key_runs_insert(set->hot->runs, fresh, count, batch_id);
		return;
	}
	if (count == 1 && *writer == NULL && insert_single(set, fresh[0], batch_id))
		return;
	if (count > 0 && *writer == NULL)
		*writer = make_writer(set, batch_id);
	for (int i = 0; i < count; i++)
	{
		(*writer)->pending[(*writer)->pending_count++] = fresh[i];
		if ((*writer)->pending_count == INSERT_CHUNK || i + 1 == count)
			flush_writer(set, *writer);
	}
}

void
event_key_claim(EventKey *keys, int n, int64 batch_id, bool bulk)
{
	int run_size = bulk ? Min(behavior_key_run_size, RUN_LAST_SIZE) : behavior_key_run_size;
	KeySet *set = NULL;
	KeyWriter *writer = NULL;
	EventKey **fresh = palloc(n * sizeof(EventKey *));
	int start = 0;

	sort_keys(keys, n);
	while (start < n)
	{
		int bucket = key_bucket(keys[start].key);
		int end = start + 1;
		int run_rows;
		TransactionId in_progress;

		while (end < n && key_bucket(keys[end].key) == bucket)
			end++;

		if (set == NULL)
		{
			set = key_set_open(true);
			probe_packed(set, keys + start, n - start);
		}
		behavior_lock(set->lock_relid, bucket, ExclusiveLock);
		in_progress = probe_bucket(set, keys + start, end - start, &run_rows);
		if (!TransactionIdIsValid(in_progress))
		{
			int count = list_new(keys + start, end - start, batch_id, fresh);

			insert_bucket(set, &writer, fresh, count, batch_id, run_rows, run_size);
			start = end;
		}
		behavior_unlock(set->lock_relid, bucket, ExclusiveLock);

		if (TransactionIdIsValid(in_progress))
		{
			/* Nothing of ours is held while waiting, and the list may change meanwhile. */
			if (writer != NULL)
				free_writer(writer);
			writer = NULL;
			key_set_close(set);
			set = NULL;
			XactLockTableWait(in_progress, NULL, NULL, XLTW_None);
		}
		CHECK_FOR_INTERRUPTS();
	}
	if (writer != NULL)
		free_writer(writer);
	if (set != NULL)
		key_set_close(set);
	pfree(fresh);
}

bool
event_key_find(const uint8 *key, int64 *batch_id)
{
	KeySet *set = key_set_open(false);
	KeyFound found;
	bool result = false;

	for (int m = 0; m < set->count && !result; m++)
	{
		if (set->members[m].generation.state != KEY_STATE_PACKED)
			(void) key_set_prepare(&set->members[m], key_bucket(key), 1);
		result = key_set_probe(set, &set->members[m], key, &found);
	}
	if (result)
		*batch_id = found.batch_id;
	key_set_close(set);
	return result;
}

static int
compare_ordinals(const void *a, const void *b)
{
	int32 left = ((const EventKey *) a)->ordinal;
	int32 right = ((const EventKey *) b)->ordinal;

	return (left > right) - (left < right);
}

/*
 * _key_claim(source text, event_ids text[], fingerprints bigint[], batch_id bigint)
 *		Claims keys as a flush would; for tests.
 */
Datum
behavior__key_claim(PG_FUNCTION_ARGS)
{
	static const char *const verdicts[] = {"new", "duplicate", "conflict"};
	text *source = PG_GETARG_TEXT_PP(0);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum *ids;
	Datum *fingerprints;
	int id_count;
	int fingerprint_count;
	EventKey *keys;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT, &ids, NULL,
					  &id_count);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &fingerprints, NULL, &fingerprint_count);
	if (id_count != fingerprint_count)
		ereport(ERROR, (errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
						errmsg("there are %d event ids but %d fingerprints", id_count,
							   fingerprint_count)));

	InitMaterializedSRF(fcinfo, 0);
	keys = palloc(Max(id_count, 1) * sizeof(EventKey));
	for (int i = 0; i < id_count; i++)
	{
		text *id = DatumGetTextPP(ids[i]);

		event_key_hash(VARDATA_ANY(source), VARSIZE_ANY_EXHDR(source), VARDATA_ANY(id),
					   VARSIZE_ANY_EXHDR(id), keys[i].key);
		keys[i].fingerprint = DatumGetInt64(fingerprints[i]);
		keys[i].ordinal = i + 1;
	}
	event_key_claim(keys, id_count, PG_GETARG_INT64(3), false);
	qsort(keys, id_count, sizeof(EventKey), compare_ordinals);
	for (int i = 0; i < id_count; i++)
	{
		Datum values[3] = {
			Int32GetDatum(keys[i].ordinal),
			CStringGetTextDatum(verdicts[keys[i].verdict]),
			Int64GetDatum(keys[i].batch_id),
		};
		bool row_nulls[3] = {false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, row_nulls);
	}
	return (Datum) 0;
}

/* _key_find(source text, event_id text): the batch that has the key, or NULL; for tests. */
Datum
behavior__key_find(PG_FUNCTION_ARGS)
{
	text *source = PG_GETARG_TEXT_PP(0);
	text *id = PG_GETARG_TEXT_PP(1);
	uint8 key[KEY_BYTES];
	int64 batch_id;

	event_key_hash(VARDATA_ANY(source), VARSIZE_ANY_EXHDR(source), VARDATA_ANY(id),
				   VARSIZE_ANY_EXHDR(id), key);
	if (!event_key_find(key, &batch_id))
		PG_RETURN_NULL();
	PG_RETURN_INT64(batch_id);
}

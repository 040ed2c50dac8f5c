/*
 * event_key_pack.c
 *		Merges generations of keys into one packed one.
 *
 * Packed inputs are read in the order of their keys through their index.  The keys of all sealed
 * inputs together are loaded and sorted in passes: keys are evenly spread, so pass i of n takes
 * the i-th n-th of all possible keys, and n is chosen so that a pass fits maintenance_work_mem.
 * That reads a sealed table n + 1 times (once to count), in order and mostly from cache; no
 * temporary file is written.
 *
 * What is written is born frozen in tables of this very transaction: nothing of it is seen
 * before the list names it, nor has ever to be vacuumed.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "core/compat.h"
#include "ingest/event_key_pack.h"
#include "ingest/key_page.h"
#include "ingest/key_run.h"

/* Columns of behavior._key_page and behavior._key_filter. */
#define ATT_PAGE_FIRST_KEY	   1
#define ATT_PAGE_NUMBER		   2
#define ATT_PAGE_KEYS		   3
#define ATT_PAGE_GENERATION	   4
#define PAGE_COLUMNS		   4
#define ATT_SEGMENT_NUMBER	   1
#define ATT_SEGMENT_BITS	   2
#define ATT_SEGMENT_GENERATION 3
#define SEGMENT_COLUMNS		   3

/* Fewest keys that a pass is made for, however small maintenance_work_mem is. */
#define MIN_KEYS_PER_PASS 65536

static int
compare_packed(const PackedKey *a, const PackedKey *b)
{
	uint64 left = key_leading(a->key);
	uint64 right = key_leading(b->key);

	if (left != right)
		return left < right ? -1 : 1;
	return memcmp(a->key + 8, b->key + 8, KEY_BYTES - 8);
}

#define ST_SORT			 sort_packed
#define ST_ELEMENT_TYPE	 PackedKey
#define ST_COMPARE(a, b) compare_packed(a, b)
#define ST_SCOPE		 static
#define ST_DECLARE
#define ST_DEFINE
#include "lib/sort_template.h"

/* Where ascending keys come from: one packed input, or all sealed ones. */
typedef struct KeySource
{
	PackedKey current; /* valid unless done */
	uint64 leading;	   /* its leading bytes */
	bool done;

	/* Packed. */
	Relation heap; /* NULL: this is the one of the sealed inputs */
	Relation index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	KeyPage page;
	int next_in_page;

	/* Sealed. */
	int table_count;
	Relation *tables; /* of keys and of runs in turn */
	int passes;
	int pass;
	PackedKey *loaded;
	int64 loaded_count;
	int64 loaded_size;
	int64 next_loaded;
} KeySource;

static void
open_packed(KeySource *source, int generation)
{
	ScanKey no_key = NULL;

	memset(source, 0, sizeof(*source));
	source->heap = table_open(key_table_oid(KEY_TABLE_PAGE, generation), AccessShareLock);
	source->index = index_open(key_table_index_oid(source->heap), AccessShareLock);
	source->slot = table_slot_create(source->heap, NULL);
	source->scan = index_beginscan_compat(source->heap, source->index, SnapshotSelf, 0, 0);
	index_rescan(source->scan, no_key, 0, NULL, 0);
}

static void
advance_packed(KeySource *source)
{
	if (source->next_in_page >= source->page.keys)
	{
		bytea *bytes;
		bool isnull;

		CHECK_FOR_INTERRUPTS();
		if (!index_getnext_slot(source->scan, ForwardScanDirection, source->slot))
		{
			source->done = true;
			return;
		}
		bytes = (bytea *) DatumGetPointer(slot_getattr(source->slot, ATT_PAGE_KEYS, &isnull));
		key_page_open(&source->page, (const uint8 *) VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
		source->next_in_page = 0;
	}
	key_page_key(&source->page, source->next_in_page, source->current.key);
	source->current.fingerprint = key_page_fingerprint(&source->page, source->next_in_page);
	source->current.batch_id = key_page_batch_id(&source->page, source->next_in_page);
	source->next_in_page++;
}

/* Keeps a key for the current pass. */
static void
load_key(KeySource *source, const PackedKey *key)
{
	if (key_filter_block(key->key, source->passes) != source->pass)
		return;
	if (source->loaded_count == source->loaded_size)
	{
		source->loaded_size += source->loaded_size / 4;
		source->loaded = repalloc_huge(source->loaded, source->loaded_size * sizeof(PackedKey));
	}
	source->loaded[source->loaded_count++] = *key;
}

/* A row of runs; returns how many keys it has. */
static int
read_run(KeySource *source, TupleTableSlot *slot, bool load)
{
	KeyPage page;
	PackedKey key;
	bytea *bytes;
	bool isnull;

	bytes = (bytea *) DatumGetPointer(slot_getattr(slot, ATT_RUN_KEYS, &isnull));
	key_page_open(&page, (const uint8 *) VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
	for (int i = 0; load && i < page.keys; i++)
	{
		key_page_key(&page, i, key.key);
		key.fingerprint = key_page_fingerprint(&page, i);
		key.batch_id = key_page_batch_id(&page, i);
		load_key(source, &key);
	}
	return page.keys;
}

/* A row of keys. */
static void
read_key(KeySource *source, TupleTableSlot *slot)
{
	PackedKey key;

	slot_getsomeattrs(slot, 3);
	memcpy(key.key, DatumGetPointer(slot->tts_values[0]), KEY_BYTES);
	key.fingerprint = DatumGetInt64(slot->tts_values[1]);
	key.batch_id = DatumGetInt64(slot->tts_values[2]);
	load_key(source, &key);
}

/* Calls for every committed key of the sealed inputs; with "load", keeps those of the current pass.
 */
static int64
scan_sealed(KeySource *source, bool load)
{
	int64 seen = 0;
	int64 rows = 0;

	for (int t = 0; t < source->table_count; t++)
	{
		Relation table = source->tables[t];
		TupleTableSlot *slot = table_slot_create(table, NULL);
		TableScanDesc scan = table_beginscan(table, SnapshotSelf, 0, NULL);

		while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		{
			if ((++rows & 0xFF) == 0)
				CHECK_FOR_INTERRUPTS();
			if (t % 2 == 1)
				seen += read_run(source, slot, load);
			else
			{
				seen++;
				if (load)
					read_key(source, slot);
			}
		}
		table_endscan(scan);
		ExecDropSingleTupleTableSlot(slot);
	}
	return seen;
}

/* Opens all sealed inputs as one source; returns how many keys they have. */
static int64
open_sealed(KeySource *source, const KeyGeneration *inputs, int count)
{
	int64 keys_per_pass =
		Max((int64) maintenance_work_mem * 1024 / sizeof(PackedKey), MIN_KEYS_PER_PASS);
	int64 keys;

	memset(source, 0, sizeof(*source));
	source->tables = palloc(Max(count, 1) * 2 * sizeof(Relation));
	for (int i = 0; i < count; i++)
	{
		if (inputs[i].state != KEY_STATE_SEALED)
			continue;
		source->tables[source->table_count++] =
			table_open(key_table_oid(KEY_TABLE_KEY, inputs[i].generation), AccessShareLock);
		source->tables[source->table_count++] =
			table_open(key_table_oid(KEY_TABLE_RUN, inputs[i].generation), AccessShareLock);
	}
	keys = scan_sealed(source, false);
	source->passes = (int) ((keys + keys_per_pass - 1) / keys_per_pass);
	if (keys > 0)
	{
		/* An even share and a bit: shares of hashed keys differ little. */
		source->loaded_size = keys / source->passes + keys / source->passes / 64 + 1024;
		source->loaded =
			MemoryContextAllocHuge(CurrentMemoryContext, source->loaded_size * sizeof(PackedKey));
	}
	return keys;
}

static void
advance_sealed(KeySource *source)
{
	while (source->next_loaded == source->loaded_count)
	{
		if (source->pass == source->passes)
		{
			source->done = true;
			return;
		}
		source->loaded_count = 0;
		source->next_loaded = 0;
		scan_sealed(source, true);
		source->pass++;
		sort_packed(source->loaded, source->loaded_count);
	}
	source->current = source->loaded[source->next_loaded++];
}

static void
advance(KeySource *source)
{
	if (source->heap != NULL)
		advance_packed(source);
	else
		advance_sealed(source);
	source->leading = key_leading(source->current.key);
}

static void
close_source(KeySource *source)
{
	if (source->heap != NULL)
	{
		index_endscan(source->scan);
		ExecDropSingleTupleTableSlot(source->slot);
		index_close(source->index, AccessShareLock);
		table_close(source->heap, AccessShareLock);
	}
	for (int i = 0; i < source->table_count; i++)
		table_close(source->tables[i], AccessShareLock);
	if (source->loaded != NULL)
		pfree(source->loaded);
}

/* The packed generation being written. */
typedef struct PackWriter
{
	KeyGeneration *result;
	CommandId cid;
	Relation pages;
	Relation filter;
	TupleTableSlot *page_slot;
	TupleTableSlot *filter_slot;
	BulkInsertState page_bulk;
	BulkInsertState filter_bulk;
	int page;	 /* pages written */
	int segment; /* segments written */
	KeyPageBuilder builder;
	union
	{
		struct varlena header;
		char bytes[VARHDRSZ + KEY_PAGE_BYTES];
	} keys;
	union
	{
		struct varlena header;
		char bytes[VARHDRSZ + KEY_FILTER_SEGMENT_BYTES];
	} bits;
} PackWriter;

static void
append_row(Relation rel, TupleTableSlot *slot, BulkInsertState bulk, CommandId cid, Datum *values,
		   bool *nulls)
{
	ExecStoreHeapTuple(heap_form_tuple(RelationGetDescr(rel), values, nulls), slot, true);
	heap_multi_insert(rel, &slot, 1, cid, HEAP_INSERT_SKIP_FSM | HEAP_INSERT_FROZEN, bulk);
	ExecClearTuple(slot);
}

static PackWriter *
begin_writing(KeyGeneration *result, int64 keys)
{
	PackWriter *writer = palloc0(sizeof(PackWriter));

	writer->result = result;
	result->keys = 0;
	result->filter_blocks = key_filter_block_count(keys);
	writer->pages =
		table_open(key_table_make(KEY_TABLE_PAGE, result->generation), RowExclusiveLock);
	writer->filter =
		table_open(key_table_make(KEY_TABLE_FILTER, result->generation), RowExclusiveLock);
	writer->page_slot = MakeSingleTupleTableSlot(RelationGetDescr(writer->pages), &TTSOpsHeapTuple);
	writer->filter_slot =
		MakeSingleTupleTableSlot(RelationGetDescr(writer->filter), &TTSOpsHeapTuple);
	writer->page_bulk = GetBulkInsertState();
	writer->filter_bulk = GetBulkInsertState();
	writer->cid = GetCurrentCommandId(true);
	SET_VARSIZE(writer->bits.bytes, sizeof(writer->bits.bytes));
	return writer;
}

static void
write_page(PackWriter *writer)
{
	Datum values[PAGE_COLUMNS];
	bool nulls[PAGE_COLUMNS] = {false};
	uint8 first_key[KEY_BYTES];
	size_t length;

	memcpy(first_key, writer->builder.entries[0].key, KEY_BYTES);
	length = key_page_finish(&writer->builder, (uint8 *) writer->keys.bytes + VARHDRSZ);
	SET_VARSIZE(writer->keys.bytes, VARHDRSZ + length);
	values[ATT_PAGE_FIRST_KEY - 1] = PointerGetDatum(first_key);
	values[ATT_PAGE_NUMBER - 1] = Int32GetDatum(writer->page++);
	values[ATT_PAGE_KEYS - 1] = PointerGetDatum(writer->keys.bytes);
	values[ATT_PAGE_GENERATION - 1] = Int32GetDatum(writer->result->generation);
	append_row(writer->pages, writer->page_slot, writer->page_bulk, writer->cid, values, nulls);
}

static void
write_segment(PackWriter *writer)
{
	Datum values[SEGMENT_COLUMNS];
	bool nulls[SEGMENT_COLUMNS] = {false};

	values[ATT_SEGMENT_NUMBER - 1] = Int32GetDatum(writer->segment++);
	values[ATT_SEGMENT_BITS - 1] = PointerGetDatum(writer->bits.bytes);
	values[ATT_SEGMENT_GENERATION - 1] = Int32GetDatum(writer->result->generation);
	append_row(writer->filter, writer->filter_slot, writer->filter_bulk, writer->cid, values,
			   nulls);
	memset(writer->bits.bytes + VARHDRSZ, 0, KEY_FILTER_SEGMENT_BYTES);
}

static void
write_key(PackWriter *writer, const PackedKey *entry)
{
	int64 block = key_filter_block(entry->key, writer->result->filter_blocks);

	while (block / KEY_FILTER_SEGMENT_BLOCKS > writer->segment)
		write_segment(writer);
	key_filter_add((uint8 *) writer->bits.bytes + VARHDRSZ +
					   (block % KEY_FILTER_SEGMENT_BLOCKS) * KEY_FILTER_BLOCK_BYTES,
				   entry->key);
	if (!key_page_add(&writer->builder, entry))
	{
		write_page(writer);
		if (!key_page_add(&writer->builder, entry))
			elog(ERROR, "a key does not fit an empty page");
	}
	writer->result->keys++;
}

static void
end_writing(PackWriter *writer)
{
	if (writer->builder.keys > 0)
		write_page(writer);
	while (writer->segment * (int64) KEY_FILTER_SEGMENT_BLOCKS < writer->result->filter_blocks)
		write_segment(writer);
	ExecDropSingleTupleTableSlot(writer->page_slot);
	ExecDropSingleTupleTableSlot(writer->filter_slot);
	FreeBulkInsertState(writer->page_bulk);
	FreeBulkInsertState(writer->filter_bulk);
	table_close(writer->pages, NoLock);
	table_close(writer->filter, NoLock);
	CommandCounterIncrement();
	key_table_make_index(KEY_TABLE_PAGE, writer->result->generation);
	pfree(writer);
}

/* The source with the smallest key, or NULL; of equal keys the first source's. */
static KeySource *
smallest(KeySource *sources, int count)
{
	KeySource *result = NULL;

	for (int i = 0; i < count; i++)
	{
		if (!sources[i].done && (result == NULL || sources[i].leading < result->leading ||
								 (sources[i].leading == result->leading &&
								  compare_packed(&sources[i].current, &result->current) < 0)))
			result = &sources[i];
	}
	return result;
}

void
key_pack(const KeyGeneration *inputs, int count, KeyGeneration *result)
{
	KeySource *sources = palloc0((count + 1) * sizeof(KeySource));
	int source_count = 0;
	int64 keys = 0;
	PackWriter *writer;
	KeySource *source;
	PackedKey last;

	/* Older keys first: should a key be there twice, the one that was first stays. */
	for (int i = 0; i < count; i++)
	{
		if (inputs[i].state == KEY_STATE_PACKED)
		{
			open_packed(&sources[source_count++], inputs[i].generation);
			keys += inputs[i].keys;
		}
	}
	keys += open_sealed(&sources[source_count++], inputs, count);

	result->keys = 0;
	result->filter_blocks = 0;
	if (keys > 0)
	{
		writer = begin_writing(result, keys);
		for (int i = 0; i < source_count; i++)
			advance(&sources[i]);
		while ((source = smallest(sources, source_count)) != NULL)
		{
			if (result->keys == 0 || compare_packed(&source->current, &last) != 0)
			{
				last = source->current;
				write_key(writer, &last);
			}
			advance(source);
		}
		end_writing(writer);
	}
	for (int i = 0; i < source_count; i++)
		close_source(&sources[i]);
	pfree(sources);
}

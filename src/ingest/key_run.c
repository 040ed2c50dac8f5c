/*
 * key_run.c
 *		Runs: the keys of a large flush, packed before they are written.
 *
 * Which rows a bucket has is asked of the index each time, under the bucket's lock: so none that
 * another sender has written is missed, wherever in the heap it went.  Where what is kept of the
 * bucket is enough, a look at the LSNs of its leaf pages answers that (key_leaf.c); that is why a
 * COPY makes single rows after it little dearer.  What is in the rows never
 * changes, so a backend keeps what it has read of a bucket, in one of two forms:
 *
 * Who looks up many keys keeps a table of 32-bit entries: 16 bits of a key's hash and the number of
 * its row.  5 to 11 bytes a key, and a known key is found at once.
 *
 * Who looks up a key or two searches the rows themselves, and from the second time in
 * the same bucket on keeps a Bloom filter of it: 2 to 3 bytes a key, for of those there may be
 * hundreds of connections.  Searching 32 rows costs 25 us of processor.
 *
 * Both are hints.  A key is known only when its row, fetched now with the snapshot, is visible
 * and has it; so rows that are rolled back, gone or replaced need no care.  What must never be is
 * a row that counts as kept and whose keys are not: it is noted after its last key, and
 * if an error comes before, it is read again.
 *
 * What is kept goes when the generation is packed; the writer sees to it that runs
 * do not become too many (event_key.c).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xlog.h"
#include "common/pg_prng.h"
#include "port/pg_bitutils.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "core/compat.h"
#include "core/table_row.h"
#include "ingest/key_generation.h"
#include "ingest/key_leaf.h"
#include "ingest/key_run.h"

/* A row's data up to its keys: part, and no NULLs before them. */
#define RUN_KEYS_OFFSET KEY_BYTES

/* Up to this many keys of a bucket are searched in the rows themselves. */
#define FEW_KEYS 4

#define ROWS_MAX	 (UINT16_MAX - 1) /* of a bucket that can be numbered */
#define KEYS_PER_ROW ((KEY_PAGE_BYTES - KEY_PAGE_HEADER_BYTES) / (KEY_BYTES + 8))
#define ROOM_MIN	 1024

/* A row by its identity. */
typedef struct RunRow
{
	uint8 part[KEY_BYTES];
	ItemPointerData tid;
} RunRow;

/* What is kept of a bucket. */
typedef struct RunBucket
{
	KeyLeaves leaves; /* while these are as they were, "order" is what the index has */
	int row_count;
	int row_size;
	RunRow *rows;  /* numbered as they were read; the last ones may be unfinished */
	int known;	   /* of them in "order" */
	uint16 *order; /* those that the index had last time, in its order */
	bool asked;	   /* once before, for a key or two */
	bool entries;  /* "kept" is a table of entries, else a filter */
	uint32 room;   /* keys it is made for */
	uint32 used;
	uint32 slots;  /* of the table, a power of two */
	uint32 blocks; /* of the filter */
	union
	{
		uint32 *entry; /* 0: free; else 16 bits of hash and the row's number plus one */
		uint8 *filter;
		void *any;
	} kept;
} RunBucket;

struct RunCache
{
	Oid relid;
	MemoryContext context;
	RunCache *next;
	RunBucket buckets[KEY_BUCKETS];
};

struct RunWriter
{
	CatalogIndexState indexes;
	TupleTableSlot *slot;
	KeyPageBuilder builder;
	union
	{
		struct varlena header;
		char bytes[VARHDRSZ + KEY_PAGE_BYTES];
	} keys;
};

static RunCache *caches = NULL;

/* The rows that the index has for a bucket, of the last look. */
static struct
{
	int count;
	int size;
	RunRow *rows;
	BlockNumber first_leaf; /* where the first is, if there is one */
} listed;

KeyRuns *
key_runs_open(Relation heap, int generation, SnapshotData *dirty)
{
	KeyRuns *runs = palloc0(sizeof(KeyRuns));

	runs->generation = generation;
	runs->heap = heap;
	runs->dirty = dirty;
	runs->snapshot = dirty != NULL ? (Snapshot) dirty : SnapshotSelf;
	runs->context = CurrentMemoryContext;
	runs->loaded_bucket = -1;
	runs->blocks = 0;
	return runs;
}

void
key_runs_close(KeyRuns *runs)
{
	if (runs->writer != NULL)
	{
		ExecDropSingleTupleTableSlot(runs->writer->slot);
		CatalogCloseIndexes(runs->writer->indexes);
	}
	if (runs->scan != NULL)
		index_endscan(runs->scan);
	if (runs->slot != NULL)
		ExecDropSingleTupleTableSlot(runs->slot);
	if (runs->index != NULL)
		index_close(runs->index, AccessShareLock);
}

static void
open_index(KeyRuns *runs)
{
	MemoryContext old = MemoryContextSwitchTo(runs->context);
	Oid index = key_table_index_oid(runs->heap);

	if (!OidIsValid(index))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("behavior cannot take events yet: \"%s\" has no index",
							   RelationGetRelationName(runs->heap)),
						errhint("Wait until the restore of this database has ended.")));
	runs->index = index_open(index, AccessShareLock);
	MemoryContextSwitchTo(old);
}

static void
begin_scan(KeyRuns *runs)
{
	MemoryContext old = MemoryContextSwitchTo(runs->context);

	runs->scan = index_beginscan_compat(runs->heap, runs->index, runs->snapshot, 2, 0);
	runs->scan->xs_want_itup = true;
	MemoryContextSwitchTo(old);
}

/* The lowest and the highest "part" that a row of a bucket may have. */
static void
bucket_range(int bucket, uint8 *low, uint8 *high)
{
	memset(low, 0, KEY_BYTES);
	memset(high, 0xff, KEY_BYTES);
	low[0] = (uint8) (bucket * (256 / KEY_BUCKETS));
	high[0] = low[0] + 256 / KEY_BUCKETS - 1;
}

/* Lists the rows that the index has for a bucket: in its order, dead ones and all. */
static void
list_rows(KeyRuns *runs, int bucket)
{
	uint8 low[KEY_BYTES];
	uint8 high[KEY_BYTES];
	ScanKeyData keys[2];
	ItemPointer tid;

	if (runs->scan == NULL)
		begin_scan(runs);
	bucket_range(bucket, low, high);
	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, F_UUID_GE, PointerGetDatum(low));
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber, F_UUID_LE, PointerGetDatum(high));
	index_rescan(runs->scan, keys, 2, NULL, 0);
	listed.count = 0;
	while ((tid = index_getnext_tid(runs->scan, ForwardScanDirection)) != NULL)
	{
		RunRow *row;
		bool isnull;

		if (listed.count == 0)
			listed.first_leaf = ((BTScanOpaque) runs->scan->opaque)->currPos.currPage;
		if (listed.count == listed.size)
		{
			int size = Max(64, listed.size * 2);

			listed.rows = listed.rows == NULL
							  ? MemoryContextAlloc(TopMemoryContext, size * sizeof(RunRow))
							  : repalloc(listed.rows, size * sizeof(RunRow));
			listed.size = size;
		}
		row = &listed.rows[listed.count++];
		memcpy(row->part,
			   DatumGetPointer(
				   index_getattr(runs->scan->xs_itup, 1, runs->scan->xs_itupdesc, &isnull)),
			   KEY_BYTES);
		row->tid = *tid;
	}
}

/* Fetches a row; false when it is not visible. */
static bool
fetch_row(KeyRuns *runs, RunRow *row)
{
	bytea *bytes;
	bool isnull;

	if (runs->slot == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(runs->context);

		runs->slot = table_slot_create(runs->heap, NULL);
		MemoryContextSwitchTo(old);
	}
	if (!table_tuple_fetch_row_version(runs->heap, &row->tid, runs->snapshot, runs->slot))
		return false;
	bytes = (bytea *) DatumGetPointer(slot_getattr(runs->slot, ATT_RUN_KEYS, &isnull));
	key_page_open(&runs->page, (const uint8 *) VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
	runs->loaded_in_progress = InvalidTransactionId;
	if (runs->dirty != NULL)
		runs->loaded_in_progress =
			TransactionIdIsValid(runs->dirty->xmin) ? runs->dirty->xmin : runs->dirty->xmax;
	return true;
}

static bool
search_page(KeyRuns *runs, const uint8 *key, KeyFound *found)
{
	int index = key_page_find(&runs->page, key);

	if (index < 0)
		return false;
	found->fingerprint = key_page_fingerprint(&runs->page, index);
	found->batch_id = key_page_batch_id(&runs->page, index);
	found->in_progress = runs->loaded_in_progress;
	return true;
}

static RunCache *
find_cache(Oid relid, bool make)
{
	RunCache *cache;
	MemoryContext context;

	for (cache = caches; cache != NULL; cache = cache->next)
	{
		if (cache->relid == relid)
			return cache;
	}
	if (!make)
		return NULL;
	context = AllocSetContextCreate(TopMemoryContext, "runs of keys", ALLOCSET_DEFAULT_SIZES);
	cache = MemoryContextAllocZero(context, sizeof(RunCache));
	cache->relid = relid;
	cache->context = context;
	cache->next = caches;
	caches = cache;
	return cache;
}

void
key_runs_forget_others(const Oid *relids, int count)
{
	RunCache **link = &caches;

	while (*link != NULL)
	{
		RunCache *cache = *link;
		bool keep = false;

		for (int i = 0; i < count && !keep; i++)
			keep = relids[i] == cache->relid;
		if (keep)
			link = &cache->next;
		else
		{
			*link = cache->next;
			MemoryContextDelete(cache->context);
		}
	}
}

/* Empties a bucket and makes room for the keys of as many rows as are listed, and some. */
static void
reset_bucket(RunCache *cache, RunBucket *bucket, bool entries)
{
	uint32 room = Max(ROOM_MIN, listed.count * KEYS_PER_ROW / 8 * 9);

	bucket->row_count = 0;
	bucket->known = 0;
	bucket->used = 0;
	bucket->room = 0;
	if (bucket->kept.any != NULL)
		pfree(bucket->kept.any);
	bucket->kept.any = NULL;
	bucket->entries = entries;
	if (entries)
	{
		bucket->slots = pg_nextpower2_32(room / 3 * 4);
		bucket->kept.any = MemoryContextAllocZero(cache->context, bucket->slots * sizeof(uint32));
		room = bucket->slots / 4 * 3;
	}
	else
	{
		bucket->blocks = key_filter_block_count(room);
		bucket->kept.any =
			MemoryContextAllocZero(cache->context, bucket->blocks * KEY_FILTER_BLOCK_BYTES);
	}
	bucket->room = room;
}

static inline uint32
entry_tag(uint64 hash)
{
	return (uint32) (hash >> 48) << 16;
}

/* Where in the filter a key is: by what follows the bits that all keys of the bucket share. */
static inline uint8 *
filter_block(const RunBucket *bucket, const uint8 *key)
{
	uint64 share = (key_leading(key) * KEY_BUCKETS) >> 32;

	return bucket->kept.filter + ((share * bucket->blocks) >> 32) * KEY_FILTER_BLOCK_BYTES;
}

static void
keep_key(RunBucket *bucket, const uint8 *key, int number)
{
	uint64 hash = key_trailing(key);
	uint32 mask = bucket->slots - 1;
	uint32 slot = (uint32) hash & mask;

	bucket->used++;
	if (!bucket->entries)
	{
		key_filter_add(filter_block(bucket, key), key);
		return;
	}
	while (bucket->kept.entry[slot] != 0)
		slot = (slot + 1) & mask;
	bucket->kept.entry[slot] = entry_tag(hash) | (uint32) (number + 1);
}

/* Reads a row's keys into the bucket and notes it; returns its number. */
static int
keep_row(KeyRuns *runs, RunBucket *bucket, RunRow *row)
{
	int number = bucket->row_count;

	if (number == bucket->row_size)
	{
		int size = Max(64, bucket->row_size * 2);

		bucket->rows = bucket->rows == NULL
						   ? MemoryContextAlloc(runs->cache->context, size * sizeof(RunRow))
						   : repalloc(bucket->rows, size * sizeof(RunRow));
		bucket->row_size = size;
	}

	/* One that a dirty snapshot does not see never will be seen: it was rolled back. */
	if (fetch_row(runs, row))
	{
		uint8 key[KEY_BYTES];

		for (int i = 0; i < runs->page.keys; i++)
		{
			key_page_key(&runs->page, i, key);
			keep_key(bucket, key, number);
		}
	}
	bucket->rows[number] = *row;
	bucket->row_count++;
	return number;
}

static inline bool
same_row(const RunRow *a, const RunRow *b)
{
	return memcmp(a->part, b->part, KEY_BYTES) == 0 &&
		   ItemPointerEquals((ItemPointer) &a->tid, (ItemPointer) &b->tid);
}

/* How many of the rows listed are not kept. */
static int
count_new_rows(const RunBucket *bucket)
{
	int fresh = 0;
	int at = 0;

	for (int i = 0; i < listed.count; i++)
	{
		while (at < bucket->known &&
			   memcmp(bucket->rows[bucket->order[at]].part, listed.rows[i].part, KEY_BYTES) < 0)
			at++;
		if (at < bucket->known && same_row(&bucket->rows[bucket->order[at]], &listed.rows[i]))
			at++;
		else
			fresh++;
	}
	return fresh;
}

/* Brings what is kept of a bucket up to what is listed. */
static void
refresh_bucket(KeyRuns *runs, RunBucket *bucket, bool entries)
{
	int fresh = count_new_rows(bucket);
	uint16 *order;
	int at = 0;

	/* A table serves for a few keys too. */
	if (entries && !bucket->entries && bucket->kept.any != NULL)
	{
		reset_bucket(runs->cache, bucket, true);
		fresh = listed.count;
	}
	if (fresh == 0 && bucket->known == listed.count)
		return;
	if (bucket->kept.any == NULL ||
		(uint64) bucket->used + (uint64) fresh * KEYS_PER_ROW > bucket->room ||
		bucket->row_count + fresh > ROWS_MAX)
		reset_bucket(runs->cache, bucket, entries || (bucket->kept.any != NULL && bucket->entries));

	order = MemoryContextAlloc(runs->cache->context, Max(listed.count, 1) * sizeof(uint16));
	for (int i = 0; i < listed.count; i++)
	{
		while (at < bucket->known &&
			   memcmp(bucket->rows[bucket->order[at]].part, listed.rows[i].part, KEY_BYTES) < 0)
			at++;
		if (at < bucket->known && same_row(&bucket->rows[bucket->order[at]], &listed.rows[i]))
			order[i] = bucket->order[at++];
		else
			order[i] = (uint16) keep_row(runs, bucket, &listed.rows[i]);
	}
	if (bucket->order != NULL)
		pfree(bucket->order);
	bucket->order = order;
	bucket->known = listed.count;
}

int
key_runs_prepare(KeyRuns *runs, int bucket, int n)
{
	RunBucket *kept;
	XLogRecPtr before;

	runs->loaded_bucket = -1;
	if (!runs->any)
		runs->any = RelationGetNumberOfBlocks(runs->heap) > 0;
	if (!runs->any)
		return 0;
	if (runs->index == NULL)
		open_index(runs);
	if (runs->dirty != NULL && runs->cache == NULL)
		runs->cache = find_cache(RelationGetRelid(runs->heap), false);
	if (runs->cache != NULL)
	{
		kept = &runs->cache->buckets[bucket];
		if ((n <= FEW_KEYS || kept->entries) && key_leaves_unchanged(&kept->leaves, runs->index))
		{
			runs->loaded_bucket = bucket;
			runs->loaded_row = -1;
			return kept->known;
		}
		kept->leaves.count = 0;
	}

	before = runs->dirty != NULL ? GetXLogInsertRecPtr() : InvalidXLogRecPtr;
	list_rows(runs, bucket);
	/* Only a dirty snapshot tells what will never be visible. */
	if (runs->dirty != NULL && listed.count > 0 && listed.count < ROWS_MAX)
	{
		if (runs->cache == NULL)
			runs->cache = find_cache(RelationGetRelid(runs->heap), true);
		kept = &runs->cache->buckets[bucket];
		if (n > FEW_KEYS || kept->asked)
		{
			uint8 low[KEY_BYTES];
			uint8 high[KEY_BYTES];

			refresh_bucket(runs, kept, n > FEW_KEYS);
			runs->loaded_bucket = bucket;
			runs->loaded_row = -1;
			bucket_range(bucket, low, high);
			key_leaves_note(&kept->leaves, runs->index, listed.first_leaf, low, high, before);
		}
		kept->asked = true;
	}
	return listed.count;
}

/*
 * Whether a row has a key, visible or not.  Looks at the heap page alone: most rows do not have it,
 * and whether they are visible is dearer to find out.
 */
static bool
row_has(KeyRuns *runs, RunRow *row, const uint8 *key)
{
	Buffer buffer = ReadBuffer(runs->heap, ItemPointerGetBlockNumber(&row->tid));
	OffsetNumber offset = ItemPointerGetOffsetNumber(&row->tid);
	Page page;
	bool result = false;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	if (offset <= PageGetMaxOffsetNumber(page) && ItemIdIsNormal(PageGetItemId(page, offset)))
	{
		HeapTupleHeader tuple = (HeapTupleHeader) PageGetItem(page, PageGetItemId(page, offset));
		struct varlena *bytes =
			(struct varlena *) ((char *) tuple + tuple->t_hoff + RUN_KEYS_OFFSET);
		KeyPage keys;

		if (VARATT_IS_4B_U(bytes))
		{
			key_page_open(&keys, (const uint8 *) VARDATA_4B(bytes), VARSIZE_4B(bytes) - VARHDRSZ);
			result = key_page_find(&keys, key) >= 0;
		}
		else
			result = true;
	}
	UnlockReleaseBuffer(buffer);
	return result;
}

/* Looks for a key in the rows that the index has: those kept of the bucket, or those listed. */
static bool
search_rows(KeyRuns *runs, const RunBucket *bucket, const uint8 *key, KeyFound *found)
{
	int count = bucket != NULL ? bucket->known : listed.count;

	for (int i = 0; i < count; i++)
	{
		RunRow *row = bucket != NULL ? &bucket->rows[bucket->order[i]] : &listed.rows[i];

		/* The leading half of the row's first key. */
		if (memcmp(row->part, key, 8) > 0)
			break;
		if (row_has(runs, row, key) && fetch_row(runs, row) && search_page(runs, key, found))
			return true;
	}
	return false;
}

/*
 * Whether a row that is kept can still be there.  One that the index has no more may have been at
 * the end of a table that VACUUM or CLUSTER made shorter; it does not get shorter while it is open.
 */
static bool
within_file(KeyRuns *runs, const RunRow *row)
{
	BlockNumber block = ItemPointerGetBlockNumber(&row->tid);

	if (block >= runs->blocks)
		runs->blocks = RelationGetNumberOfBlocks(runs->heap);
	return block < runs->blocks;
}

bool
key_runs_find(KeyRuns *runs, int bucket_number, const uint8 *key, KeyFound *found)
{
	uint64 hash = key_trailing(key);
	RunBucket *bucket;
	uint32 mask;

	if (!runs->any)
		return false;
	if (runs->loaded_bucket != bucket_number)
		return search_rows(runs, NULL, key, found);
	bucket = &runs->cache->buckets[bucket_number];
	if (!bucket->entries)
		return key_filter_test(filter_block(bucket, key), key) &&
			   search_rows(runs, bucket, key, found);
	mask = bucket->slots - 1;
	for (uint32 slot = (uint32) hash & mask; bucket->kept.entry[slot] != 0;
		 slot = (slot + 1) & mask)
	{
		uint32 entry = bucket->kept.entry[slot];
		int row = (int) (entry & 0xffff) - 1;

		if ((entry & 0xffff0000) != entry_tag(hash) || row >= bucket->row_count)
			continue;
		if (runs->loaded_row != row)
		{
			runs->loaded_row = -1;
			runs->loaded_visible =
				within_file(runs, &bucket->rows[row]) && fetch_row(runs, &bucket->rows[row]);
			runs->loaded_row = row;
		}
		if (runs->loaded_visible && search_page(runs, key, found))
			return true;
	}
	return false;
}

static RunWriter *
make_writer(KeyRuns *runs)
{
	MemoryContext old = MemoryContextSwitchTo(runs->context);
	RunWriter *writer = palloc(sizeof(RunWriter));

	writer->builder.keys = 0;
	writer->indexes = CatalogOpenIndexes(runs->heap);
	writer->slot = MakeSingleTupleTableSlot(RelationGetDescr(runs->heap), &TTSOpsHeapTuple);
	MemoryContextSwitchTo(old);
	return writer;
}

static void
write_row(KeyRuns *runs, RunWriter *writer)
{
	MemoryContext old = MemoryContextSwitchTo(runs->context);
	uint64 random = pg_prng_uint64(&pg_global_prng_state);
	uint8 part[KEY_BYTES];
	Datum values[RUN_COLUMNS];
	bool nulls[RUN_COLUMNS] = {false};
	size_t length;

	memcpy(part, writer->builder.entries[0].key, 8);
	memcpy(part + 8, &random, 8);
	length = key_page_finish(&writer->builder, (uint8 *) writer->keys.bytes + VARHDRSZ);
	SET_VARSIZE(writer->keys.bytes, VARHDRSZ + length);
	values[ATT_RUN_PART - 1] = PointerGetDatum(part);
	values[ATT_RUN_KEYS - 1] = PointerGetDatum(writer->keys.bytes);
	values[ATT_RUN_GENERATION - 1] = Int32GetDatum(runs->generation);
	ExecStoreHeapTuple(heap_form_tuple(RelationGetDescr(runs->heap), values, nulls), writer->slot,
					   true);
	table_rows_insert(runs->heap, &writer->slot, 1, writer->indexes);
	ExecClearTuple(writer->slot);
	MemoryContextSwitchTo(old);
}

void
key_runs_insert(KeyRuns *runs, EventKey **keys, int n, int64 batch_id)
{
	if (runs->writer == NULL)
		runs->writer = make_writer(runs);
	for (int i = 0; i < n; i++)
	{
		PackedKey entry;

		memcpy(entry.key, keys[i]->key, KEY_BYTES);
		entry.fingerprint = keys[i]->fingerprint;
		entry.batch_id = batch_id;
		if (!key_page_add(&runs->writer->builder, &entry))
		{
			write_row(runs, runs->writer);
			(void) key_page_add(&runs->writer->builder, &entry);
		}
	}
	write_row(runs, runs->writer);
}

/*
 * key_set.c
 *		The live generations, opened for looking keys up.
 *
 * A hot or sealed generation is probed through its index with a dirty snapshot: what is aborted
 * or rolled back to a savepoint is skipped, the own transaction's keys are found whatever
 * subtransaction wrote them, and a key of somebody else's open transaction comes back with that
 * transaction.  A packed one is asked through its filter, one buffer and no index, and only
 * where that says "perhaps" is the page with the key looked up.
 *
 * On a standby the switch of the primary cannot be had.  There the list is read with an MVCC
 * snapshot, and a table that is gone by the time it is opened sends us back to the list.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "storage/buf_internals.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/lock.h"
#include "ingest/key_hash_index.h"
#include "ingest/key_set.h"

/* Columns of behavior._key and behavior._key_page. */
#define ATT_KEY			1
#define ATT_FINGERPRINT 2
#define ATT_BATCH_ID	3
#define ATT_PAGE_KEYS	3

/* A segment's row, up to its bits: segment, then the length word of the bytea. */
#define SEGMENT_BITS_OFFSET (sizeof(int32) + VARHDRSZ)

/* A packed page begins at most so many average ones of so many keys before any key in it. */
#define PAGE_KEYS	 300
#define PAGES_BEFORE 4

/*
 * Pages of filters are pinned where they were seen last, without asking the table of buffers,
 * which is cheaper and lets the processor be told early what will be read.  That does not count as
 * a use in every version, so one time in eight the page is asked for as usual: else it would look
 * unused, and go.  What is in such a page was checked when it was first seen, and never changes.
 */
#define READ_ANEW 8

/* Keys of which the filter's lines are asked for while those before them are looked up. */
#define LOOK_AHEAD 16

static uint32 sets_opened = 0;

static void
report_restore(const char *name)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("behavior cannot take events yet: \"%s\" has no index", name),
					errhint("Wait until the restore of this database has ended.")));
}

/* Opens a generation's table; NULL when it is gone, which only a standby may see. */
static Relation
open_table(Oid relid, int generation, LOCKMODE mode)
{
	Relation rel = OidIsValid(relid) ? try_table_open(relid, mode) : NULL;

	if (rel == NULL && !RecoveryInProgress())
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("a table of key generation %d is missing", generation)));
	return rel;
}

/* The index to be searched, kept as long as nothing about the table changes. */
static Oid
known_index(KeySetMember *member)
{
	KeyGenerationTables *tables = member->tables;

	if (!OidIsValid(tables->index_relid) || !key_generation_still_known())
	{
		tables->index_relid = key_table_index_oid(member->heap);
		tables->only_index = key_table_index_count(member->heap) == 1;
	}
	return tables->index_relid;
}

/* Opens the table and the index that keys or pages are in. */
static bool
open_heap(KeySetMember *member, bool writes)
{
	Oid index;

	member->heap = open_table(member->tables->relid, member->generation.generation,
							  writes ? RowExclusiveLock : AccessShareLock);
	if (member->heap == NULL)
		return false;
	index = known_index(member);
	if (!OidIsValid(index))
		report_restore(RelationGetRelationName(member->heap));
	member->index = index_open(index, writes ? RowExclusiveLock : AccessShareLock);
	return true;
}

/* The keys, one by one and in runs, of a generation that is not packed. */
static bool
open_unpacked(KeySet *set, KeySetMember *member)
{
	bool writes = set->for_insert && member->generation.state == KEY_STATE_HOT;

	if (!open_heap(member, writes))
		return false;
	member->run_heap = open_table(member->tables->run_relid, member->generation.generation,
								  writes ? RowExclusiveLock : AccessShareLock);
	if (member->run_heap == NULL)
		return false;
	/* Without it a restore may not have brought its rows yet, however complete the other table is.
	 */
	if (!member->run_heap->rd_rel->relhasindex)
		report_restore(RelationGetRelationName(member->run_heap));
	member->runs = key_runs_open(member->run_heap, member->generation.generation,
								 set->for_insert ? &set->dirty : NULL);
	if (member->generation.state == KEY_STATE_HOT)
		set->hot = member;
	return true;
}

/*
 * The filter of a packed generation.  Its pages wait until the filter says "perhaps", but on
 * a standby, where they might be gone by then.
 */
static bool
open_packed(KeySet *set, KeySetMember *member)
{
	member->filter =
		open_table(member->tables->filter_relid, member->generation.generation, AccessShareLock);
	if (member->filter == NULL)
		return false;
	if (member->tables->filter_file_blocks == InvalidBlockNumber)
		member->tables->filter_file_blocks = RelationGetNumberOfBlocks(member->filter);
	/* Where the backend keeps the list it also keeps where the filter's pages are. */
	if (set->locked && member->tables->filter_buffers == NULL)
		key_generation_keep_buffers(member->tables);
	return set->locked || open_heap(member, false);
}

static bool
open_member(KeySet *set, KeySetMember *member, KeyGenerationTables *tables)
{
	member->generation = tables->generation;
	member->tables = tables;
	member->segment = -1;
	member->segment_buffer = InvalidBuffer;
	if (member->generation.state == KEY_STATE_PACKED)
		return open_packed(set, member);
	return open_unpacked(set, member);
}

static void
close_member(KeySetMember *member, bool for_insert)
{
	bool writes = for_insert && member->generation.state == KEY_STATE_HOT;

	if (BufferIsValid(member->segment_buffer))
		ReleaseBuffer(member->segment_buffer);
	if (member->scan != NULL)
	{
		index_endscan(member->scan);
		ExecDropSingleTupleTableSlot(member->slot);
	}
	if (member->runs != NULL)
		key_runs_close(member->runs);
	if (member->run_heap != NULL)
		table_close(member->run_heap, writes ? NoLock : AccessShareLock);
	if (member->filter != NULL)
		table_close(member->filter, AccessShareLock);
	if (member->index != NULL)
		index_close(member->index, writes ? RowExclusiveLock : AccessShareLock);
	/* The locks on the hot tables stay to the end of the transaction: packing looks at it. */
	if (member->heap != NULL)
		table_close(member->heap, writes ? NoLock : AccessShareLock);
}

/* Opens what the list names; false when a table vanished meanwhile (standby). */
static bool
open_members(KeySet *set)
{
	KeyGenerationTables *list;
	int count;

	if (set->locked)
		list = key_generation_known(&count);
	else
	{
		Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());

		list = key_generation_tables(snapshot, &count);
		UnregisterSnapshot(snapshot);
	}

	set->count = 0;
	set->hot = NULL;
	set->members = palloc0(Max(count, 1) * sizeof(KeySetMember));
	for (int i = count - 1; i >= 0; i--)
	{
		if (list[i].generation.state == KEY_STATE_DROPPED)
			continue;
		if (!open_member(set, &set->members[set->count++], &list[i]))
			return false;
	}
	return true;
}

static void
close_members(KeySet *set)
{
	for (int i = 0; i < set->count; i++)
		close_member(&set->members[i], set->for_insert);
	set->count = 0;
}

/* Lets go of what the backend keeps of generations that have been packed. */
static void
forget_other_runs(const KeySet *set)
{
	Oid *relids = palloc(Max(set->count, 1) * sizeof(Oid));
	int count = 0;

	for (int i = 0; i < set->count; i++)
	{
		if (set->members[i].run_heap != NULL)
			relids[count++] = RelationGetRelid(set->members[i].run_heap);
	}
	key_runs_forget_others(relids, count);
	pfree(relids);
}

KeySet *
key_set_open(bool for_insert)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "behavior keys", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	KeySet *set = palloc0(sizeof(KeySet));

	set->context = context;
	set->for_insert = for_insert;
	set->lock_relid = behavior_relid(REL_KEY);
	InitDirtySnapshot(set->dirty);

	for (;;)
	{
		if (!RecoveryInProgress())
		{
			set->switch_relid = key_switch_lock(RowShareLock);
			set->locked = true;
		}
		if (open_members(set))
		{
			if (set->hot != NULL || !for_insert)
				break;
			if (set->count > 0)
				ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
								errmsg("no generation of keys takes inserts")));
		}
		close_members(set);
		if (set->locked)
		{
			key_switch_unlock(set->switch_relid, RowShareLock);
			set->locked = false;
			key_generation_first_use();
		}
		CHECK_FOR_INTERRUPTS();
	}
	forget_other_runs(set);
	sets_opened++;
	MemoryContextSwitchTo(old);
	return set;
}

void
key_set_close(KeySet *set)
{
	close_members(set);
	if (set->locked)
		key_switch_unlock(set->switch_relid, RowShareLock);
	MemoryContextDelete(set->context);
}

static void
begin_scan(KeySet *set, KeySetMember *member, Snapshot snapshot, int nkeys)
{
	MemoryContext old = MemoryContextSwitchTo(set->context);

	member->slot = table_slot_create(member->heap, NULL);
	member->scan = index_beginscan_compat(member->heap, member->index, snapshot, nkeys, 0);
	MemoryContextSwitchTo(old);
}

int
key_set_prepare(KeySetMember *member, int bucket, int n)
{
	if (!member->tables->any)
		member->tables->any = RelationGetNumberOfBlocks(member->heap) > 0;
	return key_runs_prepare(member->runs, bucket, n);
}

static bool
probe_table(KeySet *set, KeySetMember *member, const uint8 *key, KeyFound *found)
{
	ScanKeyData scan_key;
	bool isnull;

	if (!key_hash_index_may_hold(member->index, key))
		return false;
	if (member->scan == NULL)
		begin_scan(set, member, set->for_insert ? &set->dirty : SnapshotSelf, 1);
	ScanKeyInit(&scan_key, ATT_KEY, HTEqualStrategyNumber, F_UUID_EQ, PointerGetDatum(key));
	index_rescan(member->scan, &scan_key, 1, NULL, 0);
	/* The index has 32 bits of a hash of the key, so the key is compared. */
	do
	{
		if (!index_getnext_slot(member->scan, ForwardScanDirection, member->slot))
			return false;
	} while (
		memcmp(DatumGetPointer(slot_getattr(member->slot, ATT_KEY, &isnull)), key, KEY_BYTES) != 0);

	found->fingerprint = DatumGetInt64(slot_getattr(member->slot, ATT_FINGERPRINT, &isnull));
	found->batch_id = DatumGetInt64(slot_getattr(member->slot, ATT_BATCH_ID, &isnull));
	found->in_progress = InvalidTransactionId;
	if (set->for_insert)
		found->in_progress =
			TransactionIdIsValid(set->dirty.xmin) ? set->dirty.xmin : set->dirty.xmax;
	ExecClearTuple(member->slot);
	return true;
}

/*
 * The bits of a filter's segment, by block number; NULL when something else is there, as
 * after a CLUSTER by hand: then the page decides.  The pin keeps what
 * we point to in place, and nothing ever changes it.
 */
static const uint8 *
load_segment(KeySetMember *member, int64 segment)
{
	Page page;
	ItemId item;
	HeapTupleHeader tuple;
	const char *data;
	const uint8 *bits = NULL;
	int32 number;
	Buffer *seen = member->tables->filter_buffers;

	if (BufferIsValid(member->segment_buffer))
		ReleaseBuffer(member->segment_buffer);
	member->segment_buffer = InvalidBuffer;
	if (segment >= member->tables->filter_file_blocks)
		return NULL;

	if (seen != NULL && seen[segment] != InvalidBuffer &&
		(segment + sets_opened) % READ_ANEW != 0 &&
		compat_read_recent_buffer(member->filter, (BlockNumber) segment, seen[segment]))
	{
		member->segment_buffer = seen[segment];
		return (const uint8 *) BufferGetPage(member->segment_buffer) +
			   member->tables->filter_bits_offset;
	}

	member->segment_buffer = ReadBuffer(member->filter, (BlockNumber) segment);
	LockBuffer(member->segment_buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(member->segment_buffer);
	if (PageGetMaxOffsetNumber(page) >= FirstOffsetNumber)
	{
		item = PageGetItemId(page, FirstOffsetNumber);
		if (ItemIdIsNormal(item))
		{
			tuple = (HeapTupleHeader) PageGetItem(page, item);
			data = (const char *) tuple + tuple->t_hoff;
			memcpy(&number, data, sizeof(number));
			if (number == segment && (tuple->t_infomask & HEAP_HASNULL) == 0 &&
				ItemIdGetLength(item) >=
					tuple->t_hoff + SEGMENT_BITS_OFFSET + KEY_FILTER_SEGMENT_BYTES &&
				VARATT_IS_4B_U(data + sizeof(int32)) &&
				VARSIZE_4B(data + sizeof(int32)) == VARHDRSZ + KEY_FILTER_SEGMENT_BYTES)
				bits = (const uint8 *) data + SEGMENT_BITS_OFFSET;
		}
	}
	LockBuffer(member->segment_buffer, BUFFER_LOCK_UNLOCK);
	if (bits != NULL && seen != NULL)
	{
		int offset = (int) (bits - (const uint8 *) page);

		/* It is the same in all pages that the extension wrote. */
		if (member->tables->filter_bits_offset == 0)
			member->tables->filter_bits_offset = offset;
		seen[segment] =
			offset == member->tables->filter_bits_offset ? member->segment_buffer : InvalidBuffer;
	}
	return bits;
}

/* Whether the filter, in the block that is the key's, has it. */
static inline bool
filter_says_perhaps(KeySetMember *member, const uint8 *key, uint32 block)
{
	int64 segment = block / KEY_FILTER_SEGMENT_BLOCKS;

	if (member->segment != segment)
	{
		member->segment = -1;
		member->bits = load_segment(member, segment);
		member->segment = segment;
	}
	return member->bits == NULL ||
		   key_filter_test(
			   member->bits + (block % KEY_FILTER_SEGMENT_BLOCKS) * KEY_FILTER_BLOCK_BYTES, key);
}

/* Whether the page that is open is the one that would hold the key. */
static bool
page_covers(const KeyPage *page, const uint8 *key)
{
	uint8 edge[KEY_BYTES];

	key_page_key(page, 0, edge);
	if (memcmp(key, edge, KEY_BYTES) < 0)
		return false;
	key_page_key(page, page->keys - 1, edge);
	return memcmp(key, edge, KEY_BYTES) <= 0;
}

/*
 * Loads the last page that begins at a key or before; false when there is none.
 *
 * A backward scan of the index reads what matches of a leaf before it returns the first, so it
 * is told where to stop: keys are evenly spread, so the page begins not far before the key.
 */
static bool
load_page(KeySet *set, KeySetMember *member, const uint8 *key)
{
	ScanKeyData scan_keys[2];
	uint64 span = PG_UINT64_MAX / (member->generation.keys / PAGE_KEYS + 1);
	uint64 leading = key_leading(key);
	uint8 low[KEY_BYTES] = {0};
	bytea *bytes;
	bool isnull;

	member->page_loaded = false;
	if (member->heap == NULL)
		(void) open_heap(member, false);
	if (member->scan == NULL)
		begin_scan(set, member, SnapshotSelf, 2);

	leading = pg_hton64(span < leading / PAGES_BEFORE ? leading - span * PAGES_BEFORE : 0);
	memcpy(low, &leading, sizeof(leading));
	ScanKeyInit(&scan_keys[0], 1, BTLessEqualStrategyNumber, F_UUID_LE, PointerGetDatum(key));
	ScanKeyInit(&scan_keys[1], 1, BTGreaterEqualStrategyNumber, F_UUID_GE, PointerGetDatum(low));
	index_rescan(member->scan, scan_keys, 2, NULL, 0);
	if (!index_getnext_slot(member->scan, BackwardScanDirection, member->slot))
	{
		memset(low, 0, sizeof(low));
		index_rescan(member->scan, scan_keys, 2, NULL, 0);
		if (!index_getnext_slot(member->scan, BackwardScanDirection, member->slot))
			return false;
	}
	bytes = (bytea *) DatumGetPointer(slot_getattr(member->slot, ATT_PAGE_KEYS, &isnull));
	key_page_open(&member->page, (const uint8 *) VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
	member->page_loaded = true;
	return true;
}

static bool
search_pages(KeySet *set, KeySetMember *member, const uint8 *key, KeyFound *found)
{
	int index;

	if ((!member->page_loaded || !page_covers(&member->page, key)) && !load_page(set, member, key))
		return false;

	index = key_page_find(&member->page, key);
	if (index < 0)
		return false;
	found->fingerprint = key_page_fingerprint(&member->page, index);
	found->batch_id = key_page_batch_id(&member->page, index);
	found->in_progress = InvalidTransactionId;
	return true;
}

/* Which blocks of the filter keys belong to; tells the processor that these will be read. */
static void
look_ahead(KeySetMember *member, const EventKey *keys, int n, uint32 *blocks)
{
	const Buffer *seen = member->tables->filter_buffers;
	int offset = member->tables->filter_bits_offset;

	for (int i = 0; i < n; i++)
	{
		uint32 block = (uint32) key_filter_block(keys[i].key, member->generation.filter_blocks);
		uint32 segment = block / KEY_FILTER_SEGMENT_BLOCKS;
		Buffer buffer;

		blocks[i] = block;
		if (seen == NULL || segment >= member->tables->filter_file_blocks ||
			(buffer = seen[segment]) == InvalidBuffer)
			continue;
		if (segment != member->segment_told)
			prefetch_memory(GetBufferDescriptor(buffer - 1));
		member->segment_told = segment;
		prefetch_memory((const char *) BufferGetPage(buffer) + offset +
						block % KEY_FILTER_SEGMENT_BLOCKS * KEY_FILTER_BLOCK_BYTES);
	}
}

void
key_set_probe_packed(KeySet *set, KeySetMember *member, EventKey *keys, int n)
{
	uint32 blocks[2][LOOK_AHEAD];
	KeyFound found;

	member->segment_told = -1;
	look_ahead(member, keys, Min(n, LOOK_AHEAD), blocks[0]);
	for (int start = 0; start < n; start += LOOK_AHEAD)
	{
		int end = Min(n, start + LOOK_AHEAD);
		const uint32 *block = blocks[start / LOOK_AHEAD % 2];

		look_ahead(member, keys + end, Min(n - end, LOOK_AHEAD), blocks[end / LOOK_AHEAD % 2]);
		for (int i = start; i < end; i++)
		{
			if (keys[i].verdict == KEY_NEW &&
				filter_says_perhaps(member, keys[i].key, block[i - start]) &&
				search_pages(set, member, keys[i].key, &found))
				event_key_set_known(&keys[i], found.fingerprint, found.batch_id);
		}
	}
}

bool
key_set_probe(KeySet *set, KeySetMember *member, const uint8 *key, KeyFound *found)
{
	if (member->generation.state == KEY_STATE_PACKED)
		return filter_says_perhaps(
				   member, key, (uint32) key_filter_block(key, member->generation.filter_blocks)) &&
			   search_pages(set, member, key, found);
	if (key_runs_find(member->runs, key_bucket(key), key, found))
		return true;
	return member->tables->any && probe_table(set, member, key, found);
}

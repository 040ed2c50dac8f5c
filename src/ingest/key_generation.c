/*
 * key_generation.c
 *		The list of key generations and the tables that hold them.
 *
 * The list is read with SnapshotSelf, which sees what is committed now and what the own
 * transaction did, in every isolation level and without predicate locks.  Such a scan could miss
 * a row that is being updated; that cannot happen under the switch, because whoever changes the
 * list holds it exclusively until after commit.
 *
 * A sender needs the list for each flush, so a backend keeps it with the tables' OIDs.  Whoever
 * changes it sends an invalidation of behavior._key_generation, which is out before the switch is
 * let go: having the switch and the invalidations sent so far, what is kept is the truth.  Kept or
 * not is 6 % of the instructions of a statement that sends one event.
 *
 * Tables are made by ordinary DDL as the extension's owner, apart, and then attached: ATTACH
 * takes ShareUpdateExclusiveLock on the parent, where PARTITION OF would take
 * AccessExclusiveLock and queue behind a running pg_dump.  Senders open partitions only, never
 * the parent.
 *
 * The hot table's index is of kind hash.  Keys are random, so the order of a B-tree is of no use
 * and its descents, one to probe and one to insert, miss the processor's caches.  Claiming a new
 * key took 2.1 us of processor by hash and 3.6 us by B-tree up to 1 million keys in the table,
 * 3.7 and 5.6 beyond 4 million (PostgreSQL 15, flushes of 4,096).  WAL is the same, 138 bytes a
 * key, and so is the size, 105 to 110 bytes a key with the heap.  For a statement of one event too:
 * looking and entering take 7,000 instructions by hash, 12,000 by B-tree.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/instance.h"
#include "core/invalidation.h"
#include "core/lock.h"
#include "core/spi.h"
#include "ingest/key_generation.h"

/* Columns of behavior._key_generation. */
#define ATT_GENERATION		   1
#define ATT_STATE			   2
#define ATT_LEVEL			   3
#define ATT_KEYS			   4
#define ATT_FILTER_BLOCKS	   5
#define ATT_OLDEST_RECEIVED_AT 6
#define ATT_NEWEST_RECEIVED_AT 7
#define GENERATION_COLUMNS	   7

static const char *const state_names[] = {"hot", "sealed", "packed", "dropped"};

/*
 * No vacuum but against wraparound: hot and sealed tables are rewritten when they are packed,
 * packed ones are born frozen.
 */
#define TABLE_OPTIONS "autovacuum_enabled = false"

static const struct
{
	BehaviorRel parent;
	const char *parent_name;
	const char *index; /* method and column; NULL: none */
} tables[] = {
	[KEY_TABLE_KEY] = {REL_KEY, "_key", "hash (key)"},
	[KEY_TABLE_RUN] = {REL_KEY_RUN, "_key_run", "btree (part)"},
	[KEY_TABLE_PAGE] = {REL_KEY_PAGE, "_key_page", "btree (first_key)"},
	[KEY_TABLE_FILTER] = {REL_KEY_FILTER, "_key_filter", NULL},
};

static KeyState
state_from_text(Datum value)
{
	char *name = TextDatumGetCString(value);

	for (int i = 0; i < lengthof(state_names); i++)
	{
		if (strcmp(name, state_names[i]) == 0)
			return (KeyState) i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("behavior._key_generation has a row in the unknown state \"%s\"", name)));
}

static int
compare_generations(const void *a, const void *b)
{
	int left = ((const KeyGeneration *) a)->generation;
	int right = ((const KeyGeneration *) b)->generation;

	return (left > right) - (left < right);
}

KeyGeneration *
key_generation_list(Snapshot snapshot, int *count)
{
	Relation rel = table_open(behavior_relid(REL_KEY_GENERATION), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, snapshot ? snapshot : SnapshotSelf, 0, NULL);
	int size = 8;
	KeyGeneration *list = palloc(size * sizeof(KeyGeneration));

	*count = 0;
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		KeyGeneration *row;

		if (*count == size)
		{
			size *= 2;
			list = repalloc(list, size * sizeof(KeyGeneration));
		}
		slot_getallattrs(slot);
		row = &list[(*count)++];
		row->generation = DatumGetInt32(slot->tts_values[ATT_GENERATION - 1]);
		row->state = state_from_text(slot->tts_values[ATT_STATE - 1]);
		row->level = DatumGetInt32(slot->tts_values[ATT_LEVEL - 1]);
		row->keys = DatumGetInt64(slot->tts_values[ATT_KEYS - 1]);
		row->filter_blocks = DatumGetInt64(slot->tts_values[ATT_FILTER_BLOCKS - 1]);
		row->oldest_received_at = DatumGetTimestampTz(slot->tts_values[ATT_OLDEST_RECEIVED_AT - 1]);
		row->newest_received_at =
			slot->tts_isnull[ATT_NEWEST_RECEIVED_AT - 1]
				? DT_NOEND
				: DatumGetTimestampTz(slot->tts_values[ATT_NEWEST_RECEIVED_AT - 1]);
		row->tid = slot->tts_tid;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);

	if (*count > 1)
		qsort(list, *count, sizeof(KeyGeneration), compare_generations);
	return list;
}

KeyGenerationTables *
key_generation_tables(Snapshot snapshot, int *count)
{
	KeyGeneration *list = key_generation_list(snapshot, count);
	KeyGenerationTables *tables = palloc0(Max(*count, 1) * sizeof(KeyGenerationTables));

	for (int i = 0; i < *count; i++)
	{
		bool packed = list[i].state == KEY_STATE_PACKED;

		tables[i].generation = list[i];
		tables[i].filter_file_blocks = InvalidBlockNumber;
		if (list[i].state != KEY_STATE_DROPPED)
			tables[i].relid =
				key_table_oid(packed ? KEY_TABLE_PAGE : KEY_TABLE_KEY, list[i].generation);
		if (!packed && list[i].state != KEY_STATE_DROPPED)
			tables[i].run_relid = key_table_oid(KEY_TABLE_RUN, list[i].generation);
		if (packed)
			tables[i].filter_relid = key_table_oid(KEY_TABLE_FILTER, list[i].generation);
	}
	pfree(list);
	return tables;
}

/* What the backend keeps of it. */
static struct
{
	bool valid;
	bool changing; /* an invalidation came while it was read */
	Oid list_relid;
	int count;
	KeyGenerationTables *tables;
	MemoryContext context; /* of the tables */
} known;

static void
on_relcache_inval(Datum arg, Oid relid)
{
	bool concerned = !OidIsValid(relid) || relid == known.list_relid;

	for (int i = 0; known.valid && !concerned && i < known.count; i++)
		concerned = relid == known.tables[i].relid || relid == known.tables[i].run_relid ||
					relid == known.tables[i].filter_relid || relid == known.tables[i].index_relid;
	if (concerned)
	{
		known.valid = false;
		known.changing = true;
	}
}

KeyGenerationTables *
key_generation_known(int *count)
{
	MemoryContext old;

	if (known.context == NULL)
	{
		known.context =
			AllocSetContextCreate(TopMemoryContext, "generations of keys", ALLOCSET_SMALL_SIZES);
		invalidation_call(on_relcache_inval);
	}
	AcceptInvalidationMessages();
	if (!known.valid)
	{
		MemoryContextReset(known.context);
		known.list_relid = behavior_relid(REL_KEY_GENERATION);
		known.changing = false;
		old = MemoryContextSwitchTo(known.context);
		known.tables = key_generation_tables(NULL, &known.count);
		MemoryContextSwitchTo(old);
		/* Rows that a restore brings come without an invalidation: an empty list is not kept. */
		known.valid = !known.changing && known.count > 0;
	}
	*count = known.count;
	return known.tables;
}

bool
key_generation_still_known(void)
{
	return known.valid;
}

/* Returns what it has locked, for key_switch_unlock(): to look it up again could fail. */
Oid
key_switch_lock(LOCKMODE mode)
{
	Oid relid = behavior_relid(REL_KEY_SWITCH);

	LockRelationOid(relid, mode);
	return relid;
}

void
key_switch_unlock(Oid relid, LOCKMODE mode)
{
	UnlockRelationOid(relid, mode);
}

void
key_generation_keep_buffers(KeyGenerationTables *tables)
{
	tables->filter_buffers =
		MemoryContextAllocZero(known.context, Max(tables->filter_file_blocks, 1) * sizeof(Buffer));
}

static HeapTuple
form_row(Relation rel, const KeyGeneration *row)
{
	Datum values[GENERATION_COLUMNS];
	bool nulls[GENERATION_COLUMNS] = {false};

	values[ATT_GENERATION - 1] = Int32GetDatum(row->generation);
	values[ATT_STATE - 1] = CStringGetTextDatum(state_names[row->state]);
	values[ATT_LEVEL - 1] = Int32GetDatum(row->level);
	values[ATT_KEYS - 1] = Int64GetDatum(row->keys);
	values[ATT_FILTER_BLOCKS - 1] = Int64GetDatum(row->filter_blocks);
	values[ATT_OLDEST_RECEIVED_AT - 1] = TimestampTzGetDatum(row->oldest_received_at);
	values[ATT_NEWEST_RECEIVED_AT - 1] = TimestampTzGetDatum(row->newest_received_at);
	nulls[ATT_NEWEST_RECEIVED_AT - 1] = TIMESTAMP_IS_NOEND(row->newest_received_at);
	return heap_form_tuple(RelationGetDescr(rel), values, nulls);
}

void
key_generation_insert(const KeyGeneration *row)
{
	Relation rel = table_open(behavior_relid(REL_KEY_GENERATION), RowExclusiveLock);

	CatalogTupleInsert(rel, form_row(rel, row));
	CacheInvalidateRelcache(rel);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

void
key_generation_update(KeyGeneration *row)
{
	Relation rel = table_open(behavior_relid(REL_KEY_GENERATION), RowExclusiveLock);
	HeapTuple tuple = form_row(rel, row);

	CatalogTupleUpdate(rel, &row->tid, tuple);
	row->tid = tuple->t_self;
	CacheInvalidateRelcache(rel);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

void
key_generation_delete(KeyGeneration *row)
{
	Relation rel = table_open(behavior_relid(REL_KEY_GENERATION), RowExclusiveLock);

	CatalogTupleDelete(rel, &row->tid);
	CacheInvalidateRelcache(rel);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

static void run_ddl(const char *sql);

/* Drops the empty tables that a schema-only restore has brought. */
static void
drop_leftovers(void)
{
	for (int i = 0; i < lengthof(tables); i++)
	{
		List *children = find_inheritance_children(behavior_relid(tables[i].parent), NoLock);
		ListCell *lc;

		foreach (lc, children)
			run_ddl(
				psprintf("DROP TABLE behavior.%s", quote_identifier(get_rel_name(lfirst_oid(lc)))));
	}
}

void
key_generation_first_use(void)
{
	Oid lock_relid = behavior_relid(REL_KEY);
	KeyGeneration first = {0};
	int count;

	/* Kept until the transaction ends: see core/instance.c. */
	behavior_lock(lock_relid, KEY_LOCK_FIRST_USE, ExclusiveLock);
	pfree(key_generation_list(NULL, &count));
	if (count > 0)
	{
		behavior_unlock(lock_relid, KEY_LOCK_FIRST_USE, ExclusiveLock);
		return;
	}
	if (instance_awaits_restore())
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg(
				 "behavior cannot take events yet: its keys are there but behavior._key_generation is empty"),
			 errhint("Wait until the restore of this database has ended.")));

	drop_leftovers();
	first.generation = 1;
	first.state = KEY_STATE_HOT;
	first.oldest_received_at = GetCurrentTimestamp();
	first.newest_received_at = DT_NOEND;
	key_table_make_hot(first.generation);
	key_generation_insert(&first);
}

static char *
table_name(KeyTable table, int generation)
{
	return psprintf("%s_%d", tables[table].parent_name, generation);
}

Oid
key_table_oid(KeyTable table, int generation)
{
	return get_relname_relid(table_name(table, generation), behavior_schema_oid());
}

static Oid
access_method(Oid index)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(index));
	Oid result = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		result = ((Form_pg_class) GETSTRUCT(tuple))->relam;
		ReleaseSysCache(tuple);
	}
	return result;
}

Oid
key_table_index_oid(Relation rel)
{
	List *indexes = RelationGetIndexList(rel);
	bool is_key = strcmp(NameStr(TupleDescAttr(RelationGetDescr(rel), 0)->attname), "key") == 0;
	Oid result = InvalidOid;
	ListCell *cell;

	foreach (cell, indexes)
	{
		HeapTuple tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(cell)));
		Form_pg_index index;

		if (!HeapTupleIsValid(tuple))
			continue;
		index = (Form_pg_index) GETSTRUCT(tuple);
		/* The key is the first column of every one of these tables. */
		if (index->indisvalid && index->indnatts == 1 && index->indkey.values[0] == 1 &&
			heap_attisnull(tuple, Anum_pg_index_indpred, NULL) &&
			access_method(lfirst_oid(cell)) == (is_key ? HASH_AM_OID : BTREE_AM_OID))
			result = lfirst_oid(cell);
		ReleaseSysCache(tuple);
		if (OidIsValid(result))
			break;
	}
	list_free(indexes);
	return result;
}

int
key_table_index_count(Relation rel)
{
	List *indexes = RelationGetIndexList(rel);
	int count = list_length(indexes);

	list_free(indexes);
	return count;
}

/* Runs DDL as the extension's owner, whatever the session's defaults for new tables are. */
static void
run_ddl(const char *sql)
{
	SecureContext secure;
	int rc;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	secure_begin(&secure, behavior_owner());
	(void) set_config_option("default_tablespace", "", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	(void) set_config_option("client_min_messages", "warning", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	rc = SPI_execute(sql, false, 0);
	if (rc != SPI_OK_UTILITY)
		elog(ERROR, "\"%s\" returned %s", sql, SPI_result_code_string(rc));
	secure_end(&secure);
	SPI_finish();
	CommandCounterIncrement();
}

Oid
key_table_make(KeyTable table, int generation)
{
	const char *parent = tables[table].parent_name;
	char *name = table_name(table, generation);

	/* INCLUDING STORAGE: the packed columns are PLAIN, so that nothing compresses or moves them. */
	run_ddl(psprintf("CREATE TABLE behavior.%s (LIKE behavior.%s INCLUDING STORAGE) USING heap"
					 " WITH (" TABLE_OPTIONS ")",
					 name, parent));
	run_ddl(psprintf("REVOKE ALL ON behavior.%s FROM PUBLIC", name));
	run_ddl(psprintf("ALTER TABLE behavior.%s ATTACH PARTITION behavior.%s FOR VALUES IN (%d)",
					 parent, name, generation));
	return key_table_oid(table, generation);
}

void
key_table_make_index(KeyTable table, int generation)
{
	char *name = table_name(table, generation);

	run_ddl(
		psprintf("CREATE INDEX %s_idx ON behavior.%s USING %s", name, name, tables[table].index));
}

void
key_table_make_hot(int generation)
{
	(void) key_table_make(KEY_TABLE_KEY, generation);
	key_table_make_index(KEY_TABLE_KEY, generation);
	(void) key_table_make(KEY_TABLE_RUN, generation);
	key_table_make_index(KEY_TABLE_RUN, generation);
}

bool
key_table_drop_all(int generation)
{
	/*
	 * DROP TABLE takes AccessExclusiveLock on the partition and on its parent.
	 * Taken here at once or not at all: queueing behind a pg_dump would queue
	 * the next one behind us.
	 */
	for (int i = 0; i < lengthof(tables); i++)
	{
		Oid relid = key_table_oid(i, generation);

		if (OidIsValid(relid) &&
			(!ConditionalLockRelationOid(behavior_relid(tables[i].parent), AccessExclusiveLock) ||
			 !ConditionalLockRelationOid(relid, AccessExclusiveLock)))
			return false;
	}
	for (int i = 0; i < lengthof(tables); i++)
	{
		if (OidIsValid(key_table_oid(i, generation)))
			run_ddl(psprintf("DROP TABLE behavior.%s", table_name(i, generation)));
	}
	return true;
}

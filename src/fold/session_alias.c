/*
 * session_alias.c
 *		Where ids that sessions no longer have lead to.
 *
 * A fold collects the ids that died, each with the living id of the session that its
 * events are now part of, and the ids that were born, and stores them at its end.  What
 * pointed at a dead id is pointed at the living one, so that any id is
 * resolved in one lookup; an id that lives is no alias.
 *
 * All by index and in its order, one probe an id: a plan may decide to read all aliases, or all
 * sessions, for each tick.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/table_row.h"
#include "fold/session.h"

/* Columns of behavior.session_alias. */
enum
{
	ALIAS_SESSION_ID = 1,
	ALIAS_MERGED_INTO,
	ALIAS_NATTS = ALIAS_MERGED_INTO
};

typedef struct IdPair
{
	pg_uuid_t id;
	pg_uuid_t living; /* unused for ids that were born */
} IdPair;

typedef struct IdArray
{
	int count;
	int max;
	IdPair *items;
} IdArray;

struct SessionAliases
{
	MemoryContext context;
	IdArray dead;
	IdArray born;
};

/* Looks rows up by an id, under a snapshot of its own that sees all that was done before. */
typedef struct IdScan
{
	Relation index;
	Snapshot snapshot;
	IndexScanDesc scan;
	TupleTableSlot *slot;
} IdScan;

/* In the current context, in which ids are kept too. */
SessionAliases *
session_aliases_begin(void)
{
	SessionAliases *aliases = palloc0(sizeof(SessionAliases));

	aliases->context = CurrentMemoryContext;
	return aliases;
}

static IdPair *
add_id(SessionAliases *aliases, IdArray *array, const pg_uuid_t *id)
{
	if (array->items == NULL)
	{
		array->max = 64;
		array->items = MemoryContextAlloc(aliases->context, sizeof(IdPair) * array->max);
	}
	else if (array->count == array->max)
	{
		array->max *= 2;
		array->items = repalloc_huge(array->items, sizeof(IdPair) * array->max);
	}
	array->items[array->count].id = *id;
	return &array->items[array->count++];
}

void
session_aliases_dead(SessionAliases *aliases, const pg_uuid_t *dead, const pg_uuid_t *living)
{
	add_id(aliases, &aliases->dead, dead)->living = *living;
}

void
session_aliases_born(SessionAliases *aliases, const pg_uuid_t *id)
{
	add_id(aliases, &aliases->born, id);
}

static int
alias_compare(const void *a, const void *b)
{
	return memcmp(&((const IdPair *) a)->id, &((const IdPair *) b)->id, UUID_LEN);
}

/* In the order of an index on ids, each id once. */
static void
sort_ids(IdArray *array)
{
	int n = 0;

	qsort(array->items, array->count, sizeof(IdPair), alias_compare);
	for (int i = 0; i < array->count; i++)
	{
		if (n == 0 || memcmp(&array->items[n - 1].id, &array->items[i].id, UUID_LEN) != 0)
			array->items[n++] = array->items[i];
	}
	array->count = n;
}

static void
id_scan_begin(IdScan *scan, Relation rel, Oid index)
{
	CommandCounterIncrement();
	scan->index = index_open(index, AccessShareLock);
	scan->snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan->scan = index_beginscan_compat(rel, scan->index, scan->snapshot, 1, 0);
	scan->slot = table_slot_create(rel, NULL);
}

static void
id_scan_end(IdScan *scan)
{
	ExecDropSingleTupleTableSlot(scan->slot);
	index_endscan(scan->scan);
	UnregisterSnapshot(scan->snapshot);
	index_close(scan->index, AccessShareLock);
}

/* Begins to look for an id, the index's first column. */
static void
id_scan_start(IdScan *scan, const pg_uuid_t *id)
{
	ScanKeyData key;

	CHECK_FOR_INTERRUPTS();
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	index_rescan(scan->scan, &key, 1, NULL, 0);
}

static bool
id_scan_next(IdScan *scan)
{
	return index_getnext_slot(scan->scan, ForwardScanDirection, scan->slot);
}

static HeapTuple
alias_row(Relation rel, const pg_uuid_t *id, const pg_uuid_t *living)
{
	Datum values[ALIAS_NATTS] = {UUIDPGetDatum(id), UUIDPGetDatum(living)};
	bool nulls[ALIAS_NATTS] = {false, false};

	return heap_form_tuple(RelationGetDescr(rel), values, nulls);
}

/* What pointed at ids that died points at those that live. */
static void
repoint(Relation rel, CatalogIndexState indexes, const IdArray *dead)
{
	IdScan scan;

	id_scan_begin(&scan, rel, behavior_relid(REL_SESSION_ALIAS_MERGED_INTO));
	for (int i = 0; i < dead->count; i++)
	{
		id_scan_start(&scan, &dead->items[i].id);
		while (id_scan_next(&scan))
		{
			bool isnull;
			pg_uuid_t *id = DatumGetUUIDP(slot_getattr(scan.slot, ALIAS_SESSION_ID, &isnull));
			HeapTuple tuple = alias_row(rel, id, &dead->items[i].living);

			table_row_update(rel, &scan.slot->tts_tid, tuple, indexes);
			heap_freetuple(tuple);
		}
	}
	id_scan_end(&scan);
}

/* Ids that died become aliases, but for those that are now another session's. */
static void
insert_dead(Relation rel, CatalogIndexState indexes, const IdArray *dead)
{
	Relation sessions = table_open(behavior_relid(REL_SESSION), AccessShareLock);
	IdScan living;
	IdScan known;

	id_scan_begin(&living, sessions, behavior_relid(REL_SESSION_PKEY));
	id_scan_begin(&known, rel, behavior_relid(REL_SESSION_ALIAS_PKEY));
	for (int i = 0; i < dead->count; i++)
	{
		const IdPair *alias = &dead->items[i];
		HeapTuple tuple;

		id_scan_start(&living, &alias->id);
		if (id_scan_next(&living))
			continue;
		tuple = alias_row(rel, &alias->id, &alias->living);
		id_scan_start(&known, &alias->id);
		if (id_scan_next(&known))
			table_row_update(rel, &known.slot->tts_tid, tuple, indexes);
		else
			table_row_insert(rel, tuple, indexes);
		heap_freetuple(tuple);
	}
	id_scan_end(&known);
	id_scan_end(&living);
	table_close(sessions, AccessShareLock);
}

static void
forget_born(Relation rel, const IdArray *born)
{
	IdScan scan;

	id_scan_begin(&scan, rel, behavior_relid(REL_SESSION_ALIAS_PKEY));
	for (int i = 0; i < born->count; i++)
	{
		id_scan_start(&scan, &born->items[i].id);
		if (id_scan_next(&scan))
			CatalogTupleDelete(rel, &scan.slot->tts_tid);
	}
	id_scan_end(&scan);
}

void
session_aliases_store(SessionAliases *aliases)
{
	Relation rel;
	CatalogIndexState indexes;

	if (aliases->dead.count == 0 && aliases->born.count == 0)
		return;
	rel = table_open(behavior_relid(REL_SESSION_ALIAS), RowExclusiveLock);
	if (aliases->dead.count > 0)
	{
		sort_ids(&aliases->dead);
		indexes = CatalogOpenIndexes(rel);
		repoint(rel, indexes, &aliases->dead);
		insert_dead(rel, indexes, &aliases->dead);
		CatalogCloseIndexes(indexes);
	}
	if (aliases->born.count > 0 && RelationGetNumberOfBlocks(rel) > 0)
	{
		sort_ids(&aliases->born);
		forget_born(rel, &aliases->born);
	}
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

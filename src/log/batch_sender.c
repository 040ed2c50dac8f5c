/*
 * batch_sender.c
 *		Interns who sent a batch: role, application, correlation id and source.
 *
 * Two transactions may intern the same sender at the same time: neither waits for the
 * other and both rows stay, since they say the same.  Only a sender that the
 * transaction's snapshot sees is used, so that whoever can see a batch row can see
 * its sender too, in every isolation level.
 *
 * A row is used for a day from seen_at, then a new one is made.  So a
 * row older than the oldest batch by more than a day can be named by no batch, not even by
 * one that a backend with an old cache is about to write, and batch_expire() may
 * delete it: that matters for correlation ids that are new with each request.
 *
 * The cache of a backend is emptied when a (sub)transaction that interned
 * something aborts.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_collation.h"
#include "commands/sequence.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/guc.h"
#include "core/invalidation.h"
#include "core/table_row.h"
#include "log/batch.h"

#define SENDER_TEXT_MAX	 255 /* bytes: keeps the index row far below its limit */
#define SENDER_CACHE_MAX 1024
#define SENDER_USED_FOR	 USECS_PER_DAY
#define SENDER_ID_COLUMN 1
#define SENDER_NATTS	 6

enum
{
	SENDER_ROLE = 2,
	SENDER_APPLICATION,
	SENDER_CORRELATION,
	SENDER_SOURCE,
	SENDER_SEEN_AT
};

/* The hash key; all of it is zeroed before it is filled, so that it compares as bytes. */
typedef struct SenderKey
{
	Oid role;
	char source[SENDER_TEXT_MAX + 1];
	char application[NAMEDATALEN];
	char correlation[SENDER_TEXT_MAX + 1];
} SenderKey;

typedef struct SenderEntry
{
	SenderKey key;
	int64 sender_id;
	TimestampTz seen_at;
} SenderEntry;

static HTAB *senders = NULL;
static Oid sender_relid = InvalidOid;
static SenderEntry *last_entry = NULL; /* of the statement before: mostly the same */
static bool interned_in_transaction = false;
static bool callbacks_registered = false;

static void
forget_senders(void)
{
	if (senders != NULL)
		hash_destroy(senders);
	senders = NULL;
	last_entry = NULL;
}

static void
on_xact(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_ABORT:
			if (interned_in_transaction)
				forget_senders();
			interned_in_transaction = false;
			break;
		case XACT_EVENT_COMMIT:
			interned_in_transaction = false;
			break;
		case XACT_EVENT_PREPARE:
			/* Not known yet whether it will commit. */
			if (interned_in_transaction)
				forget_senders();
			interned_in_transaction = false;
			break;
		default:
			break;
	}
}

static void
on_subxact(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB && interned_in_transaction)
		forget_senders();
}

/* A role was renamed or dropped, perhaps with the database's extension. */
static void
on_role_inval(Datum arg, int cacheid, uint32 hashvalue)
{
	forget_senders();
}

static void
on_relcache_inval(Datum arg, Oid relid)
{
	if (senders != NULL && (!OidIsValid(relid) || relid == sender_relid))
		forget_senders();
}

static void
make_cache(void)
{
	HASHCTL ctl = {0};

	if (!callbacks_registered)
	{
		RegisterXactCallback(on_xact, NULL);
		RegisterSubXactCallback(on_subxact, NULL);
		CacheRegisterSyscacheCallback(AUTHOID, on_role_inval, (Datum) 0);
		invalidation_call(on_relcache_inval);
		callbacks_registered = true;
	}
	ctl.keysize = sizeof(SenderKey);
	ctl.entrysize = sizeof(SenderEntry);
	ctl.hcxt = TopMemoryContext;
	senders = hash_create("behavior senders", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Copies text into a zeroed field, cut at a character. */
static void
fill_text(char *field, size_t size, const char *text, int length)
{
	if (length >= size)
		length = pg_mbcliplen(text, length, size - 1);
	memcpy(field, text, length);
}

/* Looks for a row of this sender that is young enough. */
static bool
find_sender(Relation rel, const SenderKey *key, const char *role, TimestampTz oldest,
			SenderEntry *found)
{
	ScanKeyData keys[4];
	SysScanDesc scan;
	HeapTuple tuple;
	Snapshot snapshot = IsolationUsesXactSnapshot() ? GetTransactionSnapshot() : NULL;
	NameData name;
	bool ok = false;

	namestrcpy(&name, role);
	ScanKeyEntryInitialize(&keys[0], 0, SENDER_SOURCE, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(key->source));
	ScanKeyEntryInitialize(&keys[1], 0, SENDER_ROLE, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_NAMEEQ, NameGetDatum(&name));
	ScanKeyEntryInitialize(&keys[2], 0, SENDER_APPLICATION, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(key->application));
	ScanKeyEntryInitialize(&keys[3], 0, SENDER_CORRELATION, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(key->correlation));

	/* No MVCC snapshot: its predicate locks would make two SERIALIZABLE senders fail. */
	scan = systable_beginscan(rel, behavior_relid(REL_SENDER_KEY), true, SnapshotSelf, 4, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TransactionId xmin = HeapTupleHeaderGetXmin(tuple->t_data);
		bool isnull;
		TimestampTz seen_at = DatumGetTimestampTz(
			heap_getattr(tuple, SENDER_SEEN_AT, RelationGetDescr(rel), &isnull));

		if (snapshot != NULL && !TransactionIdIsCurrentTransactionId(xmin) &&
			XidInMVCCSnapshot(xmin, snapshot))
			continue;
		if (seen_at >= oldest && (!ok || seen_at > found->seen_at))
		{
			found->sender_id = DatumGetInt64(
				heap_getattr(tuple, SENDER_ID_COLUMN, RelationGetDescr(rel), &isnull));
			found->seen_at = seen_at;
			ok = true;
		}
	}
	systable_endscan(scan);
	return ok;
}

static void
insert_sender(Relation rel, const SenderKey *key, const char *role, TimestampTz now,
			  SenderEntry *made)
{
	Datum values[SENDER_NATTS];
	bool isnull[SENDER_NATTS] = {false};
	NameData name;
	HeapTuple tuple;

	namestrcpy(&name, role);
	made->sender_id = nextval_internal(behavior_relid(REL_SENDER_ID_SEQ), false);
	made->seen_at = now;
	values[SENDER_ID_COLUMN - 1] = Int64GetDatum(made->sender_id);
	values[SENDER_ROLE - 1] = NameGetDatum(&name);
	values[SENDER_APPLICATION - 1] = CStringGetTextDatum(key->application);
	values[SENDER_CORRELATION - 1] = CStringGetTextDatum(key->correlation);
	values[SENDER_SOURCE - 1] = CStringGetTextDatum(key->source);
	values[SENDER_SEEN_AT - 1] = TimestampTzGetDatum(now);
	tuple = heap_form_tuple(RelationGetDescr(rel), values, isnull);
	table_row_insert(rel, tuple, NULL);
	heap_freetuple(tuple);
	interned_in_transaction = true;
}

int64
batch_sender(const char *source, int source_length)
{
	TimestampTz now = GetCurrentTimestamp(); /* a procedure's statement may run for days */
	SenderKey key;
	SenderEntry *entry;
	SenderEntry sender;
	Relation rel;
	char *role;
	bool found;

	memset(&key, 0, sizeof(key));
	key.role = GetUserId();
	fill_text(key.source, sizeof(key.source), source, source_length);
	if (application_name != NULL)
		fill_text(key.application, sizeof(key.application), application_name,
				  strlen(application_name));
	if (behavior_correlation_id != NULL)
		fill_text(key.correlation, sizeof(key.correlation), behavior_correlation_id,
				  strlen(behavior_correlation_id));

	if (last_entry != NULL && last_entry->seen_at > now - SENDER_USED_FOR &&
		memcmp(&last_entry->key, &key, sizeof(key)) == 0)
		return last_entry->sender_id;

	if (senders != NULL && hash_get_num_entries(senders) >= SENDER_CACHE_MAX)
		forget_senders();
	if (senders != NULL)
	{
		entry = hash_search(senders, &key, HASH_FIND, NULL);
		if (entry != NULL && entry->seen_at > now - SENDER_USED_FOR)
		{
			last_entry = entry;
			return entry->sender_id;
		}
	}

	role = GetUserNameFromId(key.role, false);
	sender_relid = behavior_relid(REL_SENDER);
	rel = table_open(sender_relid, RowExclusiveLock);
	if (!find_sender(rel, &key, role, now - SENDER_USED_FOR, &sender))
		insert_sender(rel, &key, role, now, &sender);
	table_close(rel, NoLock);
	pfree(role);

	if (senders == NULL)
		make_cache();
	entry = hash_search(senders, &key, HASH_ENTER, &found);
	entry->sender_id = sender.sender_id;
	entry->seen_at = sender.seen_at;
	last_entry = entry;
	return entry->sender_id;
}

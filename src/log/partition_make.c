/*
 * partition_make.c
 *		The DDL of the log's partitions: which ranges, making them, emptying DEFAULT.
 *
 * A partition is a table built apart, with its BRIN index, and attached: PARTITION
 * OF would lock the parent against readers.  ATTACH still locks the DEFAULT partition
 * against them, which is why partition_lock() never queues.
 *
 * Ranges start and end at UTC midnight.  Of the last 90 days and those ahead
 * each has its own; an older time gets the gap between its neighbours, clipped to its
 * calendar year and to the 90 days; what is before 1970 shares one.  So any
 * number of random times before the last 90 days makes some sixty partitions.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "commands/tablespace.h"
#include "commands/trigger.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "core/catalog.h"
#include "core/spi.h"
#include "log/log_reader.h"
#include "log/log_row.h"
#include "log/partition.h"
#include "log/partition_make.h"

#define DAY_1970		 (UNIX_EPOCH_JDATE - POSTGRES_EPOCH_JDATE)
#define NO_LOWER		 PG_INT32_MIN /* of a range: open */
#define RETRY_LOCK_MS	 5
#define AHEAD_PATIENCE	 500
#define EMPTY_PATIENCE	 200
#define LOOK_AGAIN_AFTER USECS_PER_MINUTE
#define PAGES_PER_RANGE	 "32"

PG_FUNCTION_INFO_V1(behavior__log_guard);
PG_FUNCTION_INFO_V1(behavior__log_partition);
PG_FUNCTION_INFO_V1(behavior__log_partitions_ahead);
PG_FUNCTION_INFO_V1(behavior__log_empty_default);
PG_FUNCTION_INFO_V1(behavior__log_restore_in_progress);

int32
partition_day_of(TimestampTz at)
{
	int64 day = at / USECS_PER_DAY;

	if (at < 0 && day * USECS_PER_DAY != at)
		day--;
	return (int32) day;
}

int32
partition_today(void)
{
	return partition_day_of(GetCurrentTimestamp());
}

static int32
year_start(int year)
{
	return date2j(year, 1, 1) - POSTGRES_EPOCH_JDATE;
}

static Oid
default_partition(void)
{
	int count;
	LogPartition *parts = log_partitions(&count);
	Oid relid = InvalidOid;

	if (count > 0 && parts[count - 1].is_default)
		relid = parts[count - 1].relid;
	pfree(parts);
	return relid;
}

/*
 * The range that a day's partition should have, given those that there are.  False when the
 * day has a partition, or should be left to DEFAULT.
 */
static bool
range_for(int32 day, int32 *lower, int32 *upper)
{
	int count;
	LogPartition *parts = log_partitions(&count);
	int32 today = partition_today();
	int32 below = NO_LOWER;		/* where the gap around the day begins */
	int32 above = PG_INT32_MAX; /* and where it ends */
	bool taken = false;

	for (int i = 0; i < count && !parts[i].is_default; i++)
	{
		int32 first =
			TIMESTAMP_IS_NOBEGIN(parts[i].lower) ? NO_LOWER : partition_day_of(parts[i].lower);
		/*
		 * Rounded up: a range that somebody made by hand may end at any time of a day.  The
		 * rest of that day is left to DEFAULT.
		 */
		int32 end = TIMESTAMP_IS_NOEND(parts[i].upper) ? PG_INT32_MAX
													   : partition_day_of(parts[i].upper - 1) + 1;

		if (end <= day)
			below = Max(below, end);
		else if (first > day)
			above = Min(above, first);
		else
			taken = true;
	}
	pfree(parts);
	if (taken || day > today + LOG_DAYS_AHEAD_MAX)
		return false;

	if (day >= today - LOG_DAYS_KEPT)
	{
		*lower = day;
		*upper = day + 1;
	}
	else if (day < DAY_1970)
	{
		*lower = below;
		*upper = Min(DAY_1970, above);
	}
	else
	{
		int year;
		int month;
		int mday;

		j2date(day + POSTGRES_EPOCH_JDATE, &year, &month, &mday);
		*lower = Max(year_start(year), below);
		*upper = Min(Min(year_start(year + 1), today - LOG_DAYS_KEPT), above);
	}
	return true;
}

bool
partition_wanted(TimestampTz at)
{
	int32 lower;
	int32 upper;

	return range_for(partition_day_of(at), &lower, &upper);
}

/* A free name for the partition of a range: log_20240131, log_2019, log_20190101_20190410. */
static char *
partition_name(int32 lower, int32 upper)
{
	int year;
	int month;
	int mday;
	char *base;
	char *name;

	if (lower == NO_LOWER)
		base = pstrdup("log_before_1970");
	else
	{
		int end_year;
		int end_month;
		int end_mday;

		j2date(lower + POSTGRES_EPOCH_JDATE, &year, &month, &mday);
		j2date(upper - 1 + POSTGRES_EPOCH_JDATE, &end_year, &end_month, &end_mday);
		if (upper == lower + 1)
			base = psprintf("log_%04d%02d%02d", year, month, mday);
		else if (lower == year_start(year) && upper == year_start(year + 1))
			base = psprintf("log_%04d", year);
		else
			base = psprintf("log_%04d%02d%02d_%04d%02d%02d", year, month, mday, end_year, end_month,
							end_mday);
	}
	name = base;
	for (int i = 2; OidIsValid(get_relname_relid(name, behavior_schema_oid())); i++)
		name = psprintf("%s_%d", base, i);
	return name;
}

/* A bound as SQL. */
static char *
bound(int32 day)
{
	int year;
	int month;
	int mday;

	if (day == NO_LOWER)
		return pstrdup("MINVALUE");
	j2date(day + POSTGRES_EPOCH_JDATE, &year, &month, &mday);
	return psprintf("'%04d-%02d-%02d 00:00:00+00'", year, month, mday);
}

static void
run(int expected, const char *sql)
{
	int rc = SPI_execute(sql, false, 0);

	if (rc != expected)
		elog(ERROR, "\"%s\" returned %s", sql, SPI_result_code_string(rc));
}

/* Creates the table of a partition, with its BRIN index, not attached yet. */
static void
create_table(const char *name)
{
	const char *table = quote_identifier(name);
	char *tablespace = get_tablespace_name(get_rel_tablespace(behavior_relid(REL_LOG)));

	run(SPI_OK_UTILITY,
		psprintf("CREATE TABLE behavior.%s (LIKE behavior.log INCLUDING ALL EXCLUDING INDEXES"
				 " EXCLUDING STATISTICS EXCLUDING COMMENTS EXCLUDING IDENTITY) USING heap%s%s",
				 table, tablespace != NULL ? " TABLESPACE " : "",
				 tablespace != NULL ? quote_identifier(tablespace) : ""));
	run(SPI_OK_UTILITY, psprintf("REVOKE ALL ON behavior.%s FROM PUBLIC", table));
	/* One for both columns, which serves either as well: a range is read once to be summarised. */
	run(SPI_OK_UTILITY, psprintf("CREATE INDEX ON behavior.%s USING brin (batch_id, occurred_at)"
								 " WITH (pages_per_range = " PAGES_PER_RANGE ")",
								 table));
}

/* The DEFAULT partition.  Rows are moved out of it: publications want to know which. */
static void
make_default(void)
{
	char *name = pstrdup("log_default");
	const char *table;

	for (int i = 2; OidIsValid(get_relname_relid(name, behavior_schema_oid())); i++)
		name = psprintf("log_default_%d", i);
	table = quote_identifier(name);
	create_table(name);
	run(SPI_OK_UTILITY, psprintf("ALTER TABLE behavior.%s REPLICA IDENTITY FULL", table));
	run(SPI_OK_UTILITY,
		psprintf("ALTER TABLE behavior.log ATTACH PARTITION behavior.%s DEFAULT", table));
}

/* Is a row of the range in DEFAULT? */
static bool
default_holds(const char *default_name, int32 lower, int32 upper)
{
	run(SPI_OK_SELECT,
		psprintf("SELECT 1 FROM ONLY %s WHERE occurred_at >= %s AND occurred_at < %s LIMIT 1",
				 default_name, lower == NO_LOWER ? "'-infinity'" : bound(lower), bound(upper)));
	return SPI_processed > 0;
}

/*
 * Makes the partition that a day should have and moves the rows that DEFAULT holds of it, if
 * "move" says so.  False when there is nothing to make, or rows stand in the way.
 */
static bool
make_day(int32 day, bool move)
{
	int32 lower;
	int32 upper;
	Oid default_relid = default_partition();
	char *name;

	if (!range_for(day, &lower, &upper))
		return false;
	name = partition_name(lower, upper);

	if (OidIsValid(default_relid) && log_blocks(default_relid) > 0)
	{
		char *default_name = psprintf("behavior.%s", quote_identifier(get_rel_name(default_relid)));
		bool holds = default_holds(default_name, lower, upper);

		if (holds && !move)
			return false;
		create_table(name);
		if (holds)
			run(SPI_OK_INSERT,
				psprintf("WITH moved AS (DELETE FROM ONLY %s"
						 " WHERE occurred_at >= %s AND occurred_at < %s RETURNING *)"
						 " INSERT INTO behavior.%s SELECT * FROM moved",
						 default_name, lower == NO_LOWER ? "'-infinity'" : bound(lower),
						 bound(upper), quote_identifier(name)));
	}
	else
		create_table(name);

	run(SPI_OK_UTILITY,
		psprintf(
			"ALTER TABLE behavior.log ATTACH PARTITION behavior.%s FOR VALUES FROM (%s) TO (%s)",
			quote_identifier(name), bound(lower), bound(upper)));
	return true;
}

/* As the extension's owner, with settings that DDL listens to at their defaults. */
static void
begin_ddl(SecureContext *secure)
{
	secure_begin(secure, behavior_owner());
	(void) set_config_option("default_tablespace", "", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	(void) set_config_option("default_toast_compression", "pglz", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

static void
end_ddl(SecureContext *secure)
{
	SPI_finish();
	secure_end(secure);
}

/* Tries for a lock without queueing for it. */
static bool
lock_patiently(Oid relid, LOCKMODE mode, TimestampTz deadline)
{
	while (!ConditionalLockRelationOid(relid, mode))
	{
		if (GetCurrentTimestamp() >= deadline)
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, RETRY_LOCK_MS,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

bool
partition_lock(int patience)
{
	TimestampTz deadline = GetCurrentTimestamp() + (int64) patience * 1000;
	Oid parent = behavior_relid(REL_LOG);
	Oid relid;

	if (!lock_patiently(parent, ShareUpdateExclusiveLock, deadline))
		return false;
	relid = default_partition();
	if (OidIsValid(relid) && !lock_patiently(relid, AccessExclusiveLock, deadline))
	{
		UnlockRelationOid(parent, ShareUpdateExclusiveLock);
		return false;
	}
	return true;
}

void
partition_make(TimestampTz at, int days_ahead)
{
	SecureContext secure;
	int32 today = partition_today();

	begin_ddl(&secure);
	if (!OidIsValid(default_partition()))
		make_default();
	for (int32 day = today - 1; days_ahead >= 0 && day <= today + days_ahead; day++)
		(void) make_day(day, false);
	if (at != LOG_NO_TIME)
		(void) make_day(partition_day_of(at), false);
	end_ddl(&secure);
}

/* Are days ahead missing, and has anything come lately that makes them worth having? */
static bool
days_missing(int days_ahead)
{
	int32 today = partition_today();
	int count;
	LogPartition *parts = log_partitions(&count);
	bool missing = false;
	bool alive = false;

	for (int32 day = today - 1; day <= today + days_ahead && !missing; day++)
	{
		int32 lower;
		int32 upper;

		missing = range_for(day, &lower, &upper);
	}
	for (int i = count - 1; i >= 0 && missing && !alive; i--)
	{
		if (parts[i].is_default || partition_day_of(parts[i].upper - 1) >= today - 1)
			alive = log_blocks(parts[i].relid) > 0;
	}
	pfree(parts);
	return missing && alive;
}

/*
 * An idle database sees no writes: days are made ahead only where events have come
 * since yesterday.
 */
void
log_make_partitions_ahead(int days_ahead)
{
	days_ahead = Min(days_ahead, LOG_DAYS_AHEAD_MAX);
	if (!OidIsValid(default_partition()) || !days_missing(days_ahead))
		return;

	/*
	 * In somebody's transaction block (or a subtransaction: it cannot be told whose) the locks
	 * would last as long as that.  Where there is no worker to ask, log_empty_default() makes the
	 * days for which something came.
	 */
	if (IsTransactionBlock() && MyBgworkerEntry == NULL)
		(void) partition_request(LOG_NO_TIME, days_ahead);
	else if (partition_lock(AHEAD_PATIENCE))
		partition_make(LOG_NO_TIME, days_ahead);
}

/* Collects the days of rows. */
static void
note_day(TupleTableSlot *slot, void *arg)
{
	HTAB *days = (HTAB *) arg;
	bool isnull;
	int32 day = partition_day_of(DatumGetTimestampTz(slot_getattr(slot, LOG_OCCURRED_AT, &isnull)));

	(void) hash_search(days, &day, HASH_ENTER, NULL);
}

/* Keeps walks of the log from beginning until the transaction ends; false while there is one. */
static bool
keep_walks_away(void)
{
	Oid relid = behavior_relid(REL_LOG_WALK);
	Relation rel;
	TableScanDesc scan;
	Snapshot snapshot;
	bool walking;

	if (!ConditionalLockRelationOid(relid, ShareLock))
		return false;
	rel = table_open(relid, NoLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = table_beginscan(rel, snapshot, 0, NULL);
	walking = heap_getnext(scan, ForwardScanDirection) != NULL;
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	if (walking)
		UnlockRelationOid(relid, ShareLock);
	return !walking;
}

bool
log_empty_default(void)
{
	/* Looked at in vain: the same blocks need no second look for a while. */
	static Oid seen_relid = InvalidOid;
	static BlockNumber seen_blocks = 0;
	static TimestampTz seen_at = DT_NOBEGIN;

	Oid relid = default_partition();
	BlockNumber blocks = OidIsValid(relid) ? log_blocks(relid) : 0;
	int32 today = partition_today();
	HASHCTL ctl = {0};
	HTAB *days;
	HASH_SEQ_STATUS status;
	int32 *day;
	Snapshot snapshot;
	SecureContext secure;
	bool movable = false;

	if (blocks == 0 || (relid == seen_relid && blocks == seen_blocks &&
						GetCurrentTimestamp() - seen_at < LOOK_AGAIN_AFTER))
		return true;
	/* Rows are moved by what a new snapshot sees. */
	if (IsolationUsesXactSnapshot())
		return false;

	ctl.keysize = sizeof(int32);
	ctl.entrysize = sizeof(int32);
	ctl.hcxt = CurrentMemoryContext;
	days = hash_create("days of the default partition", 64, &ctl,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	(void) log_walk(relid, 0, blocks - 1, snapshot, note_day, days);
	UnregisterSnapshot(snapshot);
	hash_seq_init(&status, days);
	while ((day = (int32 *) hash_seq_search(&status)) != NULL)
		movable |= *day <= today + LOG_DAYS_AHEAD_MAX;
	if (!movable)
	{
		seen_relid = relid;
		seen_blocks = blocks;
		seen_at = GetCurrentTimestamp();
		hash_destroy(days);
		return true;
	}

	if (!keep_walks_away())
	{
		hash_destroy(days);
		return false;
	}
	if (!partition_lock(EMPTY_PATIENCE))
	{
		UnlockRelationOid(behavior_relid(REL_LOG_WALK), ShareLock);
		hash_destroy(days);
		return false;
	}
	begin_ddl(&secure);
	hash_seq_init(&status, days);
	while ((day = (int32 *) hash_seq_search(&status)) != NULL)
		(void) make_day(*day, true);
	end_ddl(&secure);
	hash_destroy(days);
	return true;
}

/*
 * Refuses statements that write to behavior.log, except COPY by those who own it: a restore
 * of a dump made with --load-via-partition-root.
 */
Datum
behavior__log_guard(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("behavior._log_guard() is a trigger function")));
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event) && ActivePortal != NULL &&
		ActivePortal->commandTag == CMDTAG_COPY)
		return PointerGetDatum(NULL);

	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("cannot write to \"%s\"", RelationGetRelationName(trigger->tg_relation)),
					errdetail("Events written here would have no batch and no idempotency key."),
					errhint("INSERT or COPY into behavior.event.")));
	return PointerGetDatum(NULL);
}

/* For tests: what a sender would be given. */
Datum
behavior__log_partition(PG_FUNCTION_ARGS)
{
	LogPartition part;

	log_partition_for(PG_GETARG_TIMESTAMPTZ(0), &part);
	PG_RETURN_TEXT_P(cstring_to_text(get_rel_name(part.relid)));
}

Datum
behavior__log_partitions_ahead(PG_FUNCTION_ARGS)
{
	log_make_partitions_ahead(PG_GETARG_INT32(0));
	PG_RETURN_VOID();
}

Datum
behavior__log_empty_default(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(log_empty_default());
}

Datum
behavior__log_restore_in_progress(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(log_restore_in_progress());
}

/*
 * session_build.c
 *		Rebuilds sessions beside their old state.
 *
 * behavior.rebuild('sessions') notes the settings of its caller ("next" in the projection's
 * settings) and sets the flag.  A build takes them ("building"), fixes a tick T, walks the log's
 * blocks and folds the events of ticks up to T into behavior._session_next; events of
 * these ticks do not move while there is a row in behavior._log_walk.  Then it folds the
 * ticks after T until it is where the projection is, and, holding the projection's
 * row, writes the rows that differ to behavior._session: no reader, whatever its
 * snapshot, sees anything but a plain update.  Ids that vanish become aliases of the
 * session that has taken their place, if there is one.
 *
 * One step a call; all that has been reached is in tables, so a step may be committed,
 * and another process may take the next one.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/lock.h"
#include "core/spi.h"
#include "fold/projection.h"
#include "fold/session.h"
#include "fold/tick.h"
#include "fold/tick_events.h"
#include "log/log_reader.h"
#include "log/log_row.h"
#include "log/partition.h"

#define BUILD_LOCK	 1	  /* number on behavior._projection: one step at a time */
#define STEP_BLOCKS	 4096 /* most of a walk's step */
#define STEP_EVENTS	 200000
#define RANGE_BLOCKS 256
#define WALK_OVER	 (-1) /* in next_block */

/* The row in behavior._log_walk. */
typedef struct Walk
{
	Oid relid; /* partition, InvalidOid before the first */
	Oid relfilenode;
	int64 next_block;
	int64 tick; /* the target while walking, then what has been folded */
	int64 done;
} Walk;

typedef struct Build
{
	bool rebuild;
	bool walking;  /* there is a row in behavior._log_walk */
	bool outdated; /* other settings have been asked for since */
	int64 progress;
	Walk walk;
	SessionSettings *settings;
	MemoryContext context; /* the step's */
} Build;

typedef struct WalkRows
{
	BatchSet *later; /* batches behind the target */
	SessionFolder *folder;
	int64 count;
} WalkRows;

static const char *const read_state =
	"SELECT p.rebuild, behavior._projection_tick_id(p.name), p.settings -> 'building',"
	" p.settings -> 'next' IS DISTINCT FROM p.settings -> 'building',"
	" w.projection IS NOT NULL, w.relid::oid, w.relfilenode, w.next_block, w.tick_id, w.done_events "
	"FROM behavior._projection p LEFT JOIN behavior._log_walk w ON w.projection = p.name "
	"WHERE p.name = 'sessions'";

/* Without "next" the flag was set by hand, or by an older version: the settings of now. */
static const char *const start_state =
	"UPDATE behavior._projection SET settings = settings || jsonb_build_object("
	"'next', coalesce(settings -> 'next', behavior._session_settings()), "
	"'building', coalesce(settings -> 'next', behavior._session_settings())) WHERE name = 'sessions'";

static const char *const start_walk =
	"INSERT INTO behavior._log_walk (projection, next_block, tick_id, done_events, total_events) "
	"SELECT 'sessions', 0, $1, 0, (SELECT sum(events) FROM behavior.tick WHERE tick_id <= $1) "
	"ON CONFLICT (projection) DO UPDATE SET relid = NULL, relfilenode = NULL, next_block = 0,"
	" tick_id = excluded.tick_id, done_events = 0, total_events = excluded.total_events";

static const char *const write_walk =
	"UPDATE behavior._log_walk SET relid = $1::regclass, relfilenode = $2, next_block = $3, tick_id = $4,"
	" done_events = $5 WHERE projection = 'sessions'";

static const char *const end_walk = "DELETE FROM behavior._log_walk WHERE projection = 'sessions'";

static const char *const lock_projection =
	"SELECT FROM behavior._projection WHERE name = 'sessions' FOR UPDATE";
static const char *const lock_projection_skipping =
	"SELECT FROM behavior._projection WHERE name = 'sessions' FOR UPDATE SKIP LOCKED";

/*
 * Ids that live again are no aliases any more; that comes first, or others would be led on
 * through them.  Ids that vanish lead to the first of the new sessions that share a stretch of
 * time with theirs, if there is one, and so do those that led to them.
 */
static const char *const hand_over[] = {
	"DELETE FROM behavior.session_alias a "
	"WHERE EXISTS (SELECT FROM behavior._session_next x WHERE x.session_id = a.session_id)",

	"INSERT INTO behavior.session_alias AS a (session_id, merged_into) "
	"SELECT DISTINCT ON (o.session_id) o.session_id, n.session_id "
	"FROM behavior._session o JOIN behavior._session_next n ON n.visitor_hash = o.visitor_hash"
	" AND n.source = o.source AND n.visitor = o.visitor"
	" AND n.started_at <= o.ended_at AND n.ended_at >= o.started_at "
	"WHERE NOT EXISTS (SELECT FROM behavior._session_next x WHERE x.session_id = o.session_id) "
	"ORDER BY o.session_id, n.started_at "
	"ON CONFLICT (session_id) DO UPDATE SET merged_into = excluded.merged_into",

	"UPDATE behavior.session_alias a SET merged_into = d.merged_into "
	"FROM behavior.session_alias d WHERE d.session_id = a.merged_into",

	"DELETE FROM behavior.session_alias a "
	"WHERE NOT EXISTS (SELECT FROM behavior._session_next x WHERE x.session_id = a.merged_into)",

	"DELETE FROM behavior._session o WHERE NOT EXISTS (SELECT FROM behavior._session_next n "
	"WHERE n.session_id = o.session_id AND n.started_at = o.started_at AND n IS NOT DISTINCT FROM o)",

	"INSERT INTO behavior._session SELECT n.* FROM behavior._session_next n "
	"WHERE NOT EXISTS (SELECT FROM behavior._session o"
	" WHERE o.session_id = n.session_id AND o.started_at = n.started_at)",
};
static const int hand_over_results[] = {SPI_OK_DELETE, SPI_OK_INSERT, SPI_OK_UPDATE,
										SPI_OK_DELETE, SPI_OK_DELETE, SPI_OK_INSERT};

static const char *const finish_state =
	"UPDATE behavior._projection SET rebuild = false, state = 'current', attempts = 0,"
	" error = NULL, failed_at = NULL, settings = settings -> 'building' WHERE name = 'sessions'";

/* Runs a statement as the extension's owner. */
static uint64
run(const char *sql, int expected, int nargs, const Oid *types, const Datum *values,
	const char *nulls)
{
	SecureContext secure;
	uint64 processed;

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	processed = spi_exec(sql, expected, false, nargs, types, values, nulls);
	secure_end(&secure);
	SPI_finish();
	return processed;
}

/* Where the build is.  False when there are no sessions yet. */
static bool
read_build(Build *build)
{
	SecureContext secure;
	bool found;

	memset(&build->walk, 0, sizeof(Walk));
	SPI_connect();
	secure_begin(&secure, behavior_owner());
	found = spi_exec(read_state, SPI_OK_SELECT, false, 0, NULL, NULL, NULL) > 0;
	if (found)
	{
		Datum values[10];
		bool nulls[10];

		for (int i = 0; i < 10; i++)
		{
			values[i] =
				SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1, &nulls[i]);
			if (nulls[i])
				values[i] = (Datum) 0;
		}
		build->rebuild = DatumGetBool(values[0]);
		build->progress = DatumGetInt64(values[1]);
		build->outdated = nulls[2] || DatumGetBool(values[3]);
		build->walking = DatumGetBool(values[4]);
		if (!nulls[2])
		{
			MemoryContext spi_context = MemoryContextSwitchTo(build->context);

			build->settings = session_settings(DatumGetJsonbPCopy(values[2]));
			MemoryContextSwitchTo(spi_context);
		}
		if (build->walking)
		{
			build->walk.relid = DatumGetObjectId(values[5]);
			build->walk.relfilenode = DatumGetObjectId(values[6]);
			build->walk.next_block = DatumGetInt64(values[7]);
			build->walk.tick = DatumGetInt64(values[8]);
			build->walk.done = DatumGetInt64(values[9]);
		}
	}
	secure_end(&secure);
	SPI_finish();
	return found;
}

static void
save_walk(const Walk *walk)
{
	Oid types[] = {OIDOID, OIDOID, INT8OID, INT8OID, INT8OID};
	Datum values[] = {ObjectIdGetDatum(walk->relid), ObjectIdGetDatum(walk->relfilenode),
					  Int64GetDatum(walk->next_block), Int64GetDatum(walk->tick),
					  Int64GetDatum(walk->done)};

	run(write_walk, SPI_OK_UPDATE, 5, types, values, OidIsValid(walk->relid) ? NULL : "nn   ");
}

/* Empties behavior._session_next, which only builds read: by TRUNCATE where that has to wait for
 * nobody. */
static void
empty_next(void)
{
	if (ConditionalLockRelationOid(behavior_relid(REL_SESSION_NEXT), AccessExclusiveLock))
		run("TRUNCATE behavior._session_next", SPI_OK_UTILITY, 0, NULL, NULL, NULL);
	else
		run("DELETE FROM behavior._session_next", SPI_OK_DELETE, 0, NULL, NULL, NULL);
}

/*
 * Starts a build, or starts it anew.  Rows of the log move no more once the walk's row is
 * committed, or while its lock is held; the next step takes a snapshot after that.
 */
static void
start_build(void)
{
	Oid types[] = {INT8OID};
	Datum values[1];

	empty_next();
	run(start_state, SPI_OK_UPDATE, 0, NULL, NULL, NULL);
	values[0] = Int64GetDatum(tick_last(GetLatestSnapshot()));
	run(start_walk, SPI_OK_INSERT, 1, types, values, NULL);
}

/* LogRowCallback */
static void
walk_row(TupleTableSlot *slot, void *arg)
{
	WalkRows *rows = arg;
	bool isnull;

	if (batch_set_contains(rows->later, DatumGetInt64(slot_getattr(slot, LOG_BATCH_ID, &isnull))))
		return;
	session_folder_add(slot, rows->folder);
	rows->count++;
}

/* Walks some blocks; false when the cursor no longer fits the partitions. */
static bool
walk_step(const SessionSettings *settings, Walk *walk)
{
	LogPartition *partitions;
	Snapshot snapshot;
	WalkRows rows = {0};
	int64 blocks = 0;
	int count;
	int i = 0;

	partitions = log_partitions(&count);
	if (OidIsValid(walk->relid))
	{
		while (i < count && partitions[i].relid != walk->relid)
			i++;
		if (i == count || (walk->next_block > 0 && log_filenode(walk->relid) != walk->relfilenode))
			return false;
	}

	snapshot = RegisterSnapshot(GetLatestSnapshot());
	PushActiveSnapshot(snapshot);
	rows.later = tick_batches(snapshot, walk->tick, TICK_ALL);
	rows.folder = session_folder_begin(settings, true);
	while (i < count && blocks < STEP_BLOCKS && rows.count < STEP_EVENTS)
	{
		BlockNumber end = log_blocks(partitions[i].relid);
		BlockNumber last;

		CHECK_FOR_INTERRUPTS();
		if (walk->next_block >= end)
		{
			i++;
			walk->next_block = 0;
			continue;
		}
		last = (BlockNumber) Min((int64) end, walk->next_block + RANGE_BLOCKS) - 1;
		(void) log_walk(partitions[i].relid, (BlockNumber) walk->next_block, last, snapshot,
						walk_row, &rows);
		blocks += last - walk->next_block + 1;
		walk->next_block = (int64) last + 1;
	}
	if (i == count)
		walk->next_block = WALK_OVER;
	else
	{
		walk->relid = partitions[i].relid;
		walk->relfilenode = log_filenode(walk->relid);
	}
	session_folder_end(rows.folder);
	walk->done += rows.count;
	PopActiveSnapshot();
	UnregisterSnapshot(snapshot);
	return true;
}

/* TickEventsCallback */
static void
catch_up_events(const TickEvents *events, void *arg)
{
	session_fold_into(arg, true, events);
	CommandCounterIncrement();
}

/* Folds the ticks behind the walk's, up to "tick" or a chunk's worth of them. */
static void
catch_up_step(SessionSettings *settings, Walk *walk, int64 tick)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	int64 upto = projection_choose_ticks(walk->tick, tick);

	PushActiveSnapshot(snapshot);
	tick_events_each(walk->tick, upto, snapshot, catch_up_events, settings);
	PopActiveSnapshot();
	UnregisterSnapshot(snapshot);
	walk->tick = upto;
}

/* Hands what has been built over to readers.  False when the projection is being folded by somebody
 * else. */
static bool
finish_build(Build *build)
{
	bool skip = MyBackendType == B_BG_WORKER;

	if (run(skip ? lock_projection_skipping : lock_projection, SPI_OK_SELECT, 0, NULL, NULL,
			NULL) == 0)
		return false;
	/* Settled now: nobody else folds until this transaction ends. */
	if (!read_build(build) || build->outdated)
		return true;
	while (build->walk.tick < build->progress)
	{
		CHECK_FOR_INTERRUPTS();
		catch_up_step(build->settings, &build->walk, build->progress);
	}

	for (int i = 0; i < lengthof(hand_over); i++)
		run(hand_over[i], hand_over_results[i], 0, NULL, NULL, NULL);
	projection_advance("sessions", build->walk.tick);
	run(finish_state, SPI_OK_UPDATE, 0, NULL, NULL, NULL);
	run(end_walk, SPI_OK_DELETE, 0, NULL, NULL, NULL);
	empty_next();
	return true;
}

static bool
build_step(Build *build)
{
	if (!read_build(build))
		return false;
	if (!build->rebuild)
	{
		/* Taken back by hand. */
		if (build->walking)
			run(end_walk, SPI_OK_DELETE, 0, NULL, NULL, NULL);
		return false;
	}
	if (!build->walking || build->outdated)
	{
		start_build();
		return true;
	}
	if (build->walk.next_block != WALK_OVER)
	{
		if (walk_step(build->settings, &build->walk))
			save_walk(&build->walk);
		else
			start_build();
		return true;
	}
	if (build->walk.tick < build->progress)
	{
		catch_up_step(build->settings, &build->walk, build->progress);
		save_walk(&build->walk);
		return true;
	}
	/* More to do when other settings were asked for meanwhile. */
	return finish_build(build) && build->outdated;
}

/*
 * One step of the rebuild of sessions, if one is due.  Background workers skip what another
 * process is doing, others wait for it.
 */
bool
session_build_step(void)
{
	Oid relid = behavior_relid(REL_PROJECTION);
	Build build = {0};
	MemoryContext old_context;
	bool more;

	if (MyBackendType != B_BG_WORKER)
		behavior_lock(relid, BUILD_LOCK, ExclusiveLock);
	else if (!behavior_lock_conditional(relid, BUILD_LOCK, ExclusiveLock))
		return false;

	build.context = AllocSetContextCreate(CurTransactionContext, "behavior session build",
										  ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(build.context);
	more = build_step(&build);
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(build.context);
	return more;
}

/*
 * maintenance.c
 *		The maintenance worker: refreshes, builds, and the chores of keys, batches and partitions.
 *
 * It is started by the database's worker when there is work, does one job after the other, and
 * leaves when there has been nothing to do for a while.  Jobs come from three queues in turn, so
 * that none starves another: refreshes that are due, steps of builds, chores.  A build and the
 * packing of keys go on in steps of about a second each in a transaction of its own, so with one
 * worker the others run in between.
 *
 * Two of them, or one and CALL behavior.tick(), never do the same job: each takes a lock of ours
 * on the job and passes by one that is taken.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/guc.h"
#include "core/lock.h"
#include "core/spi.h"
#include "core/transaction.h"
#include "fold/matview.h"
#include "fold/projection.h"
#include "worker/chores.h"
#include "worker/maintenance.h"
#include "worker/worker.h"

#define LOOK_INTERVAL_MS 1000
#define LINGER_MS		 10000 /* without work before it leaves */
#define FAILED_PAUSE_MS	 1000
#define CHORE_RETRY_MS	 10000 /* of one that failed or could not get its locks */

/* What this process has been asked to do, and not before when. */
static struct
{
	bool wanted;
	TimestampTz not_before;
} chores[CHORE_COUNT];

#define LOCK_BUILD_FIRST 1024 /* numbers on behavior._projection from here on */
#define LOCK_BUILDS		 32768

/* A build that failed waits 1, 2, 4 ... 256 s. */
#define BUILD_DUE_SQL                                                                              \
	"(rebuild OR state = 'backfilling') AND (failed_at IS NULL OR attempts = 0 OR"                 \
	" failed_at + pg_catalog.make_interval(secs => pg_catalog.power(2, least(attempts - 1, 8)))"   \
	" <= pg_catalog.clock_timestamp())"

static int next_queue = 0;
static char last_build[NAMEDATALEN];

/* Builds are locked by a hash of the name on behavior._projection. */
static bool
lock_build(const char *name)
{
	uint32 hash = string_hash(name, strlen(name) + 1);

	return behavior_lock_conditional(behavior_relid(REL_PROJECTION),
									 LOCK_BUILD_FIRST + hash % LOCK_BUILDS, ExclusiveLock);
}

/* A step of the build of a projection; false when it is done. */
static bool
projection_build_step(const char *name)
{
	return strcmp(name, "sessions") == 0 ? session_build_step() : rollup_build_step(name);
}

static void
begin_job(const char *activity)
{
	start_transaction();
	if (activity != NULL)
		pgstat_report_activity(STATE_RUNNING, activity);
}

/* Refreshes the view that has waited longest.  False when none is due. */
static bool
run_refresh(void)
{
	MemoryContext context = CurrentMemoryContext;
	List *due;
	ListCell *cell;

	begin_job(NULL);
	MemoryContextSwitchTo(context);
	due = matview_due();
	finish_transaction();

	foreach (cell, due)
	{
		Oid matview = lfirst_oid(cell);
		char *volatile error = NULL;
		bool begun;

		begin_job("refreshing a materialized view");
		begun = matview_refresh_begin(matview);
		finish_transaction();
		if (!begun)
			continue;

		PG_TRY();
		{
			begin_job(NULL);
			(void) matview_refresh_run(matview);
			finish_transaction();
		}
		PG_CATCH();
		{
			error = process_abandon_job(context);
		}
		PG_END_TRY();
		MemoryContextSwitchTo(context);

		if (error != NULL)
		{
			begin_job(NULL);
			matview_refresh_failed(matview, error);
			finish_transaction();
		}
		return true;
	}
	return false;
}

/* Names of projections to be built, those after the last one first, in the current context. */
static List *
list_builds(void)
{
	MemoryContext context = CurrentMemoryContext;
	Oid types[] = {TEXTOID};
	Datum values[] = {CStringGetTextDatum(last_build)};
	SecureContext secure;
	List *names = NIL;

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	(void) spi_exec("SELECT name FROM behavior._projection"
					" WHERE " BUILD_DUE_SQL
					" ORDER BY name COLLATE \"C\" <= $1 COLLATE \"C\", name COLLATE \"C\"",
					SPI_OK_SELECT, true, 1, types, values, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old_context = MemoryContextSwitchTo(context);

		names = lappend(names, SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
		MemoryContextSwitchTo(old_context);
	}
	secure_end(&secure);
	SPI_finish();
	return names;
}

/* Notes that a step of a build failed; it is tried again later and later. */
static void
build_failed(const char *name, const char *message)
{
	Oid types[] = {TEXTOID, TEXTOID};
	Datum values[] = {CStringGetTextDatum(name), CStringGetTextDatum(message)};
	SecureContext secure;

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	(void) spi_exec("UPDATE behavior._projection SET attempts = attempts + 1,"
					" failed_at = pg_catalog.clock_timestamp(), error = $2 WHERE name = $1",
					SPI_OK_UPDATE, false, 2, types, values, NULL);
	secure_end(&secure);
	SPI_finish();
}

/* One step of one build.  False when there is none to do, or none that can be done now: whoever
 * holds one up must not make us try without a pause. */
static bool
run_build(void)
{
	MemoryContext context = CurrentMemoryContext;
	List *names;
	ListCell *cell;

	begin_job(NULL);
	MemoryContextSwitchTo(context);
	names = list_builds();
	finish_transaction();

	foreach (cell, names)
	{
		const char *name = lfirst(cell);
		char *volatile error = NULL;
		volatile bool more = false;

		PG_TRY();
		{
			begin_job("building a projection");
			if (lock_build(name))
				more = projection_build_step(name);
			finish_transaction();
		}
		PG_CATCH();
		{
			error = process_abandon_job(context);
		}
		PG_END_TRY();
		MemoryContextSwitchTo(context);

		if (error != NULL)
		{
			begin_job(NULL);
			build_failed(name, error);
			finish_transaction();
		}
		if (more || error != NULL)
		{
			strlcpy(last_build, name, sizeof(last_build));
			return true;
		}
	}
	return false;
}

/* One step of one chore.  False when there is none to do. */
static bool
run_chore(void)
{
	MemoryContext context = CurrentMemoryContext;
	TimestampTz now = GetCurrentTimestamp();

	if (worker_take_chores(MyDatabaseId))
	{
		for (int i = 0; i < CHORE_COUNT; i++)
			chores[i].wanted = true;
	}

	for (int i = 0; i < CHORE_COUNT; i++)
	{
		volatile ChoreResult result = CHORE_BUSY;

		if (!chores[i].wanted || chores[i].not_before > now)
			continue;

		PG_TRY();
		{
			begin_job(chore_activity(i));
			result = chore_step(i);
			finish_transaction();
		}
		PG_CATCH();
		{
			(void) process_abandon_job(context);
		}
		PG_END_TRY();
		MemoryContextSwitchTo(context);

		chores[i].wanted = result != CHORE_DONE;
		chores[i].not_before =
			result == CHORE_BUSY
				? TimestampTzPlusMilliseconds(GetCurrentTimestamp(), CHORE_RETRY_MS)
				: 0;
		return true;
	}
	return false;
}

/* One job, from the queue whose turn it is. */
static void
maintenance_turn(void *arg)
{
	static bool (*const queues[])(void) = {run_refresh, run_build, run_chore};
	bool *worked = arg;

	for (int i = 0; i < lengthof(queues) && !*worked; i++)
	{
		*worked = queues[next_queue]();
		next_queue = (next_queue + 1) % lengthof(queues);
	}
}

void
behavior_maintenance_main(Datum arg)
{
	TimestampTz last_work = GetCurrentTimestamp();

	process_start(DatumGetObjectId(arg), MAINTENANCE_TYPE);
	worker_set_serving();

	for (;;)
	{
		bool worked = false;
		TurnResult result = process_turn(maintenance_turn, &worked, "looking for work");

		if (result == TURN_GONE || behavior_maintenance_workers == 0)
			process_leave(OUTCOME_STOPPED);
		if (worked)
			last_work = GetCurrentTimestamp();
		else if (TimestampDifferenceExceeds(last_work, GetCurrentTimestamp(), LINGER_MS))
			process_leave(OUTCOME_STOPPED);
		if (!process_wait(worked && result == TURN_DONE ? 0
						  : result == TURN_DONE			? LOOK_INTERVAL_MS
														: FAILED_PAUSE_MS))
			process_leave(OUTCOME_STOPPED);
	}
}

bool
maintenance_pending(void)
{
	SecureContext secure;
	bool pending;

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	pending = spi_exec("SELECT 1 FROM behavior._projection WHERE " BUILD_DUE_SQL " LIMIT 1",
					   SPI_OK_SELECT, true, 0, NULL, NULL, NULL) > 0;
	secure_end(&secure);
	SPI_finish();
	return pending || matview_any_due();
}

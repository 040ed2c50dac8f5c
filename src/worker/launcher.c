/*
 * launcher.c
 *		Starts a worker for every database that has the extension.
 *
 * A static background worker connected to no database: it can read pg_database, but not
 * whether a database has the extension.  So it probes: it starts a worker
 * in each database once, and one that finds no extension goes away and says so.
 * After that it looks at a database again only when it is poked (CREATE EXTENSION, hooks.c).
 *
 * What it knows of a database is kept here (Database); which processes there are
 * stands in shared memory, so that a launcher that was killed finds them again.
 * It exits with 1 on every way out: that is what makes the postmaster restart it.
 */
#include "postgres.h"

#include <signal.h>

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "core/compat.h"
#include "core/guc.h"
#include "worker/worker.h"

#define RESTART_SECONDS	  3
#define LIST_INTERVAL_MS  10000 /* between two looks at pg_database without a poke */
#define MAX_PROBES		  4		/* workers that are starting at the same time */
#define PROBE_PATIENCE_MS 5000	/* one that takes longer to start does not count */
#define CLAIM_TIMEOUT_MS  30000 /* a process that has not come by then never will */
#define BACKOFF_FIRST_MS  1000
#define BACKOFF_LAST_MS	  60000
#define HEALTHY_MS		  60000 /* a worker that lived that long had no failure before */

typedef struct Database
{
	Oid dboid; /* hash key */
	char name[NAMEDATALEN];
	bool listed;			/* seen by the last look at pg_database */
	bool absent;			/* probed: no extension */
	bool poked;				/* since its worker was last started */
	int failures;			/* in a row */
	TimestampTz next_start; /* not before */
	WorkerTicket ticket;
	BackgroundWorkerHandle *handle; /* of the last one started, NULL when it has been seen to end */
} Database;

static HTAB *databases = NULL;
static bool warned_slots = false;

static void
forget_launcher(int code, Datum arg)
{
	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	if (worker_shared->launcher_pid == MyProcPid)
	{
		worker_shared->launcher_pid = 0;
		worker_shared->launcher_latch = NULL;
	}
	LWLockRelease(worker_shared->lock);
}

/* Reads pg_database: what can be connected to. */
static void
list_databases(void)
{
	HASH_SEQ_STATUS status;
	Database *database;
	Relation rel;
	TableScanDesc scan;
	HeapTuple tuple;

	hash_seq_init(&status, databases);
	while ((database = hash_seq_search(&status)) != NULL)
		database->listed = false;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		bool found;

		if (!form->datallowconn || form->datconnlimit < -1)
			continue;
		database = hash_search(databases, &form->oid, HASH_ENTER, &found);
		if (!found)
		{
			memset((char *) database + sizeof(Oid), 0, sizeof(Database) - sizeof(Oid));
			database->dboid = form->oid;
		}
		strlcpy(database->name, NameStr(form->datname), NAMEDATALEN);
		database->listed = true;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();

	hash_seq_init(&status, databases);
	while ((database = hash_seq_search(&status)) != NULL)
	{
		if (!database->listed && database->handle == NULL)
			(void) hash_search(databases, &database->dboid, HASH_REMOVE, NULL);
	}
}

/* Reads the list when it is time or somebody said so, and notes who was poked. */
static void
take_pokes(bool time_to_list)
{
	Oid pokes[MAX_POKES];
	int npokes;
	bool all;
	bool list;

	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	npokes = worker_shared->npokes;
	memcpy(pokes, worker_shared->pokes, npokes * sizeof(Oid));
	all = worker_shared->poke_all;
	list = worker_shared->poke_list;
	worker_shared->npokes = 0;
	worker_shared->poke_all = false;
	worker_shared->poke_list = false;
	LWLockRelease(worker_shared->lock);

	if (list || time_to_list)
		list_databases();

	for (int i = 0; i < npokes; i++)
	{
		Database *database = hash_search(databases, &pokes[i], HASH_FIND, NULL);

		if (database != NULL)
			database->poked = true;
	}
	if (all)
	{
		HASH_SEQ_STATUS status;
		Database *database;

		hash_seq_init(&status, databases);
		while ((database = hash_seq_search(&status)) != NULL)
			database->poked = true;
	}
}

/* Is the database one of behavior.databases? */
static bool
is_chosen(const Database *database, const List *chosen)
{
	ListCell *cell;

	foreach (cell, chosen)
	{
		const char *name = lfirst(cell);

		if (strcmp(name, "*") == 0 || strcmp(name, database->name) == 0)
			return true;
	}
	return false;
}

/* What came of a worker that has ended. */
static void
note_end(Database *database, WorkerOutcome outcome, bool lived_long)
{
	TimestampTz now = GetCurrentTimestamp();

	if (lived_long)
		database->failures = 0;
	switch (outcome)
	{
		case OUTCOME_NO_EXTENSION:
			database->absent = true;
			database->failures = 0;
			database->next_start = now;
			break;
		case OUTCOME_STOPPED:
			database->failures = 0;
			database->next_start = now;
			break;
		case OUTCOME_FAILED:
		{
			int delay = BACKOFF_FIRST_MS << Min(database->failures, 6);

			database->failures++;
			database->next_start = TimestampTzPlusMilliseconds(now, Min(delay, BACKOFF_LAST_MS));
			break;
		}
	}
}

/* Frees the entries of what has ended, or never came. */
static void
reap(void)
{
	HASH_SEQ_STATUS status;
	Database *database;
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < worker_shared->nentries; i++)
	{
		WorkerEntry *entry = &worker_shared->entries[i];
		WorkerEntry copy;
		bool ended = false;

		LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
		copy = *entry;
		if (entry->state == WORKER_ENDED)
		{
			entry->state = WORKER_FREE;
			ended = true;
		}
		else if (entry->state == WORKER_CLAIMED &&
				 TimestampDifferenceExceeds(entry->since, now, CLAIM_TIMEOUT_MS))
			entry->state = WORKER_FREE;
		LWLockRelease(worker_shared->lock);

		if (ended)
		{
			database = hash_search(databases, &copy.dboid, HASH_FIND, NULL);
			if (database != NULL)
				note_end(database, copy.outcome,
						 TimestampDifferenceExceeds(copy.claimed_at, copy.since, HEALTHY_MS));
		}
	}

	/* The handle tells of one that the postmaster could not start, or that never attached. */
	hash_seq_init(&status, databases);
	while ((database = hash_seq_search(&status)) != NULL)
	{
		pid_t pid;

		if (database->handle == NULL ||
			GetBackgroundWorkerPid(database->handle, &pid) != BGWH_STOPPED)
			continue;
		pfree(database->handle);
		database->handle = NULL;
		if (worker_unclaim(&database->ticket))
			note_end(database, OUTCOME_FAILED, false);
	}
}

/* Ends the processes of databases that are not to have any. */
static void
stop_unwanted(const List *chosen)
{
	for (int i = 0; i < worker_shared->nentries; i++)
	{
		WorkerEntry *entry = &worker_shared->entries[i];
		Database *database;
		Oid dboid;
		pid_t pid;

		LWLockAcquire(worker_shared->lock, LW_SHARED);
		dboid = entry->dboid;
		pid = entry->pid;
		LWLockRelease(worker_shared->lock);
		if (pid == 0)
			continue;

		database = hash_search(databases, &dboid, HASH_FIND, NULL);
		if (!behavior_worker || (database != NULL && !is_chosen(database, chosen)))
			kill(pid, SIGTERM);
	}
}

/* How many are starting, of those that do so in reasonable time? */
static int
count_probes(void)
{
	TimestampTz now = GetCurrentTimestamp();
	int count = 0;

	LWLockAcquire(worker_shared->lock, LW_SHARED);
	for (int i = 0; i < worker_shared->nentries; i++)
	{
		const WorkerEntry *entry = &worker_shared->entries[i];

		if (entry->kind == WORKER_DATABASE &&
			(entry->state == WORKER_CLAIMED || entry->state == WORKER_ATTACHED) &&
			!TimestampDifferenceExceeds(entry->since, now, PROBE_PATIENCE_MS))
			count++;
	}
	LWLockRelease(worker_shared->lock);
	return count;
}

/* Starts what is to run and does not; returns how long to wait until the next try, in ms. */
static long
start_wanted(const List *chosen)
{
	HASH_SEQ_STATUS status;
	Database *database;
	TimestampTz now = GetCurrentTimestamp();
	long wait = LIST_INTERVAL_MS;
	int probes = count_probes();
	bool exhausted = false;

	if (!behavior_worker)
		return wait;

	hash_seq_init(&status, databases);
	while ((database = hash_seq_search(&status)) != NULL)
	{
		MemoryContext old_context;

		if (!database->listed || !is_chosen(database, chosen))
			continue;
		if (database->absent && !database->poked)
			continue;
		if (database->handle != NULL || worker_count(WORKER_DATABASE, database->dboid) > 0)
			continue;
		if (worker_held(database->dboid))
			continue;
		if (!database->poked && database->next_start > now)
		{
			wait = Min(wait, TimestampDifferenceMilliseconds(now, database->next_start) + 1);
			continue;
		}
		if (exhausted || probes >= MAX_PROBES)
		{
			wait = Min(wait, BACKOFF_FIRST_MS);
			continue;
		}

		old_context = MemoryContextSwitchTo(TopMemoryContext);
		if (worker_register(WORKER_DATABASE, database->dboid, "behavior_worker_main", WORKER_TYPE,
							0, &database->ticket, &database->handle))
		{
			probes++;
			database->poked = false;
			database->absent = false;
			warned_slots = false;
		}
		else
		{
			exhausted = true;
			database->handle = NULL;
			wait = Min(wait, BACKOFF_FIRST_MS);
			if (!warned_slots)
				ereport(
					WARNING,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("could not start the behavior worker of database \"%s\"",
							database->name),
					 errdetail(
						 "All %d background worker slots are in use; until one is free nothing is folded there.",
						 max_worker_processes),
					 errhint("Increase max_worker_processes, or call behavior.tick() regularly.")));
			warned_slots = true;
		}
		MemoryContextSwitchTo(old_context);
	}
	return wait;
}

/* The names in behavior.databases, in the current context. */
static List *
chosen_databases(void)
{
	List *names = NIL;

	if (!SplitGUCList(pstrdup(behavior_databases), ',', &names))
		elog(ERROR, "setting behavior.databases is not a list");
	return names;
}

void
behavior_launcher_main(Datum arg)
{
	MemoryContext loop_context;
	HASHCTL ctl = {0};
	TimestampTz next_list = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();

	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	worker_shared->launcher_pid = MyProcPid;
	worker_shared->launcher_latch = MyLatch;
	LWLockRelease(worker_shared->lock);
	before_shmem_exit(forget_launcher, (Datum) 0);

	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	SetConfigOption("application_name", LAUNCHER_TYPE, PGC_USERSET, PGC_S_OVERRIDE);

	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(Database);
	ctl.hcxt = TopMemoryContext;
	databases = hash_create("behavior databases", 32, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	loop_context =
		AllocSetContextCreate(TopMemoryContext, "behavior launcher loop", ALLOCSET_DEFAULT_SIZES);

	while (!ShutdownRequestPending)
	{
		List *chosen;
		TimestampTz now = GetCurrentTimestamp();
		long wait;

		MemoryContextSwitchTo(loop_context);
		take_pokes(now >= next_list);
		if (now >= next_list)
			next_list = TimestampTzPlusMilliseconds(now, LIST_INTERVAL_MS);
		MemoryContextSwitchTo(loop_context);
		chosen = chosen_databases();
		reap();
		stop_unwanted(chosen);
		wait = start_wanted(chosen);
		MemoryContextSwitchTo(TopMemoryContext);
		MemoryContextReset(loop_context);

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, wait,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		QueryCancelPending = false;
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
	proc_exit(1);
}

void
worker_install(void)
{
	BackgroundWorker worker;

	worker_shared_install();
	worker_hooks_install();

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = RESTART_SECONDS;
	strlcpy(worker.bgw_library_name, "behavior", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "behavior_launcher_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, LAUNCHER_TYPE, sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, LAUNCHER_TYPE, sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}

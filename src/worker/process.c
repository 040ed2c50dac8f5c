/*
 * process.c
 *		What the background processes of a database have in common.
 *
 * A process lives from turn to turn: WaitLatch, ResetLatch, CHECK_FOR_INTERRUPTS, reload, one
 * turn of short transactions.  Between turns nothing is open: no transaction, no
 * snapshot, no lock.
 *
 * During a turn the process has a session lock on the extension, so that DROP EXTENSION
 * and ALTER EXTENSION wait for its end; when one of those is under way the
 * turn is skipped rather than waited for.  An error aborts the transaction and with
 * it that lock, so the extension can go in the middle of a turn: the error which follows
 * is not worth a line in the log.
 *
 * SIGTERM: between turns the process leaves with exit code 0 and without a word, in
 * a turn it is die(), which interrupts whatever runs.
 */
#include "postgres.h"

#include <signal.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "log/partition.h"
#include "worker/worker.h"

static volatile sig_atomic_t stop_requested = false;
static volatile sig_atomic_t in_turn = false;
static MemoryContext turn_context = NULL;

/* Said once an episode, not once a turn. */
static bool warned_version = false;
static bool warned_restore = false;

/* Whatever ALTER DATABASE and ALTER ROLE say. */
static const char *const pinned[][2] = {
	{"role", "none"},
	{"search_path", "pg_catalog, pg_temp"},
	{"session_replication_role", "origin"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"default_table_access_method", "heap"},
	{"default_tablespace", ""},
	{"statement_timeout", "0"},
	{"lock_timeout", "0"},
	{"idle_in_transaction_session_timeout", "0"},
	{"idle_session_timeout", "0"},
#ifdef HAVE_TRANSACTION_TIMEOUT
	{"transaction_timeout", "0"},
#endif
	{"row_security", "on"},
	{"jit", "off"}, /* short statements, run over and over */
};

static void
handle_sigterm(SIGNAL_ARGS)
{
	int save_errno = errno;

	stop_requested = true;
	if (in_turn)
		die(postgres_signal_arg);
	else
		SetLatch(MyLatch);
	errno = save_errno;
}

bool
process_stop_requested(void)
{
	return stop_requested;
}

void
process_leave(WorkerOutcome outcome)
{
	worker_set_outcome(outcome);
	proc_exit(0);
}

void
process_start(Oid dboid, const char *application_name)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, handle_sigterm);
	if (!worker_attach())
		proc_exit(0);

	/* Whoever stops us while we connect must not wait until we have. */
	in_turn = true;
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(dboid, InvalidOid, 0);
	in_turn = false;

	for (int i = 0; i < lengthof(pinned); i++)
		SetConfigOption(pinned[i][0], pinned[i][1], PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("application_name", application_name, PGC_USERSET, PGC_S_OVERRIDE);

	turn_context = AllocSetContextCreate(TopMemoryContext, "behavior turn", ALLOCSET_DEFAULT_SIZES);
}

bool
process_wait(long timeout)
{
	pgstat_report_activity(STATE_IDLE, NULL);
	if (!stop_requested)
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, Max(timeout, 0L),
						 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);

	/* Nothing runs that could be cancelled. */
	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	return !stop_requested;
}

/* The installed extension: its oid, or InvalidOid, and its version. */
static Oid
find_extension(char **version)
{
	Relation rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;
	Oid result = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("behavior"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool isnull;
		Datum value =
			heap_getattr(tuple, Anum_pg_extension_extversion, RelationGetDescr(rel), &isnull);

		result = ((Form_pg_extension) GETSTRUCT(tuple))->oid;
		if (version != NULL && !isnull)
			*version = TextDatumGetCString(value);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

bool
process_extension_there(void)
{
	MemoryContext context = CurrentMemoryContext;
	bool there;

	StartTransactionCommand();
	there = OidIsValid(find_extension(NULL));
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return there;
}

/* Takes the session lock and looks whether there is something to work with. */
static TurnResult
open_turn(void)
{
	Oid extension;
	char *version = NULL;
	LOCKTAG tag;
	TurnResult result = TURN_DONE;

	StartTransactionCommand();
	extension = find_extension(NULL);
	if (!OidIsValid(extension))
		result = TURN_GONE;
	else
	{
		SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, extension, 0);
		if (LockAcquire(&tag, AccessShareLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
			result = TURN_SKIPPED;
		else if (find_extension(&version) != extension)
			result = TURN_SKIPPED; /* dropped, perhaps made anew: the next turn knows */
		else if (version == NULL || strcmp(version, BEHAVIOR_VERSION) != 0)
		{
			if (!warned_version)
				ereport(
					WARNING,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("extension \"behavior\" is at version %s, the loaded library at %s",
							version ? version : "(none)", BEHAVIOR_VERSION),
					 errdetail(
						 "Nothing is numbered or folded in this database until they are the same."),
					 errhint(
						 "Run ALTER EXTENSION behavior UPDATE, or restart the server after an upgrade of the package.")));
			warned_version = true;
			result = TURN_SKIPPED;
		}
		else
		{
			warned_version = false;
			PushActiveSnapshot(GetTransactionSnapshot());
			if (log_restore_in_progress())
			{
				if (!warned_restore)
					ereport(
						WARNING,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("a restore of this database is under way"),
						 errdetail(
							 "Some partition of behavior.log has no BRIN indexes yet. Nothing is numbered or folded until it has."),
						 errhint(
							 "When the restore was broken off, create the missing indexes or restore again.")));
				warned_restore = true;
				result = TURN_SKIPPED;
			}
			else
				warned_restore = false;
			PopActiveSnapshot();
		}
	}
	CommitTransactionCommand();
	return result;
}

TurnResult
process_turn(TurnCallback callback, void *arg, const char *activity)
{
	volatile TurnResult result = TURN_FAILED;

	in_turn = true;
	if (stop_requested)
		process_leave(OUTCOME_STOPPED);
	MemoryContextSwitchTo(turn_context);
	pgstat_report_activity(STATE_RUNNING, activity);

	PG_TRY();
	{
		result = open_turn();
		if (result == TURN_DONE)
		{
			MemoryContextSwitchTo(turn_context);
			callback(arg);
		}
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(turn_context);
		AbortOutOfAnyTransaction();
		if (!process_extension_there())
			result = TURN_GONE;
		else
		{
			EmitErrorReport();
			result = TURN_FAILED;
		}
		FlushErrorState();
	}
	PG_END_TRY();

	LockReleaseSession(DEFAULT_LOCKMETHOD);
	/* Advisory locks of sessions, which users' functions have taken and not let go of. */
	LockReleaseSession(USER_LOCKMETHOD);
	in_turn = false;
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextReset(turn_context);
	pgstat_report_stat(false);
	return result;
}

char *
process_abandon_job(MemoryContext context)
{
	ErrorData *error;
	char *message;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	message = pstrdup(error->message ? error->message : "");
	FreeErrorData(error);
	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(context);

	/* What follows DROP EXTENSION is process_turn()'s to judge. */
	if (!process_extension_there())
		PG_RE_THROW();
	EmitErrorReport();
	FlushErrorState();
	return message;
}

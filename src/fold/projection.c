/*
 * projection.c
 *		Brings everything that is folded from the log to a tick.
 *
 * One projection, one step: lock its row, read the events of the ticks that it lacks
 * (at most TICK_EVENTS_CHUNK events' worth of ticks, at least one tick), fold
 * them, advance its progress.  All of a step is one subtransaction, so that what
 * fails leaves nothing but the note that it failed; with own_transactions it
 * is committed before the next step begins.  Steps over the same ticks come one after
 * another, so that their events are read once.
 *
 * The row lock is the projection's lock: it is taken before the snapshot under
 * which the fold reads, so two folders never see the same progress.  The row itself
 * does not change from tick to tick: see projection_progress.c.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/spi.h"
#include "core/transaction.h"
#include "fold/projection.h"
#include "fold/tick_events.h"

#define SESSIONS "sessions"

typedef enum StepResult
{
	STEP_DONE, /* nothing left to fold */
	STEP_MORE,
	STEP_BUSY, /* somebody else has its lock, or it is not there any more */
	STEP_FAILED
} StepResult;

typedef struct Fold
{
	const char *name;
	bool is_session;
	int64 progress; /* as it was seen last */
	SessionFold *unfinished;
} Fold;

PG_FUNCTION_INFO_V1(behavior_rebuild);

/* Those that lag, the ones that lag least first. */
static const char *const list_lagging =
	"SELECT p.name, p.kind = 'session', t.tick_id FROM behavior._projection p,"
	" LATERAL (SELECT behavior._projection_tick_id(p.name) AS tick_id OFFSET 0) t "
	"WHERE p.kind IN ('session', 'rollup') AND p.state <> 'backfilling' AND t.tick_id < $1"
	" AND ($2 OR p.attempts = 0 OR p.state <> 'failing'"
	" OR p.failed_at + least(interval '1 second' * 2 ^ least(p.attempts, 10), interval '5 minutes') <= clock_timestamp()) "
	"ORDER BY t.tick_id DESC, p.kind DESC, p.name";

/* 1: there is something to clear when the step has succeeded. */
static const char *const lock_waiting =
	"SELECT (state <> 'current' OR attempts <> 0)::int::bigint FROM behavior._projection"
	" WHERE name = $1 AND state <> 'backfilling' FOR UPDATE";
static const char *const lock_skipping =
	"SELECT (state <> 'current' OR attempts <> 0)::int::bigint FROM behavior._projection"
	" WHERE name = $1 AND state <> 'backfilling' FOR UPDATE SKIP LOCKED";

static const char *const choose_ticks =
	"SELECT max(tick_id) FROM ("
	"SELECT tick_id, sum(events) OVER (ORDER BY tick_id) AS total FROM ("
	"SELECT tick_id, events FROM behavior.tick WHERE tick_id > $1 AND tick_id <= $2 ORDER BY tick_id LIMIT 10000) t) t "
	"WHERE total <= $3 OR tick_id = $1 + 1";

/* What went wrong with a rebuild stays until that has succeeded. */
static const char *const clear_failure =
	"UPDATE behavior._projection p SET state = 'current',"
	" (attempts, error, failed_at) = (SELECT p.attempts, p.error, p.failed_at WHERE p.rebuild AND p.state = 'current'"
	" UNION ALL SELECT 0, NULL, NULL WHERE NOT (p.rebuild AND p.state = 'current')) "
	"WHERE p.name = $1";

static const char *const note_failure =
	"UPDATE behavior._projection SET state = CASE WHEN state = 'current' AND $3 THEN 'failing' ELSE "
	"state END,"
	" attempts = attempts + 1, error = $2, failed_at = clock_timestamp() "
	"WHERE name = (SELECT name FROM behavior._projection WHERE name = $1 FOR UPDATE SKIP LOCKED)";

/* The single value of the single row that the last statement returned; *isnull when there is no
 * row. */
static int64
spi_int64(bool *isnull)
{
	*isnull = true;
	if (SPI_processed == 0 || SPI_tuptable == NULL)
		return 0;
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, isnull));
}

/* Runs one statement as the extension's owner and returns its single bigint. */
static int64
run_int64(const char *sql, int expected, int nargs, const Oid *types, const Datum *values,
		  bool *isnull)
{
	SecureContext secure;
	int64 result;

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	spi_exec(sql, expected, false, nargs, types, values, NULL);
	result = spi_int64(isnull);
	secure_end(&secure);
	SPI_finish();
	return result;
}

/* TickEventsCallback */
static void
fold_events(const TickEvents *events, void *arg)
{
	Fold *fold = arg;

	if (fold->is_session)
		session_fold(fold->name, events, &fold->unfinished);
	else
		rollup_fold(fold->name, events);
	CommandCounterIncrement();
}

/* The tick up to which one step goes: a chunk's worth of events, at least one tick. */
int64
projection_choose_ticks(int64 progress, int64 tick)
{
	Oid types[3] = {INT8OID, INT8OID, INT8OID};
	Datum values[3] = {Int64GetDatum(progress), Int64GetDatum(tick),
					   Int64GetDatum(TICK_EVENTS_CHUNK)};
	int64 upto;
	bool isnull;

	if (tick <= progress + 1)
		return tick;
	upto = run_int64(choose_ticks, SPI_OK_SELECT, 3, types, values, &isnull);
	return isnull ? tick : upto;
}

/* One step of one projection, in a subtransaction that the caller has begun. */
static StepResult
fold_step(Fold *fold, int64 tick, bool wait)
{
	Oid types[1] = {TEXTOID};
	Datum values[1] = {CStringGetTextDatum(fold->name)};
	ProjectionProgress row;
	Snapshot snapshot;
	int64 progress;
	int64 upto;
	bool failed;
	bool isnull;

	failed =
		run_int64(wait ? lock_waiting : lock_skipping, SPI_OK_SELECT, 1, types, values, &isnull);
	if (isnull)
		return wait ? STEP_DONE : STEP_BUSY;
	/* Under the lock, and not before: what others have advanced until now is seen. */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	projection_progress_read(fold->name, snapshot, &row);
	progress = Max(row.tick_id, 0);
	fold->progress = progress;
	if (progress >= tick)
	{
		UnregisterSnapshot(snapshot);
		return STEP_DONE;
	}

	upto = projection_choose_ticks(progress, tick);
	fold->unfinished = NULL;
	PushActiveSnapshot(snapshot);
	tick_events_each(progress, upto, snapshot, fold_events, fold);
	PopActiveSnapshot();
	UnregisterSnapshot(snapshot);

	projection_progress_move(fold->name, &row, upto);
	if (failed)
		run_int64(clear_failure, SPI_OK_UPDATE, 1, types, values, &isnull);
	fold->progress = upto;
	return upto < tick ? STEP_MORE : STEP_DONE;
}

/* Reports that a projection failed, and notes it with the projection. */
void
projection_failed(const char *name, bool folding, const ErrorData *edata)
{
	Oid types[3] = {TEXTOID, TEXTOID, BOOLOID};
	Datum values[3] = {CStringGetTextDatum(name), CStringGetTextDatum(edata->message),
					   BoolGetDatum(folding)};
	bool isnull;

	warn_of_error(edata,
				  "The other projections go on; this one is tried again.  See behavior.projection.",
				  "projection \"%s\" could not be %s", name, folding ? "folded" : "built");
	run_int64(note_failure, SPI_OK_UPDATE, 3, types, values, &isnull);
}

typedef struct FoldStep
{
	Fold *fold;
	int64 tick;
	bool wait;
	StepResult result;
} FoldStep;

/* StepCallback */
static void
run_fold_step(void *arg)
{
	FoldStep *step = arg;

	step->result = fold_step(step->fold, step->tick, step->wait);
}

static StepResult
fold_step_guarded(Fold *fold, int64 tick, bool wait)
{
	FoldStep step = {fold, tick, wait, STEP_FAILED};
	ErrorData *error = guard_step(run_fold_step, &step);

	if (error == NULL)
		return step.result;
	projection_failed(fold->name, true, error);
	FreeErrorData(error);
	return STEP_FAILED;
}

/* The projections that lag, as a list of Fold in the current context. */
static List *
lagging(int64 tick, bool wait)
{
	MemoryContext context = CurrentMemoryContext;
	Oid types[2] = {INT8OID, BOOLOID};
	Datum values[2] = {Int64GetDatum(tick), BoolGetDatum(wait)};
	SecureContext secure;
	List *folds = NIL;

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	spi_exec(list_lagging, SPI_OK_SELECT, false, 2, types, values, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		MemoryContext spi_context = MemoryContextSwitchTo(context);
		Fold *fold = palloc(sizeof(Fold));
		bool isnull;

		fold->name = TextDatumGetCString(SPI_getbinval(tuple, desc, 1, &isnull));
		fold->is_session = DatumGetBool(SPI_getbinval(tuple, desc, 2, &isnull));
		fold->progress = DatumGetInt64(SPI_getbinval(tuple, desc, 3, &isnull));
		folds = lappend(folds, fold);
		MemoryContextSwitchTo(spi_context);
	}
	secure_end(&secure);
	SPI_finish();
	return folds;
}

/*
 * The projection whose step comes next: one that lacks just the ticks whose events
 * are in memory, else the one that lags least, since what the cut has read is in memory then.
 */
static Fold *
next_fold(List *folds)
{
	ListCell *lc;
	Fold *next = NULL;

	foreach (lc, folds)
	{
		Fold *fold = lfirst(lc);

		if (tick_events_kept(fold->progress))
			return fold;
		if (next == NULL || fold->progress > next->progress)
			next = fold;
	}
	return next;
}

/*
 * Who waits takes first what nobody else is folding, so that a worker and those that call tick()
 * share the work; not in a transaction block, where locks are kept and two could wait for each
 * other.
 */
static void
fold_all(int64 tick, bool own_transactions, bool wait, MemoryContext context)
{
	List *folds = lagging(tick, wait);
	List *busy = NIL;

	if (own_transactions)
		next_transaction();
	while (folds != NIL || busy != NIL)
	{
		bool only_busy = folds == NIL;
		StepResult result;
		Fold *fold;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(context);
		if (only_busy)
		{
			folds = busy;
			busy = NIL;
		}
		fold = next_fold(folds);
		result = fold_step_guarded(fold, tick, wait && (only_busy || !own_transactions));
		if (own_transactions)
			next_transaction();
		MemoryContextSwitchTo(context);
		if (result != STEP_MORE)
			folds = list_delete_ptr(folds, fold);
		if (result == STEP_BUSY && wait)
			busy = lappend(busy, fold);
	}
}

void
projection_fold_all(int64 tick, bool own_transactions, bool wait)
{
	bool in_transaction = IsTransactionState();
	MemoryContext old_context = CurrentMemoryContext;
	MemoryContext context;

	if (!in_transaction)
		start_transaction();
	context = AllocSetContextCreate(own_transactions ? TopMemoryContext : CurrentMemoryContext,
									"behavior projections", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		fold_all(tick, own_transactions, wait, context);
	}
	PG_FINALLY();
	{
		tick_events_forget();
		MemoryContextSwitchTo(TopMemoryContext);
		MemoryContextDelete(context);
	}
	PG_END_TRY();

	if (!in_transaction)
		finish_transaction();
	/* The caller's context, unless it belonged to the transaction that has just ended. */
	MemoryContextSwitchTo(own_transactions && in_transaction && !SPI_inside_nonatomic_context()
							  ? CurTransactionContext
							  : old_context);
}

/*
 * behavior.rebuild(projection text) returns void
 *
 * Marks a projection; tick() and the workers build it anew beside the old state.  For the
 * projection's owner: that of the rollup, or of the extension.  Raises 42704 for an unknown
 * name, 42501 for somebody else.
 */
Datum
behavior_rebuild(PG_FUNCTION_ARGS)
{
	char *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	bool is_session = strcmp(name, SESSIONS) == 0;
	Oid types[1] = {TEXTOID};
	Datum values[1] = {PG_GETARG_DATUM(0)};
	Oid owner;
	bool isnull;

	(void) run_int64("SELECT 1::bigint FROM behavior._subscription WHERE name = $1", SPI_OK_SELECT,
					 1, types, values, &isnull);
	if (!isnull)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("subscription \"%s\" cannot be rebuilt", name),
			 errdetail("What its handler has done cannot be undone."),
			 errhint(
				 "Create another subscription with a start_at in the past, or call behavior.redrive() for its dead letters.")));
	owner = is_session ? behavior_owner() : rollup_owner(name);
	if (!has_privs_of_role(GetUserId(), owner) && !has_privs_of_role(GetUserId(), behavior_owner()))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("must be owner of projection \"%s\"", name)));

	if (is_session)
	{
		session_prepare();
		CommandCounterIncrement();
		run_int64(
			"UPDATE behavior._projection SET rebuild = true,"
			" settings = settings || jsonb_build_object('next', behavior._session_settings()) WHERE name = $1",
			SPI_OK_UPDATE, 1, types, values, &isnull);
	}
	else
	{
		run_int64("UPDATE behavior._projection SET rebuild = true WHERE name = $1", SPI_OK_UPDATE,
				  1, types, values, &isnull);
		rollup_build_anew(name);
	}
	PG_RETURN_VOID();
}

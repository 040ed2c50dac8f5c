/*
 * tick_procedure.c
 *		CALL behavior.tick(): everything to the present, now.
 *
 * At top level each step commits by itself, as a worker's would; in a transaction
 * block everything belongs to the caller's transaction, own uncommitted events
 * included, and rolls back with it.  It waits for what others are folding, once nothing else is
 * left to do; workers skip.
 *
 * Without shared_preload_libraries this is all that ever runs, so it also does what
 * maintenance workers would.  Upkeep and refreshes that fail are warnings.  In a transaction block
 * the storage is left alone but for partitions: that may take long, and a test that rolls back has
 * no use for it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/lock.h"
#include "core/transaction.h"
#include "fold/projection.h"
#include "fold/tick.h"
#include "fold/matview.h"
#include "log/partition.h"
#include "route/delivery.h"
#include "route/router.h"
#include "worker/chores.h"

PG_FUNCTION_INFO_V1(behavior_tick);

static void
step(bool own_transactions)
{
	if (own_transactions)
		next_transaction();
	else
		CommandCounterIncrement();
}

/*
 * Runs a step in a subtransaction; its error is a WARNING, and its message returned in the
 * current context.
 */
static char *
warn_of_step(StepCallback callback, void *arg, const char *activity)
{
	ErrorData *error = guard_step(callback, arg);

	if (error == NULL)
		return NULL;
	warn_of_error(error, NULL, "%s failed", activity);
	return error->message;
}

typedef struct Chore
{
	ChoreKind kind;
	bool more;
} Chore;

/* StepCallback */
static void
do_chore(void *arg)
{
	Chore *chore = arg;

	chore->more = false; /* when it raises */
	chore->more = chore_step(chore->kind) == CHORE_MORE;
}

static void
run_chore(ChoreKind kind, bool own_transactions)
{
	Chore chore = {kind, false};

	do
	{
		CHECK_FOR_INTERRUPTS();
		(void) warn_of_step(do_chore, &chore, chore_activity(kind));
		step(own_transactions);
	} while (chore.more);
}

/* StepCallback */
static void
do_refresh(void *arg)
{
	(void) matview_refresh_run(*(Oid *) arg);
}

/* Refreshes what is due. */
static void
run_refreshes(bool own_transactions, MemoryContext context)
{
	List *due;
	ListCell *cell;

	MemoryContextSwitchTo(context);
	PushActiveSnapshot(GetLatestSnapshot());
	due = matview_due();
	PopActiveSnapshot();
	step(own_transactions);

	foreach (cell, due)
	{
		Oid matview = lfirst_oid(cell);
		char *error;
		bool begun;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(context);
		begun = matview_refresh_begin(matview);
		step(own_transactions);
		if (!begun)
			continue;

		MemoryContextSwitchTo(context);
		error = warn_of_step(do_refresh, &matview, "a scheduled refresh");
		step(own_transactions);
		if (error != NULL)
		{
			matview_refresh_failed(matview, error);
			step(own_transactions);
		}
	}
}

/* behavior.tick(), procedure */
Datum
behavior_tick(PG_FUNCTION_ARGS)
{
	CallContext *call = (CallContext *) fcinfo->context;
	bool own_transactions =
		call != NULL && IsA(call, CallContext) && !call->atomic && !IsSubTransaction();
	MemoryContext context;
	int64 tick;

	PreventCommandIfReadOnly("CALL behavior.tick()");
	delivery_forbid_in_handler("behavior.tick()");
	if (!own_transactions && IsolationUsesXactSnapshot())
		ereport(
			ERROR,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			 errmsg(
				 "behavior.tick() cannot run in a transaction with one snapshot for all statements"),
			 errdetail("A tick has to see what others have committed until now."),
			 errhint("Call it outside of a transaction block, or in one that is READ COMMITTED.")));
	if (log_restore_in_progress())
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("a restore of this database is not complete"),
						errdetail("A partition of behavior.log lacks its BRIN indexes."),
						errhint("Let pg_restore create indexes (section post-data), then tick.")));

	SPI_connect_ext(own_transactions ? SPI_OPT_NONATOMIC : 0);
	step(own_transactions);

	/* Outlives the transactions. */
	context = AllocSetContextCreate(PortalContext ? PortalContext : CurrentMemoryContext,
									"behavior tick", ALLOCSET_DEFAULT_SIZES);

	run_chore(CHORE_PARTITIONS, own_transactions);

	/* Under the tick lock, or two would adopt the same rollup. */
	behavior_lock(behavior_relid(REL_TICK), 0, ExclusiveLock);
	session_prepare();
	CommandCounterIncrement();
	rollup_adopt();
	step(own_transactions);

	tick = tick_cut(true);
	step(own_transactions);
	tick_summarize();
	step(own_transactions);
	(void) route_all(tick, own_transactions, true);
	step(own_transactions);
	projection_fold_all(tick, own_transactions, true);
	step(own_transactions);
	MemoryContextSwitchTo(context);
	delivery_all(own_transactions);
	step(own_transactions);
	projection_build_all(own_transactions);
	step(own_transactions);

	if (own_transactions)
	{
		run_chore(CHORE_DEFAULT_PARTITION, true);
		run_chore(CHORE_BATCHES, true);
		run_chore(CHORE_KEYS, true);
	}
	run_refreshes(own_transactions, context);
	MemoryContextDelete(context);

	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * projection_build.c
 *		Carries out backfills and rebuilds, step by step, until there is nothing left to do.
 *
 * A step is one subtransaction, committed by itself with own_transactions; what has been
 * reached is kept in tables, so that a crash, or another process, goes on from there.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/spi.h"
#include "core/transaction.h"
#include "fold/projection.h"
#include "fold/tick_events.h"

/* Every rollup: which of them has something to build, its build step knows. */
static const char *const list_rollups =
	"SELECT name FROM behavior._projection WHERE kind = 'rollup' AND (state = 'backfilling' OR rebuild) ORDER BY name";

/* Names of rollups that are being built, in the current context. */
static List *
building_rollups(void)
{
	MemoryContext context = CurrentMemoryContext;
	SecureContext secure;
	List *names = NIL;

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	spi_exec(list_rollups, SPI_OK_SELECT, false, 0, NULL, NULL, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext spi_context = MemoryContextSwitchTo(context);
		bool isnull;

		names = lappend(names, TextDatumGetCString(SPI_getbinval(
								   SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull)));
		MemoryContextSwitchTo(spi_context);
	}
	secure_end(&secure);
	SPI_finish();
	return names;
}

typedef struct BuildStep
{
	const char *name; /* NULL: sessions */
	bool more;
} BuildStep;

/* StepCallback */
static void
run_build_step(void *arg)
{
	BuildStep *step = arg;

	step->more = step->name == NULL ? session_build_step() : rollup_build_step(step->name);
}

/* One step of one projection.  False when it is done, or failed. */
static bool
build_step(const char *name)
{
	BuildStep step = {name, false};
	ErrorData *error = guard_step(run_build_step, &step);

	if (error == NULL)
		return step.more;
	projection_failed(name == NULL ? "sessions" : name, false, error);
	FreeErrorData(error);
	return false;
}

static void
build_one(const char *name, bool own_transactions, MemoryContext context)
{
	bool more = true;

	while (more)
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(context);
		more = build_step(name);
		if (own_transactions)
			next_transaction();
	}
}

void
projection_build_all(bool own_transactions)
{
	bool in_transaction = IsTransactionState();
	MemoryContext old_context = CurrentMemoryContext;
	MemoryContext context;
	ListCell *lc;

	if (!in_transaction)
		start_transaction();
	context = AllocSetContextCreate(own_transactions ? TopMemoryContext : CurrentMemoryContext,
									"behavior builds", ALLOCSET_DEFAULT_SIZES);
	PG_TRY();
	{
		List *names;

		MemoryContextSwitchTo(context);
		names = building_rollups();
		if (own_transactions)
			next_transaction();
		build_one(NULL, own_transactions, context);
		foreach (lc, names)
			build_one(lfirst(lc), own_transactions, context);
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
	MemoryContextSwitchTo(own_transactions && in_transaction && !SPI_inside_nonatomic_context()
							  ? CurTransactionContext
							  : old_context);
}

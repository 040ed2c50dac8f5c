/*
 * tick_procedure.c
 *		CALL behavior.tick(): everything to the present, now.
 *
 * At top level each step commits by itself, as a worker's would; in a transaction
 * block everything belongs to the caller's transaction, own uncommitted events
 * included, and rolls back with it.  It waits for what others are folding; workers skip.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/snapmgr.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/transaction.h"
#include "fold/projection.h"
#include "fold/tick.h"
#include "log/partition.h"

/* Partitions are there this long before their first event is due. */
#define DAYS_AHEAD 3

PG_FUNCTION_INFO_V1(behavior_tick);

static void
step(bool own_transactions)
{
	if (own_transactions)
		next_transaction();
	else
		CommandCounterIncrement();
}

/* behavior.tick(), procedure */
Datum
behavior_tick(PG_FUNCTION_ARGS)
{
	CallContext *call = (CallContext *) fcinfo->context;
	bool own_transactions =
		call != NULL && IsA(call, CallContext) && !call->atomic && !IsSubTransaction();
	int64 tick;

	PreventCommandIfReadOnly("CALL behavior.tick()");
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

	log_make_partitions_ahead(DAYS_AHEAD);
	session_prepare();
	step(own_transactions);
	rollup_adopt();
	step(own_transactions);

	tick = tick_cut(true);
	step(own_transactions);
	tick_summarize();
	step(own_transactions);
	projection_fold_all(tick, own_transactions, true);
	step(own_transactions);

	SPI_finish();
	PG_RETURN_VOID();
}

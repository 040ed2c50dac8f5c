/*
 * rollup_tail.c
 *		The part of a rollup that is not folded yet, computed for its reader.
 *
 * behavior._tail() stands in the live view.  Everything it looks at, the rollup's
 * progress, the ticks, the batches, the log, it sees under the reader's snapshot,
 * the same one under which the view reads the state: so no event is counted twice
 * and none is missing.  It runs as the reader, so it asks for the token that the view reads as its
 * owner; it evaluates the query as the rollup's owner and returns groups, never
 * events.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "access/xact.h"

#include "core/catalog.h"
#include "core/spi.h"
#include "fold/rollup.h"
#include "fold/tick.h"
#include "log/log_reader.h"

PG_FUNCTION_INFO_V1(behavior__tail);
PG_FUNCTION_INFO_V1(behavior__ready);

/*
 * The built-in rollup before the first tick: its catalog row is not there yet, but nothing is
 * folded either, so all there is is tail.
 */
static RollupRow *
unborn_activity(Oid definition, Oid storage, Snapshot snapshot)
{
	Oid schema = behavior_schema_oid();
	RollupRow *row;

	if (get_rel_namespace(definition) != schema ||
		strcmp(get_rel_name(definition), "_activity_definition") != 0 || tick_last(snapshot) != 0)
		return NULL;
	row = palloc0(sizeof(RollupRow));
	row->name = "activity";
	row->relation = get_relname_relid("activity", schema);
	row->definition = definition;
	row->storage = storage;
	row->built = true;
	return row;
}

/* Raises 42501 unless the caller came through the view. */
static void
check_token(const RollupRow *row, bool has_token, const pg_uuid_t *token, bool unborn)
{
	if (unborn ? pg_class_aclcheck(row->relation, GetUserId(), ACL_SELECT) == ACLCHECK_OK
			   : has_token && memcmp(token, &row->token, sizeof(pg_uuid_t)) == 0)
		return;
	ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					errmsg("permission denied for the events of rollup \"%s\"", row->name),
					errhint("Read the rollup's relation.")));
}

/* Copies groups to the result. */
static void
copy_groups(Tuplestorestate *groups, TupleDesc desc, Tuplestorestate *result)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);

	while (tuplestore_gettupleslot(groups, true, false, slot))
		tuplestore_puttupleslot(result, slot);
	ExecDropSingleTupleTableSlot(slot);
}

/* The column definition list of the view and the plan must agree. */
static void
check_columns(TupleDesc wanted, TupleDesc have)
{
	if (wanted->natts == have->natts)
	{
		int i = 0;

		while (i < wanted->natts &&
			   TupleDescAttr(wanted, i)->atttypid == TupleDescAttr(have, i)->atttypid)
			i++;
		if (i == wanted->natts)
			return;
	}
	ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
					errmsg("columns of a rollup's view do not match its definition")));
}

/* Evaluates as the owner; with an event that raises left out. */
static void
evaluate(Oid owner, Oid definition, Oid storage, Tuplestorestate *events, TupleDesc desc,
		 int64 count, TupleDesc wanted, Tuplestorestate *result)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner resources = CurrentResourceOwner;
	bool raised = false;

	for (int round = 0; round < 2; round++)
	{
		BeginInternalSubTransaction(NULL);
		MemoryContextSwitchTo(caller);
		PG_TRY();
		{
			SecureContext secure;
			RollupPlan *plan;
			Tuplestorestate *groups;

			secure_begin(&secure, owner);
			SPI_connect();
			plan = rollup_plan(definition, storage);
			check_columns(wanted, plan->desc);
			groups = rollup_evaluate(plan, events, desc, count);
			copy_groups(groups, plan->desc, result);
			tuplestore_end(groups);
			SPI_finish();
			secure_end(&secure);
			ReleaseCurrentSubTransaction();
			raised = false;
		}
		PG_CATCH();
		{
			ErrorData *error;

			MemoryContextSwitchTo(caller);
			error = CopyErrorData();
			FlushErrorState();
			RollbackAndReleaseCurrentSubTransaction();
			MemoryContextSwitchTo(caller);
			CurrentResourceOwner = resources;
			if (round > 0 || !rollup_is_poison(error->sqlerrcode))
				ReThrowError(error);
			raised = true;
		}
		PG_END_TRY();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = resources;
		if (raised)
		{
			Tuplestorestate *good = rollup_events();

			tuplestore_clear(result);
			rollup_good_events(owner, definition, storage, events, desc, count, good, &count);
			events = good;
		}
		if (!raised || count == 0)
			return;
	}
}

Datum
behavior__tail(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Snapshot snapshot = GetActiveSnapshot();
	MemoryContext caller;
	MemoryContext context;
	Tuplestorestate *result;
	Oid definition;
	Oid storage;
	RollupRow *row;
	bool unborn = false;
	BatchSet *batches;

	if (rsinfo == NULL || !IsA(rsinfo, ReturnSetInfo) ||
		(rsinfo->allowedModes & SFRM_Materialize) == 0 || rsinfo->expectedDesc == NULL)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("behavior._tail() is called by the views of rollups only")));
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("definition and storage of a rollup must not be NULL")));
	definition = PG_GETARG_OID(0);
	storage = PG_GETARG_OID(1);

	caller = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);
	result = tuplestore_begin_heap((rsinfo->allowedModes & SFRM_Materialize_Random) != 0, false,
								   work_mem);
	rsinfo->returnMode = SFRM_Materialize;
	rsinfo->setResult = result;
	rsinfo->setDesc = CreateTupleDescCopy(rsinfo->expectedDesc);
	MemoryContextSwitchTo(caller);
	context = AllocSetContextCreate(caller, "behavior rollup tail", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);

	row = rollup_row_by_definition(definition, snapshot);
	if (row == NULL)
	{
		row = unborn_activity(definition, storage, snapshot);
		unborn = row != NULL;
	}
	if (row != NULL)
		check_token(row, !PG_ARGISNULL(2), PG_ARGISNULL(2) ? NULL : PG_GETARG_UUID_P(2), unborn);
	rollup_check_complete(definition, storage, row);

	batches = tick_batches(snapshot, unborn ? 0 : rollup_progress(row->name, snapshot), TICK_ALL);
	if (batches->nruns > 0)
	{
		Relation log = table_open(behavior_relid(REL_LOG), AccessShareLock);
		TupleDesc desc = CreateTupleDescCopy(RelationGetDescr(log));
		Tuplestorestate *events = rollup_events();
		int64 count = log_read_batches(batches, snapshot, rollup_collect_event, events);

		table_close(log, AccessShareLock);
		if (count > 0)
			evaluate(rollup_reading_owner(row), definition, storage, events, desc, count,
					 rsinfo->setDesc, result);
		tuplestore_end(events);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return (Datum) 0;
}

Datum
behavior__ready(PG_FUNCTION_ARGS)
{
	Oid definition = PG_GETARG_OID(0);
	Oid storage = PG_GETARG_OID(1);
	Snapshot snapshot = GetActiveSnapshot();
	RollupRow *row = rollup_row_by_definition(definition, snapshot);

	if (row == NULL)
		row = unborn_activity(definition, storage, snapshot);
	rollup_check_complete(definition, storage, row);
	PG_RETURN_BOOL(true);
}

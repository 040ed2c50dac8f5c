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
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "access/xact.h"

#include "core/catalog.h"
#include "core/spi.h"
#include "fold/projection.h"
#include "fold/rollup.h"
#include "fold/tick.h"
#include "log/log_reader.h"
#include "log/log_row.h"

/* Events of a tail are kept in this many times work_mem, more of them on disk. */
#define TAIL_MEMORY_TIMES 4

/* Events on their way from the log: of each the columns that the query looks at, others NULL. */
typedef struct TailEvents
{
	Tuplestorestate *store;
	TupleTableSlot *slot;
	bool reads[LOG_NATTS];
	int last;	 /* number of the last of them */
	List *types; /* text *: others are left out at once; NIL: none is */
	int64 count;
} TailEvents;

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
	Tuplestorestate *good = NULL;

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
			good = rollup_events(work_mem);
			tuplestore_clear(result);
			rollup_good_events(owner, definition, storage, events, desc, count, good, &count);
			events = good;
		}
		if (!raised || count == 0)
			break;
	}
	if (good != NULL)
		tuplestore_end(good);
}

/* The columns of the log that the query looks at. */
static void
find_columns(Oid owner, Oid definition, Oid storage, TailEvents *tail)
{
	MemoryContext caller = CurrentMemoryContext;
	SecureContext secure;
	RollupShape *shape;
	ListCell *lc;

	secure_begin(&secure, owner);
	SPI_connect();
	shape = rollup_plan(definition, storage)->shape;
	memcpy(tail->reads, shape->reads, sizeof(tail->reads));
	MemoryContextSwitchTo(caller);
	foreach (lc, shape->types)
		tail->types = lappend(tail->types, DatumGetTextPCopy(PointerGetDatum((text *) lfirst(lc))));
	SPI_finish();
	secure_end(&secure);
	for (int i = 0; i < LOG_NATTS; i++)
	{
		if (tail->reads[i])
			tail->last = i + 1;
	}
}

/* False for an event of a type that the query does not let pass. */
static bool
has_type(const TailEvents *tail, TupleTableSlot *slot)
{
	bool isnull;
	struct varlena *type =
		(struct varlena *) DatumGetPointer(slot_getattr(slot, LOG_TYPE, &isnull));
	ListCell *lc;

	if (VARATT_IS_EXTERNAL(type) || VARATT_IS_COMPRESSED(type))
		return true;
	foreach (lc, tail->types)
	{
		text *wanted = lfirst(lc);

		if (VARSIZE_ANY_EXHDR(type) == VARSIZE_ANY_EXHDR(wanted) &&
			memcmp(VARDATA_ANY(type), VARDATA_ANY(wanted), VARSIZE_ANY_EXHDR(type)) == 0)
			return true;
	}
	return false;
}

/* LogRowCallback */
static void
take_event(TupleTableSlot *slot, void *arg)
{
	TailEvents *tail = arg;
	TupleTableSlot *narrow = tail->slot;

	if (tail->types != NIL && !has_type(tail, slot))
		return;
	tail->count++;
	slot_getsomeattrs(slot, tail->last);
	ExecClearTuple(narrow);
	for (int i = 0; i < tail->last; i++)
	{
		if (tail->reads[i])
		{
			narrow->tts_values[i] = slot->tts_values[i];
			narrow->tts_isnull[i] = slot->tts_isnull[i];
		}
	}
	ExecStoreVirtualTuple(narrow);
	tuplestore_puttupleslot(tail->store, narrow);
}

/* Reads what the query looks at of the events of some batches. */
static void
read_events(TailEvents *tail, TupleDesc desc, const BatchSet *batches, Snapshot snapshot)
{
	MemoryContext context = GenerationContextCreate(
		CurrentMemoryContext, "behavior rollup tail events", ALLOCSET_DEFAULT_MINSIZE,
		ALLOCSET_DEFAULT_MAXSIZE / 8, ALLOCSET_DEFAULT_MAXSIZE / 8);
	MemoryContext caller = MemoryContextSwitchTo(context);

	tail->store = tuplestore_begin_heap(
		false, false, Min(work_mem, MAX_KILOBYTES / TAIL_MEMORY_TIMES) * TAIL_MEMORY_TIMES);
	MemoryContextSwitchTo(caller);
	tail->slot = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	memset(tail->slot->tts_isnull, true, sizeof(bool) * LOG_NATTS);
	(void) log_read_batches(batches, snapshot, take_event, tail);
	ExecDropSingleTupleTableSlot(tail->slot);
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

	batches =
		tick_batches(snapshot, unborn ? 0 : projection_progress(row->name, snapshot), TICK_ALL);
	if (batches->nruns > 0)
	{
		Relation log = table_open(behavior_relid(REL_LOG), AccessShareLock);
		TupleDesc desc = CreateTupleDescCopy(RelationGetDescr(log));
		Oid owner = rollup_reading_owner(row);
		TailEvents tail = {0};

		table_close(log, AccessShareLock);
		find_columns(owner, definition, storage, &tail);
		read_events(&tail, desc, batches, snapshot);
		if (tail.count > 0)
			evaluate(owner, definition, storage, tail.store, desc, tail.count, rsinfo->setDesc,
					 result);
		tuplestore_end(tail.store);
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

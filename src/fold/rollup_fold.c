/*
 * rollup_fold.c
 *		Events into a rollup's state, and what becomes of an event that breaks the query.
 *
 * Evaluation and merging run as the rollup's owner in a subtransaction.  When an error
 * that one event can cause comes up, the events are halved until the culprit is
 * alone; it becomes a dead letter and the rest goes on.  Any other error
 * (a dropped function, a revoked privilege, a full disk) is the projection's own.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "tcop/dest.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/queryenvironment.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "core/catalog.h"
#include "core/spi.h"
#include "fold/projection.h"
#include "fold/rollup.h"
#include "ingest/dead_letter.h"
#include "log/log_row.h"

/* Takes rows of the partial query, and stores them with their key hash in front. */
typedef struct HashingReceiver
{
	DestReceiver pub;
	RollupPlan *plan;
	RollupCounter *counter; /* NULL: rows are groups; else keys of events, to be counted */
	Tuplestorestate *store;
	MemoryContext scratch;
	Datum *values;
	bool *isnull;
} HashingReceiver;

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc desc)
{
	HashingReceiver *receiver = (HashingReceiver *) self;

	if (desc->natts != receiver->plan->desc->natts - 1)
		elog(ERROR, "partial query of a rollup returned %d columns", desc->natts);
}

/* RollupCounted: stores a group */
static void
store_group(const Datum *values, const bool *isnull, void *arg)
{
	HashingReceiver *receiver = arg;
	int natts = receiver->plan->desc->natts;
	MemoryContext caller = MemoryContextSwitchTo(receiver->scratch);
	pg_uuid_t hash;

	memcpy(receiver->values + 1, values, (natts - 1) * sizeof(Datum));
	memcpy(receiver->isnull + 1, isnull, (natts - 1) * sizeof(bool));
	rollup_key_hash(receiver->plan->hasher, receiver->values + 1, receiver->isnull + 1, &hash);
	receiver->values[0] = UUIDPGetDatum(&hash);
	receiver->isnull[0] = false;
	MemoryContextSwitchTo(caller);
	tuplestore_putvalues(receiver->store, receiver->plan->desc, receiver->values, receiver->isnull);
	MemoryContextReset(receiver->scratch);
}

static bool
receiver_take(TupleTableSlot *slot, DestReceiver *self)
{
	HashingReceiver *receiver = (HashingReceiver *) self;

	if (receiver->counter != NULL)
		rollup_count(receiver->counter, slot);
	else
	{
		slot_getallattrs(slot);
		store_group(slot->tts_values, slot->tts_isnull, receiver);
	}
	return true;
}

static void
receiver_nothing(DestReceiver *self)
{
}

static void
register_store(const char *name, TupleDesc desc, Tuplestorestate *store, double rows)
{
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));
	int rc;

	enr->md.name = pstrdup(name);
	enr->md.tupdesc = desc;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = rows;
	enr->reldata = store;
	rc = SPI_register_relation(enr);
	if (rc < 0)
		elog(ERROR, "could not register \"%s\": %s", name, SPI_result_code_string(rc));
}

static void
execute(SPIPlanPtr plan, bool read_only, DestReceiver *dest, int expected)
{
	SPIExecuteOptions options = {0};
	int rc;

	options.read_only = read_only;
	options.dest = dest;
	rc = SPI_execute_plan_extended(plan, &options);
	if (rc != expected)
		elog(ERROR, "statement of a rollup returned %s", SPI_result_code_string(rc));
}

static void
turn_off(const char *const *settings, int count)
{
	for (int i = 0; i < count; i++)
		(void) set_config_option(settings[i], "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
								 true, 0, false);
}

/*
 * Plans the partial query, unless that was done.  The planner knows nothing about the events, and
 * JIT compiles at each execution, for longer than that takes.
 */
static void
plan_partial(RollupPlan *plan)
{
	static const char *const hash[] = {"jit", "enable_sort"};
	static const char *const sort[] = {"jit", "enable_hashagg"};
	int guc_level = NewGUCNestLevel();
	CachedPlan *cached;

	turn_off(plan->sorts ? sort : hash, 2);
	rollup_scan_begin();
	PG_TRY();
	{
		cached = SPI_plan_get_cached_plan(plan->partial);
		if (cached != NULL)
			ReleaseCachedPlan(cached, CurrentResourceOwner);
	}
	PG_FINALLY();
	{
		rollup_scan_end();
	}
	PG_END_TRY();
	AtEOXact_GUC(true, guc_level);
}

static HashingReceiver *
make_receiver(RollupPlan *plan)
{
	HashingReceiver *receiver = palloc0(sizeof(HashingReceiver));

	receiver->pub.receiveSlot = receiver_take;
	receiver->pub.rStartup = receiver_startup;
	receiver->pub.rShutdown = receiver_nothing;
	receiver->pub.rDestroy = receiver_nothing;
	receiver->pub.mydest = DestTuplestore;
	receiver->plan = plan;
	receiver->store = tuplestore_begin_heap(false, false, work_mem);
	receiver->scratch =
		AllocSetContextCreate(CurrentMemoryContext, "behavior rollup keys", ALLOCSET_SMALL_SIZES);
	receiver->values = palloc(sizeof(Datum) * plan->desc->natts);
	receiver->isnull = palloc(sizeof(bool) * plan->desc->natts);
	return receiver;
}

/*
 * The groups of some events, in a tuplestore of plan->desc that lives in the current context's SPI
 * connection. Call as the owner, with SPI connected.  Uses the active snapshot.
 */
Tuplestorestate *
rollup_evaluate(RollupPlan *plan, Tuplestorestate *events, TupleDesc desc, int64 count)
{
	HashingReceiver *receiver = make_receiver(plan);

	plan->in_use++;
	PG_TRY();
	{
		(void) rollup_partial_plan(plan);
		if (plan->counts)
			receiver->counter = rollup_counter(plan->desc, plan->shape->nkeys);
		register_store(ROLLUP_EVENTS, desc, events, count);
		plan_partial(plan);
		execute(plan->partial, true, &receiver->pub, SPI_OK_SELECT);
		SPI_unregister_relation(ROLLUP_EVENTS);
		if (plan->counts)
			rollup_counted(receiver->counter, store_group, receiver);
	}
	PG_FINALLY();
	{
		plan->in_use--;
	}
	PG_END_TRY();
	plan->groups = tuplestore_tuple_count(receiver->store);
	MemoryContextDelete(receiver->scratch);
	return receiver->store;
}

/* The same for a statement that returns keys and partials from somewhere else. */
Tuplestorestate *
rollup_evaluate_sql(RollupPlan *plan, const char *sql)
{
	HashingReceiver *receiver = make_receiver(plan);
	SPIExecuteOptions options = {0};
	int rc;

	options.read_only = true;
	options.dest = &receiver->pub;
	plan->in_use++;
	PG_TRY();
	{
		rc = SPI_execute_extended(sql, &options);
		if (rc != SPI_OK_SELECT)
			elog(ERROR, "\"%s\" returned %s", sql, SPI_result_code_string(rc));
	}
	PG_FINALLY();
	{
		plan->in_use--;
	}
	PG_END_TRY();
	MemoryContextDelete(receiver->scratch);
	return receiver->store;
}

/* True for an error that one event can cause, by what the query makes of its values. */
bool
rollup_is_poison(int sqlstate)
{
	/* A class of the function's own making: PostgreSQL's that begin with a letter are listed. */
	int class_letter = PGUNSIXBIT(sqlstate);

	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case MAKE_SQLSTATE('F', '0', '0', '0', '0'):
		case MAKE_SQLSTATE('H', 'V', '0', '0', '0'):
		case MAKE_SQLSTATE('X', 'X', '0', '0', '0'):
			return false;
		case MAKE_SQLSTATE('2', 'F', '0', '0', '0'):
		case MAKE_SQLSTATE('2', '1', '0', '0', '0'):
		case MAKE_SQLSTATE('2', '2', '0', '0', '0'):
		case MAKE_SQLSTATE('2', '3', '0', '0', '0'):
		case MAKE_SQLSTATE('3', '8', '0', '0', '0'):
		case MAKE_SQLSTATE('3', '9', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '4', '0', '0', '0'):
		case MAKE_SQLSTATE('P', '0', '0', '0', '0'):
			return true;
	}
	return class_letter >= 'A' && class_letter <= 'Z';
}

/* One attempt at some events: what to do with those that evaluate, and with one that does not. */
typedef struct Attempt
{
	Oid owner;
	Oid definition;
	Oid storage;
	TupleDesc desc;
	/* fold */
	bool merge;
	const char *name;
	const char *set; /* projection in _set_aside */
	bool again;		 /* their dead letters have been sent again */
	int64 poison;
	/* tail */
	Tuplestorestate *good;
	int64 ngood;
} Attempt;

/* The events of "from" numbered first.. in a tuplestore of their own. */
static Tuplestorestate *
part_of(Tuplestorestate *from, TupleDesc desc, int64 first, int64 count)
{
	Tuplestorestate *part = tuplestore_begin_heap(false, false, work_mem);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	int pointer = tuplestore_alloc_read_pointer(from, EXEC_FLAG_REWIND);

	tuplestore_select_read_pointer(from, pointer);
	tuplestore_rescan(from);
	tuplestore_skiptuples(from, first, true);
	while (count-- > 0 && tuplestore_gettupleslot(from, true, false, slot))
		tuplestore_puttupleslot(part, slot);
	ExecDropSingleTupleTableSlot(slot);
	return part;
}

/* Merges partial aggregates into the state. */
static void
merge_partials(RollupPlan *plan, Tuplestorestate *partials)
{
	/*
	 * What is left is to look up each cell by its key.  The plan is kept, so it must not be one for
	 * a state that was small when it was made.
	 */
	static const char *const other_ways[] = {"jit",
											 "enable_hashjoin",
											 "enable_mergejoin",
											 "enable_seqscan",
											 "enable_material",
											 "enable_memoize",
											 "enable_bitmapscan"};
	SPIPlanPtr merge = rollup_merge_plan(plan);
	int guc_level = NewGUCNestLevel();

	plan->in_use++;
	PG_TRY();
	{
		register_store("_partials", plan->desc, partials, tuplestore_tuple_count(partials));
		turn_off(other_ways, lengthof(other_ways));
		execute(merge, false, NULL, SPI_OK_MERGE);
	}
	PG_FINALLY();
	{
		plan->in_use--;
	}
	PG_END_TRY();
	AtEOXact_GUC(true, guc_level);
}

/* Folding is maintenance: a chunk of events is sorted in memory. */
static void
use_memory_of_maintenance(void)
{
	char value[12];

	if (maintenance_work_mem <= work_mem)
		return;
	snprintf(value, sizeof(value), "%d", maintenance_work_mem);
	(void) set_config_option("work_mem", value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true,
							 0, false);
}

/* Runs the attempt in a subtransaction; NULL when it went well, else the error, which an event may
 * have caused. */
static ErrorData *
attempt_events(Attempt *attempt, Tuplestorestate *events, int64 count)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		SecureContext secure;
		RollupPlan *plan;
		Tuplestorestate *partials;

		secure_begin(&secure, attempt->owner);
		if (attempt->merge)
			use_memory_of_maintenance();
		SPI_connect();
		plan = rollup_plan(attempt->definition, attempt->storage);
		partials = rollup_evaluate(plan, events, attempt->desc, count);
		if (attempt->merge)
			merge_partials(plan, partials);
		tuplestore_end(partials);
		SPI_finish();
		secure_end(&secure);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;

	if (error != NULL && !rollup_is_poison(error->sqlerrcode))
		ReThrowError(error);
	return error;
}

/* An event as native JSON, and its row in dead_letter and _set_aside. */
static void
set_aside(Attempt *attempt, TupleTableSlot *event, ErrorData *error)
{
	static const char *const payload_sql =
		"SELECT (SELECT jsonb_object_agg(e.key, e.value) FROM jsonb_each(jsonb_build_object('event_id', $1::text, "
		"'source', $2::text, 'type', $3::text, 'user_id', $4::text, 'anonymous_id', $5::text, 'occurred_at', "
		"$6::timestamptz, 'sequence', $7::int8, 'properties', $8::jsonb, 'context', $9::jsonb)) AS e(key, value) "
		"WHERE e.value <> 'null')::text, (SELECT s.dead_letter_id FROM behavior._set_aside AS s WHERE "
		"s.projection = $10 AND s.batch_id = $11 AND s.source = $2 AND s.event_id = $1)";
	static const AttrNumber columns[] = {LOG_EVENT_ID, LOG_SOURCE,		 LOG_TYPE,
										 LOG_USER_ID,  LOG_ANONYMOUS_ID, LOG_OCCURRED_AT,
										 LOG_SEQUENCE, LOG_PROPERTIES,	 LOG_CONTEXT};
	Oid types[11] = {TEXTOID, TEXTOID,	TEXTOID,  TEXTOID, TEXTOID, TIMESTAMPTZOID,
					 INT8OID, JSONBOID, JSONBOID, TEXTOID, INT8OID};
	Datum values[11];
	char nulls[11];
	SecureContext secure;
	DeadLetter letter = {0};
	bool known;
	int64 id = 0;

	slot_getallattrs(event);
	for (int i = 0; i < lengthof(columns); i++)
	{
		values[i] = event->tts_values[columns[i] - 1];
		nulls[i] = event->tts_isnull[columns[i] - 1] ? 'n' : ' ';
	}
	values[9] = CStringGetTextDatum(attempt->name);
	values[10] = event->tts_values[LOG_BATCH_ID - 1];
	nulls[9] = nulls[10] = ' ';

	secure_begin(&secure, behavior_owner());
	SPI_connect();
	/* What was taken off the list in this statement is to be seen. */
	spi_exec(payload_sql, SPI_OK_SELECT, !attempt->again, 11, types, values, nulls);
	letter.payload = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &known));
	known = !known;
	if (!known)
	{
		letter.batch_id = DatumGetInt64(values[10]);
		letter.stage = "fold";
		letter.reason = REASON_EVALUATION_ERROR;
		letter.detail = error->message;
		letter.source = TextDatumGetCString(values[1]);
		letter.type = TextDatumGetCString(values[2]);
		letter.event_id = TextDatumGetCString(values[0]);
		letter.payload_length = strlen(letter.payload);
		letter.projection = attempt->name;
		if (attempt->again)
			dead_letter_continue(&letter, false);
		id = dead_letter_insert(&letter);
	}
	values[2] = CStringGetTextDatum(attempt->set);
	values[3] = values[10];
	values[4] = Int64GetDatum(id);
	types[3] = types[4] = INT8OID;
	spi_exec(
		"INSERT INTO behavior._set_aside (projection, batch_id, source, event_id, dead_letter_id) "
		"VALUES ($3, $4, $2, $1, $5) ON CONFLICT DO NOTHING",
		SPI_OK_INSERT, false, 5, types, values, NULL);
	SPI_finish();
	secure_end(&secure);
	attempt->poison++;
}

/* Attempts the events, and halves of them for as long as an event breaks the query. */
static void
bisect(Attempt *attempt, Tuplestorestate *events, int64 count)
{
	ErrorData *error = attempt_events(attempt, events, count);
	TupleTableSlot *slot;

	CHECK_FOR_INTERRUPTS();
	if (error != NULL && count > 1)
	{
		int64 half = count / 2;
		Tuplestorestate *part;

		FreeErrorData(error);
		part = part_of(events, attempt->desc, 0, half);
		bisect(attempt, part, half);
		tuplestore_end(part);
		part = part_of(events, attempt->desc, half, count - half);
		bisect(attempt, part, count - half);
		tuplestore_end(part);
		return;
	}
	if (error == NULL && attempt->merge)
		return;

	slot = MakeSingleTupleTableSlot(attempt->desc, &TTSOpsMinimalTuple);
	tuplestore_select_read_pointer(events, tuplestore_alloc_read_pointer(events, EXEC_FLAG_REWIND));
	tuplestore_rescan(events);
	while (tuplestore_gettupleslot(events, true, false, slot))
	{
		if (error != NULL)
		{
			if (attempt->merge)
				set_aside(attempt, slot, error);
		}
		else
		{
			tuplestore_puttupleslot(attempt->good, slot);
			attempt->ngood++;
		}
	}
	ExecDropSingleTupleTableSlot(slot);
}

/* A tuplestore for events of the log, in memory up to so many kilobytes. */
Tuplestorestate *
rollup_events(int kilobytes)
{
	return tuplestore_begin_heap(false, false, kilobytes);
}

/* Copies the events on which the query does not raise to "good". */
void
rollup_good_events(Oid owner, Oid definition, Oid storage, Tuplestorestate *events, TupleDesc desc,
				   int64 count, Tuplestorestate *good, int64 *ngood)
{
	Attempt attempt = {0};

	attempt.owner = owner;
	attempt.definition = definition;
	attempt.storage = storage;
	attempt.desc = desc;
	attempt.good = good;
	bisect(&attempt, events, count);
	*ngood = attempt.ngood;
}

/* The owner of a rollup, who must still be allowed to read events. */
Oid
rollup_reading_owner(const RollupRow *row)
{
	Oid owner = relation_owner(row->relation);

	if (!OidIsValid(owner))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("the relation of rollup \"%s\" was dropped", row->name)));
	if (pg_class_aclcheck(behavior_relid(REL_EVENT), owner, ACL_SELECT) != ACLCHECK_OK)
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("role \"%s\", the owner of rollup \"%s\", may not read behavior.event",
					GetUserNameFromId(owner, false), row->name),
			 errhint(
				 "GRANT SELECT ON behavior.event to the role, or give the rollup to another one.")));
	return owner;
}

static void
fold_events(const RollupRow *row, Oid definition, Oid storage, Tuplestorestate *events,
			TupleDesc desc, int64 count, bool beside, bool again)
{
	Attempt attempt = {0};
	bool pushed = false;

	if (count == 0)
		return;
	attempt.owner = rollup_reading_owner(row);
	attempt.definition = definition;
	attempt.storage = storage;
	attempt.desc = desc;
	attempt.merge = true;
	attempt.name = row->name;
	attempt.set = beside ? psprintf("%s\001", row->name) : row->name;
	attempt.again = again;
	if (!ActiveSnapshotSet())
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		pushed = true;
	}
	bisect(&attempt, events, count);
	if (attempt.poison > 0 && !beside)
	{
		Oid types[] = {TEXTOID, INT8OID};
		Datum values[] = {CStringGetTextDatum(row->name), Int64GetDatum(attempt.poison)};
		SecureContext secure;

		secure_begin(&secure, behavior_owner());
		SPI_connect();
		spi_exec(
			"UPDATE behavior._projection SET events_set_aside = events_set_aside + $2 WHERE name = $1",
			SPI_OK_UPDATE, false, 2, types, values, NULL);
		SPI_finish();
		secure_end(&secure);
	}
	if (pushed)
		PopActiveSnapshot();
}

/*
 * Merges events into a state table.  beside: it is one that is being built, whose
 * set-aside events are kept apart until it is swapped in.
 */
void
rollup_fold_events(const RollupRow *row, Oid definition, Oid storage, Tuplestorestate *events,
				   TupleDesc desc, int64 count, bool beside)
{
	fold_events(row, definition, storage, events, desc, count, beside, false);
}

/* The same for events that were set aside, and are no more: what fails again continues the history
 * of its dead letter. */
void
rollup_fold_again(const RollupRow *row, Oid definition, Oid storage, Tuplestorestate *events,
				  TupleDesc desc, int64 count, bool beside)
{
	fold_events(row, definition, storage, events, desc, count, beside, true);
}

/* Folds the events of some ticks.  A rollup that is not built yet takes them when its walk is over.
 */
void
rollup_fold(const char *name, const TickEvents *events)
{
	MemoryContext context = AllocSetContextCreate(CurTransactionContext, "behavior rollup fold",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	RollupRow *row = rollup_row_by_name(name, GetLatestSnapshot());

	if (row != NULL && row->built)
		rollup_fold_events(row, row->definition, row->storage, events->store, events->desc,
						   events->count, false);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

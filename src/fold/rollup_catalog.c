/*
 * rollup_catalog.c
 *		Rows of behavior._rollup, and what a backend keeps of each rollup.
 *
 * Rows are read under a given snapshot: a reader must take what it reads from the
 * state and what it reads here from one moment.  There are tens of rows, so they
 * are scanned.  Plans are kept until the definition, the state table, or any
 * function, operator or type changes.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/invalidation.h"
#include "core/spi.h"
#include "fold/projection.h"
#include "fold/rollup.h"

/* Columns of behavior._rollup. */
enum
{
	ROLLUP_NAME = 1,
	ROLLUP_RELATION,
	ROLLUP_FOLDED,
	ROLLUP_DEFINITION,
	ROLLUP_STORAGE,
	ROLLUP_TOKEN_TABLE,
	ROLLUP_TOKEN,
	ROLLUP_BUILT,
	ROLLUP_NEXT_DEFINITION,
	ROLLUP_NEXT_STORAGE,
	ROLLUP_NATTS = ROLLUP_NEXT_STORAGE
};

/* So many states are hashed whatever their size. */
#define FEW_GROUPS 32

static HTAB *plans = NULL;

static RollupRow *
row_of(HeapTuple tuple, TupleDesc desc)
{
	RollupRow *row = palloc0(sizeof(RollupRow));
	Datum values[ROLLUP_NATTS];
	bool isnull[ROLLUP_NATTS];

#define VALUE(column)		   values[(column) -1]
#define OID_OR_INVALID(column) (isnull[(column) -1] ? InvalidOid : DatumGetObjectId(VALUE(column)))
	heap_deform_tuple(tuple, desc, values, isnull);
	row->name = TextDatumGetCString(VALUE(ROLLUP_NAME));
	row->relation = DatumGetObjectId(VALUE(ROLLUP_RELATION));
	row->folded = DatumGetObjectId(VALUE(ROLLUP_FOLDED));
	row->definition = DatumGetObjectId(VALUE(ROLLUP_DEFINITION));
	row->storage = DatumGetObjectId(VALUE(ROLLUP_STORAGE));
	row->token_table = DatumGetObjectId(VALUE(ROLLUP_TOKEN_TABLE));
	row->token = *DatumGetUUIDP(VALUE(ROLLUP_TOKEN));
	row->built = DatumGetBool(VALUE(ROLLUP_BUILT));
	row->next_definition = OID_OR_INVALID(ROLLUP_NEXT_DEFINITION);
	row->next_storage = OID_OR_INVALID(ROLLUP_NEXT_STORAGE);
#undef VALUE
#undef OID_OR_INVALID
	return row;
}

/* Every row, as a list of RollupRow. */
List *
rollup_rows(Snapshot snapshot)
{
	Relation rel = table_open(behavior_relid(REL_ROLLUP), AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	List *rows = NIL;
	HeapTuple tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		rows = lappend(rows, row_of(tuple, RelationGetDescr(rel)));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return rows;
}

RollupRow *
rollup_row_by_name(const char *name, Snapshot snapshot)
{
	ListCell *lc;

	foreach (lc, rollup_rows(snapshot))
	{
		RollupRow *row = lfirst(lc);

		if (strcmp(row->name, name) == 0)
			return row;
	}
	return NULL;
}

RollupRow *
rollup_row_by_definition(Oid definition, Snapshot snapshot)
{
	ListCell *lc;

	foreach (lc, rollup_rows(snapshot))
	{
		RollupRow *row = lfirst(lc);

		if (row->definition == definition)
			return row;
	}
	return NULL;
}

RollupRow *
rollup_row_by_relation(Oid relation, Snapshot snapshot)
{
	ListCell *lc;

	foreach (lc, rollup_rows(snapshot))
	{
		RollupRow *row = lfirst(lc);

		if (row->relation == relation)
			return row;
	}
	return NULL;
}

/* Runs a statement of ours as the extension's owner; text that depends on the rollup. */
void
rollup_run(const char *sql)
{
	SecureContext secure;
	int rc;

	secure_begin(&secure, behavior_owner());
	SPI_connect();
	rc = SPI_execute(sql, false, 0);
	if (rc < 0)
		elog(ERROR, "\"%s\" returned %s", sql, SPI_result_code_string(rc));
	SPI_finish();
	secure_end(&secure);
}

/*
 * Locks the row in _rollup, and before it that of the projection; false when there is none, or, in
 * a background worker, when somebody else has it: he may be a user who has gone to lunch in
 * his transaction.
 */
bool
rollup_lock(const char *name, bool projection_too)
{
	bool skip = MyBackendType == B_BG_WORKER;
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(name);
	SecureContext secure;
	bool found = true;

	secure_begin(&secure, behavior_owner());
	SPI_connect();
	if (projection_too)
		found = spi_exec(
					skip ? "SELECT FROM behavior._projection WHERE name = $1 FOR UPDATE SKIP LOCKED"
						 : "SELECT FROM behavior._projection WHERE name = $1 FOR UPDATE",
					SPI_OK_SELECT, false, 1, &type, &value, NULL) > 0;
	if (found)
		found =
			spi_exec(skip ? "SELECT FROM behavior._rollup WHERE name = $1 FOR UPDATE SKIP LOCKED"
						  : "SELECT FROM behavior._rollup WHERE name = $1 FOR UPDATE",
					 SPI_OK_SELECT, false, 1, &type, &value, NULL) > 0;
	SPI_finish();
	secure_end(&secure);
	return found;
}

/* "schema.name", quoted; NULL when the relation is gone. */
char *
rollup_qualified(Oid relid)
{
	char *name = get_rel_name(relid);

	if (name == NULL)
		return NULL;
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), name);
}

static void
forget_relation(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS seq;
	RollupPlan *plan;

	hash_seq_init(&seq, plans);
	while ((plan = hash_seq_search(&seq)) != NULL)
	{
		if (!OidIsValid(relid) || plan->definition == relid || plan->storage == relid)
			plan->valid = false;
	}
}

static void
forget_all(Datum arg, int cacheid, uint32 hashvalue)
{
	forget_relation(arg, InvalidOid);
}

static void
make_plans(void)
{
	HASHCTL ctl = {0};

	ctl.keysize = 2 * sizeof(Oid);
	ctl.entrysize = sizeof(RollupPlan);
	plans = hash_create("behavior rollups", 32, &ctl, HASH_ELEM | HASH_BLOBS);
	invalidation_call(forget_relation);
	CacheRegisterSyscacheCallback(PROCOID, forget_all, (Datum) 0);
	CacheRegisterSyscacheCallback(OPEROID, forget_all, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, forget_all, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, forget_all, (Datum) 0);
}

static TupleDesc
partial_desc(const RollupShape *shape)
{
	TupleDesc desc = CreateTemplateTupleDesc(1 + shape->nkeys + shape->npartials);

	TupleDescInitEntry(desc, 1, "key_hash", UUIDOID, -1, 0);
	for (int i = 0; i < shape->nkeys + shape->npartials; i++)
	{
		bool is_key = i < shape->nkeys;
		const RollupColumn *column = is_key ? &shape->keys[i] : &shape->partials[i - shape->nkeys];

		TupleDescInitEntry(
			desc, i + 2,
			psprintf("%c_%d", is_key ? 'k' : 's', is_key ? i + 1 : i - shape->nkeys + 1),
			column->type, column->typmod, 0);
		TupleDescInitEntryCollation(desc, i + 2, column->collation);
	}
	return desc;
}

/* Prepares a statement over an ephemeral relation, and keeps the plan. */
static SPIPlanPtr
prepare_over(const char *sql, const char *relation, TupleDesc desc)
{
	EphemeralNamedRelationData enr = {{0}};
	SPIPlanPtr plan;
	int rc;

	enr.md.name = (char *) relation;
	enr.md.tupdesc = desc;
	enr.md.enrtype = ENR_NAMED_TUPLESTORE;
	enr.md.enrtuples = 1000;
	rc = SPI_register_relation(&enr);
	if (rc < 0)
		elog(ERROR, "could not register \"%s\": %s", relation, SPI_result_code_string(rc));
	plan = SPI_prepare(sql, 0, NULL);
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	SPI_unregister_relation(relation);
	return plan;
}

static void
free_plan(RollupPlan *plan)
{
	if (plan->partial != NULL)
		SPI_freeplan(plan->partial);
	if (plan->merge != NULL)
		SPI_freeplan(plan->merge);
	plan->partial = plan->merge = NULL;
	if (plan->context != NULL)
		MemoryContextDelete(plan->context);
	plan->context = NULL;
	plan->hasher = NULL;
	plan->valid = false;
}

/* Each build has a state table of its own for a while: what is kept for those that are gone would
 * add up. */
static void
forget_dropped(const RollupPlan *except)
{
	HASH_SEQ_STATUS seq;
	RollupPlan *plan;

	hash_seq_init(&seq, plans);
	while ((plan = hash_seq_search(&seq)) != NULL)
	{
		Oid key[2] = {plan->definition, plan->storage};

		if (plan == except || plan->valid || plan->in_use > 0 ||
			get_rel_name(plan->storage) != NULL)
			continue;
		free_plan(plan);
		(void) hash_search(plans, key, HASH_REMOVE, NULL);
	}
}

/*
 * The plans of a definition over a state table.  Call between secure_begin(owner) and
 * secure_end(), with SPI connected.
 */
RollupPlan *
rollup_plan(Oid definition, Oid storage)
{
	Oid key[2] = {definition, storage};
	RollupPlan *plan;
	bool found;
	MemoryContext context;
	MemoryContext caller;

	if (plans == NULL)
		make_plans();
	plan = hash_search(plans, key, HASH_ENTER, &found);
	if (!found)
	{
		plan->valid = false;
		plan->in_use = 0;
		plan->context = NULL;
		plan->hasher = NULL;
		plan->partial = plan->merge = NULL;
		forget_dropped(plan);
	}
	/* Without a hasher: making it was interrupted. */
	if ((plan->valid && plan->hasher != NULL) || plan->in_use > 0)
		return plan;

	free_plan(plan);

	if (rollup_qualified(storage) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the state table of a rollup was dropped"),
				 errhint("Drop the rollup with behavior.drop_rollup() and create it again.")));

	context = AllocSetContextCreate(CurrentMemoryContext, "behavior rollup", ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(context);
	plan->shape = rollup_shape(rollup_definition_query(definition));
	plan->desc = partial_desc(plan->shape);
	plan->hasher = rollup_key_hasher(plan->desc, 1, plan->shape->nkeys, plan->shape->time_key);
	plan->large_states = false;
	for (int i = 0; i < plan->shape->npartials; i++)
	{
		if (plan->shape->partials[i].merge == MERGE_AGGREGATE)
			plan->large_states = true;
	}
	plan->groups = PG_INT64_MAX;
	plan->counts = rollup_can_count(plan->shape, plan->hasher);
	MemoryContextSwitchTo(caller);

	/* From here on an invalidation that comes in makes it invalid again. */
	plan->valid = true;
	plan->context = context;
	MemoryContextSetParent(context, CacheMemoryContext);
	return plan;
}

/*
 * The plan that makes groups of events.  Hashing is the faster way, but holds the states of all
 * groups at once: those of sketches, 128 kB each in hll, would go to disk and back.  So these are
 * sorted, unless the last time there were but a few.  Under the same conditions.
 */
SPIPlanPtr
rollup_partial_plan(RollupPlan *plan)
{
	bool sorts = plan->large_states && plan->groups > FEW_GROUPS;

	/* In use by the caller alone: a function in the query may read the rollup itself. */
	if (plan->partial != NULL && plan->sorts != sorts && plan->in_use <= 1)
	{
		SPI_freeplan(plan->partial);
		plan->partial = NULL;
	}
	if (plan->partial == NULL)
	{
		Relation log = table_open(behavior_relid(REL_LOG), AccessShareLock);

		plan->sorts = sorts;
		plan->partial =
			prepare_over(plan->counts ? rollup_keys_sql(plan->shape, rollup_events_sql)
									  : rollup_partial_sql(plan->shape, rollup_events_sql),
						 ROLLUP_EVENTS, RelationGetDescr(log));
		table_close(log, AccessShareLock);
	}
	return plan->partial;
}

/*
 * The plan that merges groups into the state, made when it is first asked for: preparing it locks
 * the state for writing, which a reader's tail must not do.  Under the same conditions.
 */
SPIPlanPtr
rollup_merge_plan(RollupPlan *plan)
{
	if (plan->merge == NULL)
		plan->merge = prepare_over(rollup_merge_sql(plan->shape, rollup_qualified(plan->storage)),
								   "_partials", plan->desc);
	return plan->merge;
}

/* The name of a rollup that has no row, from that of its definition: "_name_definition". */
static char *
relation_of_definition(Oid definition)
{
	static const char *const suffix = "_definition";
	char *name = get_rel_name(definition);
	int length = name != NULL ? strlen(name) - strlen(suffix) : 0;

	if (length > 1 && name[0] == '_' && strcmp(name + length, suffix) == 0)
		name = pnstrdup(name + 1, length - 1);
	return name;
}

/*
 * Raises unless the state that a view reads is whole for the reader's snapshot.  row: as that
 * snapshot sees it, NULL when it sees none for the definition.
 */
void
rollup_check_complete(Oid definition, Oid storage, const RollupRow *row)
{
	RollupRow *latest;
	char *name = relation_of_definition(definition);
	double percent = 0;

	if (row != NULL && row->built && row->storage == storage)
		return;

	latest = rollup_row_by_definition(definition, GetLatestSnapshot());
	if (latest != NULL && latest->built && latest->storage == storage)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("rollup \"%s\" was built anew after this transaction's snapshot was taken",
						latest->name),
				 errhint("Try again in a new transaction.")));
	if (latest != NULL)
	{
		Oid types[] = {TEXTOID};
		Datum values[] = {CStringGetTextDatum(latest->name)};
		SecureContext secure;

		name = latest->name;
		secure_begin(&secure, behavior_owner());
		SPI_connect();
		if (spi_exec("SELECT (100.0 * done_events / total_events)::float8 FROM behavior._log_walk "
					 "WHERE projection = $1 AND total_events > 0 AND done_events IS NOT NULL",
					 SPI_OK_SELECT, true, 1, types, values, NULL) > 0)
		{
			bool isnull;

			percent = DatumGetFloat8(
				SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
		}
		SPI_finish();
		secure_end(&secure);
	}
	ereport(
		ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg("rollup \"%s\" is still being built, %d %% done", name != NULL ? name : "?",
				Min(99, (int) percent)),
		 errhint(
			 "Wait for the background worker, or CALL behavior.tick(). behavior.rollup shows how far it is.")));
}

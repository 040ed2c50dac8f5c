/*
 * rollup_adopt.c
 *		Rollups without rows in our catalog, and rows without a rollup.
 *
 * A schema-only restore brings a rollup's views and tables but none of our rows, and
 * the install script makes the built-in rollup without them.  What a rollup consists
 * of can be read from its live view: the definition and the state are arguments of
 * behavior._tail(), the token is selected from its table.  Whoever writes
 * such a view by hand gets no more than create_rollup() would give: everything
 * must belong to one role that may read behavior.event.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "core/catalog.h"
#include "core/spi.h"
#include "core/transaction.h"
#include "fold/projection.h"
#include "fold/rollup.h"
#include "fold/tick.h"

/* What a call of _tail() or _ready() in a view names. */
typedef struct CallSearch
{
	const char *function;
	Oid definition;
	Oid storage;
	Oid token_table;
} CallSearch;

static Oid
regclass_argument(Node *node)
{
	Const *constant = (Const *) node;

	if (!IsA(node, Const) || constant->constisnull || constant->consttype != REGCLASSOID)
		return InvalidOid;
	return DatumGetObjectId(constant->constvalue);
}

static bool
find_call(Node *node, CallSearch *search)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, find_call, (void *) search, 0);
	if (IsA(node, FuncExpr))
	{
		FuncExpr *call = (FuncExpr *) node;

		if (get_func_namespace(call->funcid) == behavior_schema_oid() &&
			strcmp(get_func_name(call->funcid), search->function) == 0 &&
			list_length(call->args) >= 2)
		{
			search->definition = regclass_argument(linitial(call->args));
			search->storage = regclass_argument(lsecond(call->args));
			if (list_length(call->args) == 3 && IsA(lthird(call->args), SubLink))
			{
				Query *query = (Query *) ((SubLink *) lthird(call->args))->subselect;
				ListCell *lc;

				foreach (lc, query->rtable)
				{
					RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

					if (rte->rtekind == RTE_RELATION)
						search->token_table = rte->relid;
				}
			}
			return true;
		}
	}
	return expression_tree_walker(node, find_call, (void *) search);
}

/* The arguments of the call in a view; false when it has none. */
static bool
call_in_view(Oid relid, const char *function, CallSearch *search)
{
	memset(search, 0, sizeof(*search));
	search->function = function;
	if (get_rel_relkind(relid) != RELKIND_VIEW)
		return false;
	return find_call((Node *) rollup_definition_query(relid), search) &&
		   OidIsValid(search->definition) && OidIsValid(search->storage);
}

/* Views that call a function of ours; "known" is the column of _rollup that holds those we know. */
static List *
views_calling(const char *function, const char *known)
{
	MemoryContext caller = CurrentMemoryContext;
	List *views = NIL;
	SecureContext secure;
	Oid types[] = {TEXTOID};
	Datum values[] = {CStringGetTextDatum(function)};

	secure_begin(&secure, behavior_owner());
	SPI_connect();
	spi_exec(
		psprintf(
			"SELECT DISTINCT r.ev_class FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_rewrite AS r ON r.oid = d.objid "
			"WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass "
			"AND d.refobjid = $1::pg_catalog.regprocedure AND r.ev_class NOT IN (SELECT %s FROM behavior._rollup)",
			known),
		SPI_OK_SELECT, false, 1, types, values, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool isnull;
		Oid view = DatumGetObjectId(
			SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		MemoryContext spi = MemoryContextSwitchTo(caller);

		views = lappend_oid(views, view);
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	secure_end(&secure);
	return views;
}

/* Reads the token, or makes one. */
static void
settle_token(RollupRow *row, Oid owner)
{
	SecureContext secure;
	char *table = rollup_qualified(row->token_table);
	char *sql;
	bool isnull;

	if (!pg_strong_random(&row->token, sizeof(row->token)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate a random token")));
	sql = psprintf(
		"WITH made AS (INSERT INTO %s (token) SELECT %s WHERE NOT EXISTS (SELECT FROM %s) RETURNING token) "
		"SELECT token FROM made UNION ALL SELECT token FROM %s",
		table,
		quote_literal_cstr(
			DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&row->token)))),
		table, table);
	secure_begin(&secure, owner);
	SPI_connect();
	if (SPI_execute(sql, false, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not read the token of a rollup");
	row->token =
		*DatumGetUUIDP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	secure_end(&secure);
}

/* Makes the rows of one rollup, if that is what the view belongs to. */
static void
adopt_view(Oid view)
{
	RollupRow row = {0};
	CallSearch call;
	Oid owner = relation_owner(view);
	SecureContext secure;
	ListCell *lc;
	int64 tick;

	if (!call_in_view(view, "_tail", &call) || !OidIsValid(call.token_table))
		return;
	row.relation = view;
	row.definition = call.definition;
	row.storage = call.storage;
	row.token_table = call.token_table;
	foreach (lc, views_calling("behavior._ready(regclass,regclass)", "folded"))
	{
		if (call_in_view(lfirst_oid(lc), "_ready", &call) && call.definition == row.definition &&
			call.storage == row.storage)
			row.folded = lfirst_oid(lc);
	}
	if (!OidIsValid(row.folded) || relation_owner(row.folded) != owner ||
		relation_owner(row.definition) != owner || relation_owner(row.storage) != owner ||
		relation_owner(row.token_table) != owner ||
		get_rel_relkind(row.definition) != RELKIND_VIEW ||
		pg_class_aclcheck(behavior_relid(REL_EVENT), owner, ACL_SELECT) != ACLCHECK_OK)
		return;
	foreach (lc, rollup_rows(GetLatestSnapshot()))
	{
		RollupRow *known = lfirst(lc);

		/* Also what is being built beside, and views that copy a known one. */
		if (known->storage == row.storage || known->definition == row.definition ||
			known->next_definition == row.definition)
			return;
	}

	rollup_check(rollup_definition_query(row.definition));
	settle_token(&row, owner);
	secure_begin(&secure, owner);
	rollup_ddl(psprintf("DELETE FROM %s", rollup_qualified(row.storage)));
	secure_end(&secure);
	row.name = rollup_projection_name(get_rel_namespace(view), get_rel_name(view));
	tick = tick_last(GetLatestSnapshot());
	row.built = tick == 0;
	rollup_register(&row, tick);
}

/* What belongs to a rollup besides its relation; InvalidOid: there is none. */
#define PARTS 6

static void
parts_of(const RollupRow *row, Oid *relids)
{
	relids[0] = row->folded;
	relids[1] = row->definition;
	relids[2] = row->storage;
	relids[3] = row->token_table;
	relids[4] = row->next_storage;
	relids[5] = row->next_definition != row->definition ? row->next_definition : InvalidOid;
}

/*
 * ALTER VIEW ... OWNER TO has given the relation to another role: the rest follows.  Only where all
 * of the rest still belongs to one role; otherwise somebody has given away a part of
 * it, and what he made of it must not come back to run as the owner.
 */
static void
follow_owner(const RollupRow *row)
{
	Oid owner = relation_owner(row->relation);
	Oid old_owner = relation_owner(row->storage);
	Oid relids[PARTS];

	if (!OidIsValid(owner) || !OidIsValid(old_owner) || owner == old_owner)
		return;
	parts_of(row, relids);
	for (int i = 0; i < PARTS; i++)
	{
		Oid part_owner = OidIsValid(relids[i]) ? relation_owner(relids[i]) : InvalidOid;

		if (OidIsValid(part_owner) && part_owner != old_owner)
			return;
	}
	for (int i = 0; i < PARTS; i++)
	{
		char *name = OidIsValid(relids[i]) ? rollup_qualified(relids[i]) : NULL;

		if (name != NULL)
			rollup_run(psprintf("ALTER %s %s OWNER TO %s",
								get_rel_relkind(relids[i]) == RELKIND_VIEW ? "VIEW" : "TABLE", name,
								quote_identifier(GetUserNameFromId(owner, false))));
	}
}

/* Drops what is left of a rollup whose relation was dropped, and its rows. */
static void
bury(const RollupRow *row)
{
	Oid relids[PARTS];

	if (!rollup_lock(row->name, true))
		return; /* somebody else has just done it */
	parts_of(row, relids);
	ereport(
		WARNING,
		(errmsg("the relation of rollup \"%s\" was dropped; dropping what is left of the rollup",
				row->name),
		 errhint("Use behavior.drop_rollup().")));
	for (int i = 0; i < PARTS; i++)
	{
		char *name = OidIsValid(relids[i]) ? rollup_qualified(relids[i]) : NULL;
		SecureContext secure;

		if (name == NULL)
			continue;
		secure_begin(&secure, relation_owner(relids[i]));
		rollup_ddl(psprintf("DROP %s %s",
							get_rel_relkind(relids[i]) == RELKIND_VIEW ? "VIEW" : "TABLE", name));
		secure_end(&secure);
	}
	rollup_forget(row->name);
}

/* A view that may be a rollup's, or the row of a rollup. */
typedef struct Adoption
{
	Oid view;
	const RollupRow *row; /* NULL: there is none */
} Adoption;

/* StepCallback */
static void
adopt_step(void *arg)
{
	const Adoption *adoption = arg;
	const RollupRow *row = adoption->row;

	if (row != NULL && get_rel_relkind(row->relation) != RELKIND_VIEW)
		bury(row);
	else if (row != NULL)
		follow_owner(row);
	else
		adopt_view(adoption->view);
}

/* A rollup that cannot be adopted must not hold up the tick. */
static void
guarded(Oid view, const RollupRow *row)
{
	Adoption adoption = {view, row};
	ErrorData *error = guard_step(adopt_step, &adoption);

	if (error != NULL)
		warn_of_error(error, NULL, "rollup \"%s\" could not be %s",
					  row != NULL ? row->name : get_rel_name(view),
					  row != NULL ? "put in order" : "adopted");
	CommandCounterIncrement();
}

/* Makes room in a schema: drops what is left there of rollups whose relation was dropped. */
void
rollup_bury_dropped(Oid namespace)
{
	ListCell *lc;

	foreach (lc, rollup_rows(GetLatestSnapshot()))
	{
		RollupRow *row = lfirst(lc);

		if (get_rel_relkind(row->relation) != RELKIND_VIEW &&
			(get_rel_namespace(row->folded) == namespace ||
			 get_rel_namespace(row->storage) == namespace))
			guarded(InvalidOid, row);
	}
}

/* Called at the start of each tick; writes nothing when all is well. */
void
rollup_adopt(void)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "behavior rollup adopt",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	bool pushed = !ActiveSnapshotSet();
	ListCell *lc;

	if (pushed)
		PushActiveSnapshot(GetTransactionSnapshot());
	foreach (lc, rollup_rows(GetLatestSnapshot()))
	{
		RollupRow *row = lfirst(lc);

		if (get_rel_relkind(row->relation) != RELKIND_VIEW ||
			relation_owner(row->relation) != relation_owner(row->storage))
			guarded(InvalidOid, row);
	}
	foreach (lc, views_calling("behavior._tail(regclass,regclass,uuid)", "relation"))
		guarded(lfirst_oid(lc), NULL);
	if (pushed)
		PopActiveSnapshot();
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

/* The role that owns a rollup, by the projection's name.  The built-in one has no row before the
 * first tick. */
Oid
rollup_owner(const char *name)
{
	RollupRow *row = rollup_row_by_name(name, GetLatestSnapshot());
	Oid owner = row != NULL ? relation_owner(row->relation) : InvalidOid;

	if (row == NULL && strcmp(name, "activity") == 0)
		return behavior_owner();
	if (!OidIsValid(owner))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("projection \"%s\" does not exist", name)));
	return owner;
}

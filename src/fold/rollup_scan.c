/*
 * rollup_scan.c
 *		The scan that hands a rollup's plan the events of a tick.
 *
 * Instead of a named tuplestore scan, which fetches each event into a slot, deforms it up to the
 * type, calls texteq and throws most of them away, a custom scan stands in the plan of a partial
 * query: where the events of the tick are listed in memory, it takes those of the types that are
 * asked for and no others, and deforms each once, up to the last column that the query looks at.
 * Elsewhere (halves of a tick that raises, the walk of a build, a tail) it reads the tuplestore.
 *
 * The condition on the type is taken from the plan's own conditions.  It is taken only when nothing
 * that could be noticed is evaluated before it.
 *
 * The hook is set while a partial query is planned and at no other time.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "catalog/pg_operator_d.h"
#include "catalog/pg_type_d.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/restrictinfo.h"
#include "parser/parsetree.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/queryenvironment.h"

#include "core/compat.h"
#include "fold/rollup.h"
#include "fold/tick_events.h"
#include "log/log_deform.h"

/* So many rows ahead memory is asked for. */
#define PREFETCH_ROWS 4

typedef struct EventScan
{
	CustomScanState css;
	LogLayout layout;
	List *types; /* text *, custom_private as Const: other events are left out; NIL: none is */

	/* From the list of rows ... */
	const TickRows *rows; /* NULL: from the tuplestore */
	int64 next;
	bool *wanted; /* by number of a type; NULL: all are */

	/* ... or from the tuplestore. */
	Tuplestorestate *store;
	int pointer;
	TupleTableSlot *fetched;
} EventScan;

static Plan *plan_events(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist,
						 List *clauses, List *custom_plans);
static Node *create_events(CustomScan *plan);
static void begin_events(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *execute_events(CustomScanState *node);
static void end_events(CustomScanState *node);
static void rescan_events(CustomScanState *node);

static const CustomPathMethods path_methods = {.CustomName = "behavior events",
											   .PlanCustomPath = plan_events};
static const CustomScanMethods scan_methods = {.CustomName = "behavior events",
											   .CreateCustomScanState = create_events};
static const CustomExecMethods exec_methods = {.CustomName = "behavior events",
											   .BeginCustomScan = begin_events,
											   .ExecCustomScan = execute_events,
											   .EndCustomScan = end_events,
											   .ReScanCustomScan = rescan_events};

static set_rel_pathlist_hook_type next_hook = NULL;
static int planning = 0; /* begun and not ended: a function may be called that reads a rollup */

/* Constants of "type = 'x'" or "type IN ('x', 'y')" as a list of Const; NIL for another condition.
 */
static List *
types_of_condition(Node *condition, Index relid)
{
	Oid equality;
	Oid collation;
	Var *column;
	Const *value;

	if (IsA(condition, OpExpr) && list_length(((OpExpr *) condition)->args) == 2)
	{
		OpExpr *expression = (OpExpr *) condition;

		equality = expression->opno;
		collation = expression->inputcollid;
		column = linitial(expression->args);
		value = lsecond(expression->args);
	}
	else if (IsA(condition, ScalarArrayOpExpr) && ((ScalarArrayOpExpr *) condition)->useOr)
	{
		ScalarArrayOpExpr *expression = (ScalarArrayOpExpr *) condition;

		equality = expression->opno;
		collation = expression->inputcollid;
		column = linitial(expression->args);
		value = lsecond(expression->args);
	}
	else
		return NIL;

	if (equality != TextEqualOperator || !OidIsValid(collation) ||
		!get_collation_isdeterministic(collation) || !IsA(column, Var) || column->varno != relid ||
		column->varattno != LOG_TYPE || !IsA(value, Const) || value->constisnull)
		return NIL;
	if (IsA(condition, OpExpr))
		return value->consttype == TEXTOID ? list_make1(value) : NIL;
	else
	{
		List *types = NIL;
		Datum *values;
		bool *nulls;
		int count;

		if (value->consttype != TEXTARRAYOID)
			return NIL;
		deconstruct_array(DatumGetArrayTypeP(value->constvalue), TEXTOID, -1, false, TYPALIGN_INT,
						  &values, &nulls, &count);
		for (int i = 0; i < count; i++)
		{
			if (!nulls[i])
				types = lappend(
					types, makeConst(TEXTOID, -1, value->constcollid, -1, values[i], false, false));
		}
		return types;
	}
}

/* Takes the condition on the type out of conditions that are in the order of their evaluation. */
static List *
take_types(List **conditions, Index relid)
{
	ListCell *lc;

	foreach (lc, *conditions)
	{
		Node *condition = lfirst(lc);
		List *types = types_of_condition(condition, relid);

		if (types != NIL)
		{
			*conditions = list_delete_cell(*conditions, lc);
			return types;
		}
		/* It may raise or leave a trace for an event of any type. */
		if (contain_volatile_functions(condition) || contain_leaked_vars(condition))
			break;
	}
	return NIL;
}

/* CustomPathMethods */
static Plan *
plan_events(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist, List *clauses,
			List *custom_plans)
{
	CustomScan *scan = makeNode(CustomScan);
	RangeTblEntry *rte = planner_rt_fetch(rel->relid, root);
	List *conditions = extract_actual_clauses(clauses, false);
	List *types = take_types(&conditions, rel->relid);

	for (int i = 0; i < list_length(rte->coltypes); i++)
	{
		Var *column =
			makeVar(rel->relid, i + 1, list_nth_oid(rte->coltypes, i),
					list_nth_int(rte->coltypmods, i), list_nth_oid(rte->colcollations, i), 0);

		scan->custom_scan_tlist =
			lappend(scan->custom_scan_tlist, makeTargetEntry((Expr *) column, i + 1, NULL, false));
	}
	/* Another target list may take the place of this one: what it looks at is seen by the scan. */
	scan->scan.plan.targetlist = tlist;
	scan->scan.plan.qual = conditions;
	scan->scan.scanrelid = 0; /* no table: the columns are those of custom_scan_tlist */
	scan->flags = path->flags;
	scan->custom_private = types;
	scan->methods = &scan_methods;
	return (Plan *) scan;
}

/* set_rel_pathlist_hook */
static void
offer_path(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte)
{
	CustomPath *path;
	Path *other;

	if (next_hook != NULL)
		next_hook(root, rel, rti, rte);
	if (rte->rtekind != RTE_NAMEDTUPLESTORE || strcmp(rte->enrname, ROLLUP_EVENTS) != 0 ||
		list_length(rte->coltypes) != LOG_NATTS || list_member_oid(rte->coltypes, InvalidOid) ||
		rel->pathlist == NIL || !bms_is_empty(rel->lateral_relids) ||
		!bms_is_empty(rel->attr_needed[0 - rel->min_attr]))
		return;
	other = linitial(rel->pathlist);
	path = makeNode(CustomPath);
	path->path.pathtype = T_CustomScan;
	path->path.parent = rel;
	path->path.pathtarget = rel->reltarget;
	path->path.rows = rel->rows;
	path->path.startup_cost = other->startup_cost;
	path->path.total_cost = other->total_cost;
	path->flags = CUSTOMPATH_SUPPORT_PROJECTION;
	path->methods = &path_methods;
	rel->pathlist = list_make1(path);
}

/* Until rollup_scan_end() plans read ROLLUP_EVENTS by a scan of ours. */
void
rollup_scan_begin(void)
{
	static bool registered = false;

	if (!registered)
		RegisterCustomScanMethods(&scan_methods);
	registered = true;
	if (planning++ > 0)
		return;
	next_hook = set_rel_pathlist_hook;
	set_rel_pathlist_hook = offer_path;
}

void
rollup_scan_end(void)
{
	if (--planning == 0)
		set_rel_pathlist_hook = next_hook;
}

/* CustomScanMethods */
static Node *
create_events(CustomScan *plan)
{
	EventScan *scan = palloc0(sizeof(EventScan));

	NodeSetTag(scan, T_CustomScanState);
	scan->css.methods = &exec_methods;
	return (Node *) scan;
}

static bool
is_wanted(const EventScan *scan, const char *data, uint32 length)
{
	ListCell *lc;

	foreach (lc, scan->types)
	{
		const text *type = lfirst(lc);

		if (VARSIZE_ANY_EXHDR(type) == length && memcmp(VARDATA_ANY(type), data, length) == 0)
			return true;
	}
	return false;
}

/* Which numbers of types are asked for; those not told apart are compared with each event. */
static void
find_wanted(EventScan *scan)
{
	scan->wanted = palloc0(TICK_ROWS_TYPES + 1);
	scan->wanted[TICK_ROWS_OTHER_TYPE] = true;
	for (int i = 1; i <= scan->rows->ntypes; i++)
		scan->wanted[i] = is_wanted(scan, scan->rows->types[i].data, scan->rows->types[i].length);
}

/* The last column that a plan's expressions look at; they refer to those of custom_scan_tlist. */
static int
last_column(const Plan *plan)
{
	Bitmapset *columns = NULL;

	pull_varattnos((Node *) plan->targetlist, INDEX_VAR, &columns);
	pull_varattnos((Node *) plan->qual, INDEX_VAR, &columns);
	return bms_is_empty(columns)
			   ? 0
			   : bms_prev_member(columns, -1) + FirstLowInvalidHeapAttributeNumber;
}

/* CustomExecMethods */
static void
begin_events(CustomScanState *node, EState *estate, int eflags)
{
	EventScan *scan = (EventScan *) node;
	CustomScan *plan = (CustomScan *) node->ss.ps.plan;
	EphemeralNamedRelation events = get_ENR(estate->es_queryEnv, ROLLUP_EVENTS);
	int last = last_column(&plan->scan.plan);
	ListCell *lc;
	TupleDesc desc;

	if (events == NULL || events->reldata == NULL)
		elog(ERROR, "could not find the events of a rollup");
	foreach (lc, plan->custom_private)
		scan->types = lappend(scan->types, DatumGetTextPP(lfirst_node(Const, lc)->constvalue));
	if (scan->types != NIL)
		last = Max(last, LOG_TYPE);
	desc = ENRMetadataGetTupDesc(&events->md);
	if (!log_layout_init(&scan->layout, desc, last))
		elog(ERROR, "unexpected columns of a rollup's events");

	scan->store = events->reldata;
	scan->rows = tick_events_rows(scan->store, scan->types != NIL);
	if (scan->rows == NULL)
	{
		scan->pointer = tuplestore_alloc_read_pointer(scan->store, EXEC_FLAG_REWIND);
		scan->fetched = ExecInitExtraTupleSlot(estate, desc, &TTSOpsMinimalTuple);
	}
	else if (scan->types != NIL)
		find_wanted(scan);
	memset(node->ss.ss_ScanTupleSlot->tts_isnull, true, sizeof(bool) * LOG_NATTS);
	rescan_events(node);
}

static void
rescan_events(CustomScanState *node)
{
	EventScan *scan = (EventScan *) node;

	ExecScanReScan(&node->ss);
	scan->next = 0;
	if (scan->rows != NULL)
		return;
	tuplestore_select_read_pointer(scan->store, scan->pointer);
	tuplestore_rescan(scan->store);
}

static void
end_events(CustomScanState *node)
{
	EventScan *scan = (EventScan *) node;

	if (scan->fetched != NULL)
		ExecClearTuple(scan->fetched);
}

/* The next row that may be asked for; *compare: its type is to be looked at.  NULL at the end. */
static inline MinimalTuple
next_row(EventScan *scan, bool *compare)
{
	const TickRows *rows = scan->rows;

	if (rows == NULL)
	{
		*compare = scan->types != NIL;
		tuplestore_select_read_pointer(scan->store, scan->pointer);
		if (!tuplestore_gettupleslot(scan->store, true, false, scan->fetched))
			return NULL;
		return ((MinimalTupleTableSlot *) scan->fetched)->mintuple;
	}
	if (scan->wanted != NULL)
	{
		while (scan->next < rows->count && !scan->wanted[rows->type_of[scan->next]])
			scan->next++;
	}
	if (scan->next == rows->count)
		return NULL;
	if (scan->next + PREFETCH_ROWS < rows->count)
		prefetch_memory(rows->rows[scan->next + PREFETCH_ROWS]);
	*compare = scan->wanted != NULL && rows->type_of[scan->next] == TICK_ROWS_OTHER_TYPE;
	return rows->rows[scan->next++];
}

static bool
has_wanted_type(const EventScan *scan, const TupleTableSlot *slot)
{
	struct varlena *type;
	bool wanted;

	if (slot->tts_isnull[LOG_TYPE - 1])
		return false;
	type = PG_DETOAST_DATUM_PACKED(slot->tts_values[LOG_TYPE - 1]);
	wanted = is_wanted(scan, VARDATA_ANY(type), VARSIZE_ANY_EXHDR(type));
	if ((Pointer) type != DatumGetPointer(slot->tts_values[LOG_TYPE - 1]))
		pfree(type);
	return wanted;
}

/* ExecScanAccessMtd */
static TupleTableSlot *
next_event(ScanState *node)
{
	EventScan *scan = (EventScan *) node;
	TupleTableSlot *slot = node->ss_ScanTupleSlot;
	MinimalTuple row;
	bool compare = false;

	ExecClearTuple(slot);
	while ((row = next_row(scan, &compare)) != NULL)
	{
		log_deform(&scan->layout, row, slot->tts_values, slot->tts_isnull);
		if (!compare || has_wanted_type(scan, slot))
			return ExecStoreVirtualTuple(slot);
		CHECK_FOR_INTERRUPTS();
	}
	return slot;
}

/* ExecScanRecheckMtd */
static bool
recheck_event(ScanState *node, TupleTableSlot *slot)
{
	return true;
}

static TupleTableSlot *
execute_events(CustomScanState *node)
{
	return ExecScan(&node->ss, next_event, recheck_event);
}

/*
 * rollup_refuse.c
 *		What a rollup's query may not say.
 *
 * Every refusal is 0A000, names the expression and gives its replacement in the
 * hint.  Expressions are deparsed under the caller's search_path, the way the
 * caller would write them (rollup_shown.c).
 */
#include "postgres.h"

#include "catalog/pg_aggregate.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "fold/rollup.h"

typedef struct RefuseContext
{
	List *dpcontext;
	Node *found; /* offending expression */
	AttrNumber tick_id;
} RefuseContext;

#define refuse(message, ...)                                                                       \
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg message, errhint(__VA_ARGS__)))

static char *
shown(const RefuseContext *context, Node *expression)
{
	return rollup_shown(expression, context->dpcontext);
}

static bool
is_mutable(Oid function, void *context)
{
	return func_volatile(function) != PROVOLATILE_IMMUTABLE;
}

/* Finds the innermost call that is not immutable. */
static bool
find_mutable(Node *node, RefuseContext *context)
{
	if (node == NULL)
		return false;
	if (expression_tree_walker(node, find_mutable, (void *) context))
		return true;
	if (check_functions_in_node(node, is_mutable, NULL) || IsA(node, SQLValueFunction) ||
		IsA(node, NextValueExpr))
	{
		context->found = node;
		return true;
	}
	return false;
}

/* Finds a window function, a set-returning call or a sub-select, so that a refusal can name it. */
static bool
find_foreign(Node *node, RefuseContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, WindowFunc) || IsA(node, SubLink) ||
		(IsA(node, FuncExpr) && ((FuncExpr *) node)->funcretset) ||
		(IsA(node, OpExpr) && ((OpExpr *) node)->opretset))
	{
		context->found = node;
		return true;
	}
	return expression_tree_walker(node, find_foreign, (void *) context);
}

static bool
find_tick_id(Node *node, RefuseContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var) && (((Var *) node)->varattno == context->tick_id ||
						   ((Var *) node)->varattno == InvalidAttrNumber))
	{
		context->found = node;
		return true;
	}
	return expression_tree_walker(node, find_tick_id, (void *) context);
}

static void
check_mutable(RefuseContext *context, Node *node)
{
	if (find_mutable(node, context))
	{
		char *hint = rollup_replacement(context->found, context->dpcontext);

		refuse(("a rollup cannot keep %s, which is not immutable", shown(context, context->found)),
			   "%s", hint);
	}
}

static bool
check_aggregates(Node *node, RefuseContext *context)
{
	RollupMerge merge;
	bool is_average;
	bool exact_float;
	char *merge_aggregate;
	char *compare;
	Aggref *aggref = (Aggref *) node;

	if (node == NULL)
		return false;
	if (IsA(node, GroupingFunc))
		refuse(("a rollup cannot keep %s", shown(context, node)),
			   "Leave it out: a rollup has no grouping sets.");
	if (!IsA(node, Aggref))
		return expression_tree_walker(node, check_aggregates, (void *) context);

	if (aggref->aggkind != AGGKIND_NORMAL)
		refuse(
			("a rollup cannot keep %s, an ordered-set aggregate", shown(context, node)),
			"Its result cannot be merged. For percentiles keep tdigest(x, 100) of extension tdigest and read tdigest_percentile(tdigest(d), 0.95).");
	if (aggref->aggdistinct != NIL)
	{
		char *argument = shown(context, (Node *) linitial_node(TargetEntry, aggref->args)->expr);

		refuse(
			("a rollup cannot keep %s", shown(context, node)),
			"Group by %s as well and count when reading the rollup, or keep an estimate: hll_add_agg(hll_hash_text(%s)) of extension hll.",
			argument, argument);
	}
	if (aggref->aggorder != NIL)
		refuse(("a rollup cannot keep %s, an ordered aggregate", shown(context, node)),
			   "Events arrive in any order: leave out ORDER BY, or use min() and max().");
	if (!rollup_aggregate_kind(aggref, &merge, &is_average, &exact_float, &merge_aggregate,
							   &compare))
	{
		char *name = get_func_name(aggref->aggfnoid);
		const char *hint = "behavior.aggregate_merge lists the aggregates whose results merge.";

		if (strncmp(name, "stddev", 6) == 0 || strncmp(name, "var", 3) == 0)
			hint = "Keep count(x), sum(x) and sum(x * x), and compute it when reading the rollup.";
		else if (strcmp(name, "string_agg") == 0 || strcmp(name, "array_agg") == 0 ||
				 strncmp(name, "json", 4) == 0)
			hint = "Group by its argument, and collect the values when reading the rollup.";
		refuse(("a rollup cannot keep %s: no rule merges its results", shown(context, node)), "%s",
			   hint);
	}
	return false;
}

typedef struct NoticeContext
{
	RefuseContext *refuse;
	List *seen;
} NoticeContext;

/* Names casts of properties that raise when the value is not what the cast expects. */
static bool
note_casts(Node *node, NoticeContext *context)
{
	Oid result = InvalidOid;
	Node *argument = NULL;

	if (node == NULL)
		return false;
	if (IsA(node, CoerceViaIO))
	{
		result = ((CoerceViaIO *) node)->resulttype;
		argument = (Node *) ((CoerceViaIO *) node)->arg;
		if (getBaseType(exprType(argument)) != TEXTOID)
			argument = NULL;
	}
	else if (IsA(node, FuncExpr) && list_length(((FuncExpr *) node)->args) >= 1 &&
			 ((FuncExpr *) node)->funcformat != COERCE_EXPLICIT_CALL &&
			 exprType(linitial(((FuncExpr *) node)->args)) == JSONBOID)
	{
		result = ((FuncExpr *) node)->funcresulttype;
		argument = linitial(((FuncExpr *) node)->args);
	}

	if (argument != NULL && !IsA(argument, Const))
	{
		const char *function = NULL;
		const char *back = "";

		switch (getBaseType(result))
		{
			case NUMERICOID:
				function = "try_numeric";
				break;
			case FLOAT4OID:
				function = "try_numeric";
				back = "::real";
				break;
			case FLOAT8OID:
				function = "try_numeric";
				back = "::double precision";
				break;
			case INT8OID:
			case INT4OID:
			case INT2OID:
				function = "try_bigint";
				break;
			case BOOLOID:
				function = "try_boolean";
				break;
		}
		if (function != NULL && !list_member(context->seen, node))
		{
			char *text = shown(context->refuse, argument);

			context->seen = lappend(context->seen, node);
			if (exprType(argument) == JSONBOID)
				text = psprintf("%s #>> '{}'", text);
			ereport(
				NOTICE,
				(errmsg(
					 "%s raises for an event whose value is no such thing, and that event is then left out of the rollup",
					 shown(context->refuse, node)),
				 errhint("behavior.%s(%s)%s gives NULL instead.", function, text, back)));
		}
	}
	return expression_tree_walker(node, note_casts, (void *) context);
}

/* Raises 0A000 unless a rollup can keep the query; notes casts that can raise. */
void
rollup_check(Query *query)
{
	RefuseContext context = {0};
	NoticeContext notice = {0};
	int rtindex;
	List *targets;
	Node *where;
	ListCell *lc;

	if (query->commandType != CMD_SELECT || query->utilityStmt != NULL)
		refuse(("a rollup keeps a SELECT"),
			   "Write SELECT ... FROM behavior.event [WHERE ...] [GROUP BY ...].");
	if (query->cteList != NIL)
		refuse(("a rollup cannot keep WITH"),
			   "Write one SELECT FROM behavior.event; combine rollups in a view on top of them.");
	if (query->setOperations != NULL)
		refuse(("a rollup cannot keep UNION, INTERSECT or EXCEPT"),
			   "Make a rollup of each SELECT, and a view that combines them.");
	rtindex = rollup_event_rtindex(query);
	if (rtindex == 0)
		refuse(("a rollup reads behavior.event and nothing else"),
			   "Write FROM behavior.event; join other tables when reading the rollup.");

	targets = copyObject(rollup_target_list(query));
	where = copyObject(query->jointree->quals);
	ChangeVarNodes((Node *) targets, rtindex, 1, 0);
	ChangeVarNodes(where, rtindex, 1, 0);
	context.dpcontext = deparse_context_for("event", behavior_relid(REL_EVENT));
	context.tick_id = get_attnum(behavior_relid(REL_EVENT), "tick_id");

	if (query->distinctClause != NIL || query->hasDistinctOn)
		refuse(("a rollup cannot keep SELECT DISTINCT"),
			   "Write GROUP BY with the same expressions.");
	if (find_foreign((Node *) targets, &context) || find_foreign(where, &context))
	{
		if (IsA(context.found, SubLink))
			refuse(("a rollup cannot keep a sub-select: %s", shown(&context, context.found)),
				   "Join the rollup to other tables when reading it: a view on top of it is fine.");
		if (IsA(context.found, WindowFunc))
			refuse(("a rollup cannot keep %s, a window function",
					psprintf("%s(...) OVER (...)",
							 get_func_name(((WindowFunc *) context.found)->winfnoid))),
				   "Use it when reading the rollup.");
		refuse(("a rollup cannot keep %s, which returns a set", shown(&context, context.found)),
			   "Group by the whole value, and unnest it when reading the rollup.");
	}
	if (query->havingQual != NULL)
	{
		Node *having = copyObject(query->havingQual);

		ChangeVarNodes(having, rtindex, 1, 0);
		refuse(("a rollup cannot keep HAVING %s", shown(&context, having)),
			   "Write it as WHERE when reading the rollup.");
	}
	if (query->groupingSets != NIL)
		refuse(("a rollup cannot keep GROUPING SETS, ROLLUP or CUBE"),
			   "Group by the finest set, and use grouping sets when reading the rollup.");
	if (query->sortClause != NIL)
		refuse(
			("a rollup cannot keep ORDER BY %s",
			 shown(&context,
				   (Node *) get_sortgroupref_tle(
					   linitial_node(SortGroupClause, query->sortClause)->tleSortGroupRef, targets)
					   ->expr)),
			"Order when reading the rollup.");
	if (query->limitCount != NULL || query->limitOffset != NULL)
		refuse(("a rollup cannot keep LIMIT or OFFSET"), "Limit when reading the rollup.");
	if (query->rowMarks != NIL)
		refuse(("a rollup cannot keep FOR UPDATE or FOR SHARE"), "Leave it out.");
	if (!query->hasAggs && query->groupClause == NIL)
		refuse(("a rollup without an aggregate and without GROUP BY would be a copy of the events"),
			   "Add an aggregate such as count(*), or GROUP BY.");
	if (targets == NIL || linitial_node(TargetEntry, targets)->resjunk)
		refuse(("a rollup needs a column"), "Select a grouping expression or an aggregate.");

	if (find_tick_id((Node *) targets, &context) || find_tick_id(where, &context))
	{
		if (((Var *) context.found)->varattno == InvalidAttrNumber)
			refuse(("a rollup cannot keep the whole row of behavior.event"), "Name the columns.");
		refuse(("a rollup cannot keep tick_id, which an event gets after it was sent"),
			   "Use received_at or batch_id, or read behavior.event by tick_id.");
	}
	check_aggregates((Node *) targets, &context);
	check_mutable(&context, (Node *) targets);
	check_mutable(&context, where);
	foreach (lc, query->groupClause)
	{
		Node *key = (Node *) get_sortgroupref_tle(lfirst_node(SortGroupClause, lc)->tleSortGroupRef,
												  targets)
						->expr;

		rollup_check_key_type(exprType(key), exprCollation(key), shown(&context, key));
	}

	notice.refuse = &context;
	note_casts((Node *) targets, &notice);
	note_casts(where, &notice);
}

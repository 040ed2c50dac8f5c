/*
 * rollup_query.c
 *		What a rollup's query means: keys, partial aggregates, and the answer over them.
 *
 * Works on the analyzed query, as the definition view stores it, and makes texts
 * of its expressions.  Texts are deparsed and parsed again under pinned settings: with search_path
 * "pg_catalog, pg_temp" everything outside pg_catalog is qualified, the way pg_dump does
 * it, and a constant reads back as the same value whatever the session's DateStyle.
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "rewrite/rewriteSupport.h"
#include "access/relation.h"
#include "rewrite/prs2lock.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/spi.h"
#include "fold/rollup.h"

typedef struct ShapeContext
{
	RollupShape *shape;
	List *dpcontext;
	List *keys;		  /* of expressions */
	List *aggregates; /* of distinct Aggref */
} ShapeContext;

/* The query of a definition view, as a copy that the caller may change. */
Query *
rollup_definition_query(Oid definition)
{
	Relation rel = try_relation_open(definition, AccessShareLock);
	Query *query = NULL;

	if (rel == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("the definition of a rollup was dropped")));
	if (rel->rd_rel->relkind == RELKIND_VIEW && rel->rd_rules != NULL &&
		rel->rd_rules->numLocks == 1)
		query = copyObject(linitial_node(Query, rel->rd_rules->rules[0]->actions));
	relation_close(rel, NoLock);
	if (query == NULL)
		elog(ERROR, "relation %u is no definition of a rollup", definition);
	return query;
}

/* Range table index of behavior.event, 0 when the query does not read just that. */
int
rollup_event_rtindex(Query *query)
{
	RangeTblRef *ref;
	RangeTblEntry *rte;

	if (query->jointree == NULL || list_length(query->jointree->fromlist) != 1)
		return 0;
	ref = (RangeTblRef *) linitial(query->jointree->fromlist);
	if (!IsA(ref, RangeTblRef))
		return 0;
	rte = rt_fetch(ref->rtindex, query->rtable);
	if (rte->rtekind != RTE_RELATION || rte->relid != behavior_relid(REL_EVENT) ||
		rte->tablesample != NULL)
		return 0;
	return ref->rtindex;
}

/* The target list, with expressions over the event where a version of PostgreSQL keeps references
 * to GROUP BY. */
List *
rollup_target_list(Query *query)
{
	return query_ungrouped_targets(query);
}

/* The extension that a function belongs to, NULL for none. */
static char *
extension_of(Oid function)
{
	Oid extension = getExtensionOfObject(ProcedureRelationId, function);

	return OidIsValid(extension) ? get_extension_name(extension) : NULL;
}

/*
 * How partial results of an aggregate merge; false when no rule is known.  merge_aggregate: name
 * within the aggregate's own schema; compare: what stands for a value whose merge is not exact.
 */
bool
rollup_aggregate_kind(Aggref *aggref, RollupMerge *merge, bool *is_average, bool *exact_float,
					  char **merge_aggregate, char **compare)
{
	static const struct
	{
		const char *name;
		RollupMerge merge;
	} builtin[] = {
		{"count", MERGE_COUNT},	  {"sum", MERGE_ADD},	   {"avg", MERGE_ADD},
		{"min", MERGE_LEAST},	  {"max", MERGE_GREATEST}, {"bool_and", MERGE_AND},
		{"every", MERGE_AND},	  {"bool_or", MERGE_OR},   {"bit_and", MERGE_BIT_AND},
		{"bit_or", MERGE_BIT_OR},
	};
	char *name = get_func_name(aggref->aggfnoid);
	Oid namespace = get_func_namespace(aggref->aggfnoid);
	char *extension;

	*is_average = *exact_float = false;
	*merge_aggregate = *compare = NULL;
	if (name == NULL)
		return false;
	extension = extension_of(aggref->aggfnoid);

	if (namespace == PG_CATALOG_NAMESPACE && extension == NULL)
	{
		for (int i = 0; i < lengthof(builtin); i++)
		{
			if (strcmp(name, builtin[i].name) == 0)
			{
				*merge = builtin[i].merge;
				*is_average = strcmp(name, "avg") == 0;
				if (*merge == MERGE_ADD)
				{
					Oid argument = linitial_oid(aggref->aggargtypes);

					*exact_float = argument == FLOAT4OID || argument == FLOAT8OID;
				}
				return true;
			}
		}
		return false;
	}
	if (extension == NULL)
		return false;

	*merge = MERGE_AGGREGATE;
	if (strcmp(extension, "hll") == 0 &&
		(strcmp(name, "hll_add_agg") == 0 || strcmp(name, "hll_union_agg") == 0))
		*merge_aggregate = "hll_union_agg";
	else if (strcmp(extension, "tdigest") == 0 && strcmp(name, "tdigest") == 0)
	{
		*merge_aggregate = "tdigest";
		*compare = "tdigest_count";
	}
	return *merge_aggregate != NULL;
}

/* A type as a column definition needs it. */
static char *
type_name(Oid type, int32 typmod, Oid collation)
{
	char *name = format_type_with_typemod(type, typmod);
	HeapTuple tuple;

	if (!OidIsValid(collation) || collation == get_typcollation(type))
		return name;
	tuple = SearchSysCache1(COLLOID, ObjectIdGetDatum(collation));
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_collation form = (Form_pg_collation) GETSTRUCT(tuple);

		name = psprintf("%s COLLATE %s", name,
						quote_qualified_identifier(get_namespace_name(form->collnamespace),
												   NameStr(form->collname)));
		ReleaseSysCache(tuple);
	}
	return name;
}

static char *
deparse(ShapeContext *context, Node *expression)
{
	return deparse_expression(expression, context->dpcontext, true, true);
}

static void
fill_column(RollupColumn *column, char *sql, Oid type, int32 typmod, Oid collation)
{
	if (get_typtype(type) == TYPTYPE_PSEUDO)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("a rollup cannot keep %s, which is of pseudo-type %s", sql,
							   format_type_be(type))));
	column->sql = sql;
	column->type = type;
	column->typmod = typmod;
	column->collation = collation;
	column->type_name = type_name(type, typmod, collation);
}

/* Number (1-based) of the partial with this text, added when it is new. */
static int
add_partial(RollupShape *shape, char *sql, Oid type, Oid collation, RollupMerge merge)
{
	RollupColumn *column;

	for (int i = 0; i < shape->npartials; i++)
	{
		if (strcmp(shape->partials[i].sql, sql) == 0)
			return i + 1;
	}
	shape->partials = repalloc(shape->partials, sizeof(RollupColumn) * (shape->npartials + 1));
	column = &shape->partials[shape->npartials++];
	memset(column, 0, sizeof(*column));
	fill_column(column, sql, type, -1, collation);
	column->merge = merge;
	return shape->npartials;
}

/*
 * A kept exact sum as the float it stands for.  What is beyond the type's range is infinite:
 * raising would make the whole relation unreadable for the sake of one group.
 */
static char *
float_of(const char *column, bool narrow)
{
	const char *type = narrow ? "real" : "double precision";

	return psprintf(
		"(CASE WHEN pg_catalog.abs(%s) > '%s'::numeric AND pg_catalog.abs(%s) < 'Infinity'::numeric "
		"THEN (pg_catalog.sign(%s) * 'Infinity'::numeric)::%s ELSE %s::%s END)",
		column, narrow ? "3.4028235e38" : "1.7976931348623157e308", column, column, type, column,
		type);
}

/* "name(argument) FILTER (...)" in pg_catalog. */
static char *
call_of(const char *name, const char *argument, const char *filter)
{
	if (filter == NULL)
		return psprintf("pg_catalog.%s(%s)", name, argument);
	return psprintf("pg_catalog.%s(%s) FILTER (WHERE %s)", name, argument, filter);
}

/*
 * hll_add_agg with all its arguments: left out, they come from the session (hll_set_defaults), and
 * sketches of different sessions would not merge.
 */
static char *
hll_call(ShapeContext *context, Aggref *aggref, const char *filter)
{
	static const char *const defaults[] = {"11", "5", "-1", "1"};
	StringInfoData buf;
	ListCell *lc;

	initStringInfo(&buf);
	appendStringInfo(
		&buf, "%s(",
		quote_qualified_identifier(get_namespace_name(get_func_namespace(aggref->aggfnoid)),
								   get_func_name(aggref->aggfnoid)));
	foreach (lc, aggref->args)
		appendStringInfo(&buf, "%s%s", foreach_current_index(lc) > 0 ? ", " : "",
						 deparse(context, (Node *) lfirst_node(TargetEntry, lc)->expr));
	for (int i = list_length(aggref->args) - 1; i < lengthof(defaults); i++)
		appendStringInfo(&buf, ", %s", defaults[i]);
	appendStringInfoChar(&buf, ')');
	if (filter != NULL)
		appendStringInfo(&buf, " FILTER (WHERE %s)", filter);
	return buf.data;
}

/* Adds the partials of one aggregate, and returns the text that finishes it. */
static char *
add_aggregate(ShapeContext *context, Aggref *aggref)
{
	RollupShape *shape = context->shape;
	RollupMerge merge;
	bool is_average;
	bool exact_float;
	char *merge_aggregate;
	char *compare;
	char *argument = NULL;
	char *filter = NULL;
	Oid argument_type = InvalidOid;
	char *sum;
	char *count;
	int n;

	if (!rollup_aggregate_kind(aggref, &merge, &is_average, &exact_float, &merge_aggregate,
							   &compare))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a rollup cannot merge aggregate %s", format_procedure(aggref->aggfnoid))));

	if (aggref->args != NIL)
	{
		argument = deparse(context, (Node *) linitial_node(TargetEntry, aggref->args)->expr);
		argument_type = linitial_oid(aggref->aggargtypes);
	}
	if (aggref->aggfilter != NULL)
		filter = deparse(context, (Node *) aggref->aggfilter);

	if (merge == MERGE_AGGREGATE)
	{
		bool is_hll_add = strcmp(get_func_name(aggref->aggfnoid), "hll_add_agg") == 0;

		n = add_partial(shape,
						is_hll_add ? hll_call(context, aggref, filter)
								   : deparse(context, (Node *) aggref),
						aggref->aggtype, aggref->aggcollid, merge);
		shape->partials[n - 1].merge_aggregate = quote_qualified_identifier(
			get_namespace_name(get_func_namespace(aggref->aggfnoid)), merge_aggregate);
		if (compare != NULL)
			shape->partials[n - 1].compare = quote_qualified_identifier(
				get_namespace_name(get_func_namespace(aggref->aggfnoid)), compare);
		return psprintf("s_%d", n);
	}
	if (!is_average && !exact_float)
	{
		n = add_partial(shape, deparse(context, (Node *) aggref), aggref->aggtype,
						aggref->aggcollid, merge);
		if (aggref->aggstar && merge == MERGE_COUNT)
			shape->partials[n - 1].counts = filter != NULL ? filter : "true";
		return psprintf("s_%d", n);
	}

	if (exact_float)
	{
		/* The shortest decimal that reads back as the same float8; numeric addition is exact in any
		 * order. */
		char *exact = psprintf("(((%s)::double precision)::text)::numeric", argument);

		n = add_partial(shape, call_of("sum", exact, filter), NUMERICOID, InvalidOid, MERGE_ADD);
		if (!is_average)
			return float_of(psprintf("s_%d", n), argument_type == FLOAT4OID);
		sum = float_of(psprintf("s_%d", n), false);
	}
	else
	{
		Oid type = NUMERICOID;

		if (argument_type == INT2OID || argument_type == INT4OID)
			type = INT8OID;
		else if (argument_type == INTERVALOID)
			type = INTERVALOID;
		n = add_partial(shape, call_of("sum", argument, filter), type, InvalidOid, MERGE_ADD);
		sum = psprintf("s_%d%s", n, argument_type == INTERVALOID ? "" : "::numeric");
	}
	n = add_partial(shape, call_of("count", argument, filter), INT8OID, InvalidOid, MERGE_COUNT);
	count = psprintf("s_%d::%s", n,
					 exact_float || argument_type == INTERVALOID ? "double precision" : "numeric");
	/* No value: no sum.  The state then says sum NULL, count 0, and NULL / 0 is NULL. */
	return psprintf("(%s / %s)", sum, count);
}

static bool
collect_aggregates(Node *node, ShapeContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Aggref))
	{
		if (!list_member(context->aggregates, node))
			context->aggregates = lappend(context->aggregates, node);
		return false;
	}
	return expression_tree_walker(node, collect_aggregates, (void *) context);
}

/* Replaces keys and aggregates by columns 1.. of the relation that the answer is read from. */
static Node *
answer_mutator(Node *node, ShapeContext *context)
{
	ListCell *lc;
	int column = 0;

	if (node == NULL)
		return NULL;
	foreach (lc, context->keys)
	{
		column++;
		if (equal(node, lfirst(lc)))
			return (Node *) makeVar(1, column, exprType(node), exprTypmod(node),
									exprCollation(node), 0);
	}
	if (IsA(node, Aggref))
	{
		foreach (lc, context->aggregates)
		{
			column++;
			if (equal(node, lfirst(lc)))
				return (Node *) makeVar(1, column, exprType(node), exprTypmod(node),
										exprCollation(node), 0);
		}
		elog(ERROR, "aggregate of a rollup not found");
	}
	return expression_tree_mutator(node, answer_mutator, (void *) context);
}

/* The query's select list over columns k_n and a_n. */
static char *
answer_list(ShapeContext *context, List *targets)
{
	Query *query = makeNode(Query);
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	List *names = NIL;
	ListCell *lc;
	char *text;

	for (int i = 1; i <= list_length(context->keys); i++)
		names = lappend(names, makeString(psprintf("k_%d", i)));
	for (int i = 1; i <= list_length(context->aggregates); i++)
		names = lappend(names, makeString(psprintf("a_%d", i)));
	rte->rtekind = RTE_CTE;
	rte->ctename = "m";
	rte->eref = makeAlias("m", names);
	rte->inFromCl = true;
	query->commandType = CMD_SELECT;
	query->canSetTag = true;
	query->rtable = list_make1(rte);
	query->jointree = makeFromExpr(NIL, NULL);
	foreach (lc, targets)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (tle->resjunk)
			continue;
		query->targetList =
			lappend(query->targetList,
					makeTargetEntry((Expr *) answer_mutator((Node *) tle->expr, context),
									list_length(query->targetList) + 1, tle->resname, false));
	}
	text = pg_get_querydef(query, false);
	while (*text == ' ')
		text++;
	Assert(strncmp(text, "SELECT ", 7) == 0);
	return text + 7;
}

/* Recognizes behavior.time_bucket(constant width, occurred_at ...). */
static void
note_bucket_key(RollupShape *shape, int key, Node *expression)
{
	FuncExpr *call = (FuncExpr *) expression;
	char *name;
	Const *width;
	Var *at;

	if (shape->bucket_key != 0 || !IsA(expression, FuncExpr) || list_length(call->args) < 2)
		return;
	name = get_func_name(call->funcid);
	width = (Const *) linitial(call->args);
	at = (Var *) lsecond(call->args);
	if (name == NULL || strcmp(name, "time_bucket") != 0 ||
		get_func_namespace(call->funcid) != behavior_schema_oid() || !IsA(width, Const) ||
		width->constisnull || width->consttype != INTERVALOID || !IsA(at, Var) ||
		at->vartype != TIMESTAMPTZOID ||
		strcmp(get_attname(behavior_relid(REL_EVENT), at->varattno, false), "occurred_at") != 0)
		return;
	shape->bucket_key = key;
	shape->bucket_width = DatumGetCString(DirectFunctionCall1(interval_out, width->constvalue));
}

/* Notes the columns of behavior.log behind those of behavior.event in an expression. */
static void
note_columns(RollupShape *shape, Node *expression)
{
	Bitmapset *columns = NULL;
	int column = -1;

	pull_varattnos(expression, 1, &columns);
	while ((column = bms_next_member(columns, column)) >= 0)
	{
		char *name = get_attname(behavior_relid(REL_EVENT),
								 column + FirstLowInvalidHeapAttributeNumber, false);
		AttrNumber number = get_attnum(behavior_relid(REL_LOG), name);

		if (number != InvalidAttrNumber)
			shape->reads[number - 1] = true;
		else if (strcmp(name, "actor") == 0)
			shape->reads[LOG_USER_ID - 1] = shape->reads[LOG_ANONYMOUS_ID - 1] = true;
		else
			elog(ERROR, "column \"%s\" of an event is not in the log", name);
	}
}

/*
 * Notes the types that one condition of a WHERE lets pass: type = 'x', type IN ('x', 'y').  An
 * event of another type is not in the answer, whatever the other conditions make of it.
 */
static void
note_types(RollupShape *shape, Node *condition)
{
	Oid equality;
	Oid collation;
	Var *column;
	List *values;
	List *types = NIL;
	ListCell *lc;

	if (IsA(condition, OpExpr) && list_length(((OpExpr *) condition)->args) == 2)
	{
		OpExpr *expression = (OpExpr *) condition;

		equality = expression->opno;
		collation = expression->inputcollid;
		column = linitial(expression->args);
		values = list_make1(lsecond(expression->args));
	}
	else if (IsA(condition, ScalarArrayOpExpr) && ((ScalarArrayOpExpr *) condition)->useOr &&
			 IsA(lsecond(((ScalarArrayOpExpr *) condition)->args), ArrayExpr))
	{
		ScalarArrayOpExpr *expression = (ScalarArrayOpExpr *) condition;

		equality = expression->opno;
		collation = expression->inputcollid;
		column = linitial(expression->args);
		values = lsecond_node(ArrayExpr, expression->args)->elements;
	}
	else
		return;

	if (equality != TextEqualOperator || !OidIsValid(collation) ||
		!get_collation_isdeterministic(collation) || !IsA(column, Var) ||
		strcmp(get_attname(behavior_relid(REL_EVENT), column->varattno, false), "type") != 0)
		return;
	foreach (lc, values)
	{
		Const *value = lfirst(lc);

		if (!IsA(value, Const) || value->consttype != TEXTOID)
			return;
		if (!value->constisnull)
			types = lappend(types, DatumGetTextPCopy(value->constvalue));
	}
	if (shape->types == NIL)
		shape->types = types;
}

/* What a checked query means. */
RollupShape *
rollup_shape(Query *query)
{
	RollupShape *shape = palloc0(sizeof(RollupShape));
	ShapeContext context = {0};
	int rtindex = rollup_event_rtindex(query);
	int guc_level = NewGUCNestLevel();
	List *targets;
	Node *where;
	ListCell *lc;

	if (rtindex == 0)
		elog(ERROR, "definition of a rollup does not read behavior.event");
	pin_settings();

	targets = copyObject(rollup_target_list(query));
	where = copyObject(query->jointree->quals);
	ChangeVarNodes((Node *) targets, rtindex, 1, 0);
	ChangeVarNodes(where, rtindex, 1, 0);
	context.shape = shape;
	context.dpcontext = deparse_context_for("_event", behavior_relid(REL_EVENT));

	shape->keys = palloc0(sizeof(RollupColumn) * Max(list_length(query->groupClause), 1));
	foreach (lc, query->groupClause)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);
		TargetEntry *target = get_sortgroupref_tle(clause->tleSortGroupRef, targets);
		Node *key = (Node *) target->expr;
		RollupColumn *column = &shape->keys[shape->nkeys++];

		context.keys = lappend(context.keys, key);
		fill_column(column, deparse(&context, key), exprType(key), exprTypmod(key),
					exprCollation(key));
		column->label = target->resname != NULL && !target->resjunk ? target->resname : column->sql;
		if (shape->time_key == 0 && column->type == TIMESTAMPTZOID)
			shape->time_key = shape->nkeys;
		note_bucket_key(shape, shape->nkeys, key);
	}

	collect_aggregates((Node *) targets, &context);
	shape->partials = palloc(sizeof(RollupColumn));
	shape->finals = palloc(sizeof(char *) * Max(list_length(context.aggregates), 1));
	foreach (lc, context.aggregates)
		shape->finals[shape->nfinals++] = add_aggregate(&context, lfirst_node(Aggref, lc));

	note_columns(shape, (Node *) targets);
	note_columns(shape, where);
	foreach (lc, make_ands_implicit((Expr *) where))
		note_types(shape, lfirst(lc));
	shape->select_list = answer_list(&context, targets);
	if (where != NULL)
		shape->where = deparse(&context, where);

	AtEOXact_GUC(true, guc_level);
	return shape;
}

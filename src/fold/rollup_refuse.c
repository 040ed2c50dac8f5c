/*
 * rollup_refuse.c
 *		What a rollup's query may not say, and what to say instead.
 *
 * Every refusal is 0A000, names the expression and gives its replacement in the
 * hint.  Expressions are deparsed under the caller's search_path, the way the
 * caller would write them.
 */
#include "postgres.h"

#include "catalog/pg_aggregate.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "pgtime.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/datum.h"
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

/* Leaves out the casts that deparsing adds to literals: 'day'::text is 'day' to the reader. */
static char *
without_literal_casts(const char *text)
{
	StringInfoData buf;
	bool quoted = false;

	initStringInfo(&buf);
	for (const char *p = text; *p != '\0'; p++)
	{
		appendStringInfoChar(&buf, *p);
		if (*p != '\'')
			continue;
		quoted = !quoted;
		if (!quoted && p[1] != '\'')
		{
			static const char *const casts[] = {"::text", "::interval", "::character varying"};

			for (int i = 0; i < lengthof(casts); i++)
			{
				if (strncmp(p + 1, casts[i], strlen(casts[i])) == 0 &&
					!isalnum((unsigned char) p[1 + strlen(casts[i])]) &&
					p[1 + strlen(casts[i])] != '[')
				{
					p += strlen(casts[i]);
					break;
				}
			}
		}
	}
	return buf.data;
}

/* The parenthesis that closes the one at "open"; quotes are skipped. */
static char *
closing(char *open)
{
	int depth = 0;
	char quote = '\0';

	for (char *p = open; *p != '\0'; p++)
	{
		if (quote != '\0')
			quote = *p == quote ? '\0' : quote;
		else if (*p == '\'' || *p == '"')
			quote = *p;
		else if (*p == '(')
			depth++;
		else if (*p == ')' && --depth == 0)
			return p;
	}
	return NULL;
}

/* Leaves out every second of two pairs of parentheses, and one around the whole. */
static char *
without_extra_parentheses(char *text)
{
	char *end;

	for (char *p = text; *p != '\0'; p++)
	{
		if (*p == '\'' || *p == '"')
		{
			char quote = *p++;

			while (*p != quote && *p != '\0')
				p++;
			if (*p == '\0')
				break;
			continue;
		}
		while (p[0] == '(' && p[1] == '(')
		{
			char *outer = closing(p);
			char *inner = closing(p + 1);

			if (outer == NULL || inner == NULL || inner + 1 != outer)
				break;
			memmove(outer, outer + 1, strlen(outer));
			memmove(p, p + 1, strlen(p));
		}
	}
	end = text[0] == '(' ? closing(text) : NULL;
	if (end != NULL && end[1] == '\0')
	{
		*end = '\0';
		text++;
	}
	return text;
}

/* An expression the way the caller might have written it. */
static char *
shown(RefuseContext *context, Node *expression)
{
	return without_extra_parentheses(
		without_literal_casts(deparse_expression(expression, context->dpcontext, false, false)));
}

/* The function that a node calls, InvalidOid for none. */
static Oid
called_function(Node *node)
{
	if (IsA(node, FuncExpr))
		return ((FuncExpr *) node)->funcid;
	if (IsA(node, OpExpr))
		return get_opcode(((OpExpr *) node)->opno);
	return InvalidOid;
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

/* "1 day" for date_trunc's 'day'; NULL when time_bucket has no such width. */
static const char *
width_of_unit(const char *unit)
{
	static const char *const widths[][2] = {
		{"second", "1 second"},	 {"seconds", "1 second"},  {"minute", "1 minute"},
		{"minutes", "1 minute"}, {"hour", "1 hour"},	   {"hours", "1 hour"},
		{"day", "1 day"},		 {"days", "1 day"},		   {"week", "7 days"},
		{"weeks", "7 days"},	 {"month", "1 month"},	   {"months", "1 month"},
		{"quarter", "3 months"}, {"year", "1 year"},	   {"years", "1 year"},
		{"decade", "10 years"},	 {"century", "100 years"},
	};

	for (int i = 0; i < lengthof(widths); i++)
	{
		if (pg_strcasecmp(unit, widths[i][0]) == 0)
			return widths[i][1];
	}
	return NULL;
}

static char *
text_constant(Node *node)
{
	Const *constant = (Const *) node;

	if (node == NULL || !IsA(node, Const) || constant->constisnull ||
		constant->consttype != TEXTOID)
		return NULL;
	return TextDatumGetCString(constant->constvalue);
}

/* "behavior.time_bucket('1 day', occurred_at, 'Europe/Berlin')" for date_trunc('day', occurred_at).
 */
static char *
bucket_for(RefuseContext *context, const char *width, Node *at, Node *zone)
{
	const char *zone_name = zone != NULL ? text_constant(zone) : NULL;

	if (zone_name == NULL)
		zone_name = pg_get_timezone_name(session_timezone);
	if (strcmp(width, "1 second") == 0 || strcmp(width, "1 minute") == 0)
		return psprintf("behavior.time_bucket('%s', %s)", width, shown(context, at));
	return psprintf("behavior.time_bucket('%s', %s, %s)", width, shown(context, at),
					quote_literal_cstr(zone_name));
}

/* What to write instead of a mutable expression. */
static char *
replacement_of(RefuseContext *context, Node *node)
{
	const char *zone = quote_literal_cstr(pg_get_timezone_name(session_timezone));
	Oid function = called_function(node);
	List *arguments = IsA(node, FuncExpr) ? ((FuncExpr *) node)->args
					  : IsA(node, OpExpr) ? ((OpExpr *) node)->args
										  : NIL;
	Node *first = arguments != NIL ? linitial(arguments) : NULL;
	Node *second = list_length(arguments) > 1 ? lsecond(arguments) : NULL;
	const char *name = OidIsValid(function) ? get_func_name(function) : NULL;

	if (IsA(node, SQLValueFunction))
	{
		switch (((SQLValueFunction *) node)->type)
		{
			case TIMESTAMPTZOID:
			case TIMESTAMPOID:
			case DATEOID:
			case TIMETZOID:
			case TIMEOID:
				name = pstrdup("now");
				break;
			default:
				break;
		}
	}
	if (IsA(node, CoerceViaIO))
	{
		CoerceViaIO *cast = (CoerceViaIO *) node;
		Oid source = getBaseType(exprType((Node *) cast->arg));

		first = (Node *) cast->arg;
		if (cast->resulttype == TIMESTAMPTZOID || cast->resulttype == TIMESTAMPOID ||
			cast->resulttype == DATEOID)
			return psprintf("Write behavior.try_timestamptz(%s) instead%s.", shown(context, first),
							cast->resulttype == TIMESTAMPTZOID
								? ""
								: psprintf(", and AT TIME ZONE %s for a local time", zone));
		if (source == TIMESTAMPTZOID || source == TIMESTAMPOID || source == DATEOID ||
			source == TIMEOID)
			return psprintf(
				"Group by %s or by behavior.time_bucket(...) of it, and format it when reading the rollup.",
				shown(context, first));
		return pstrdup("Write an immutable expression instead.");
	}
	if (IsA(node, NextValueExpr))
		name = pstrdup("random");
	if (name == NULL ||
		(OidIsValid(function) && get_func_namespace(function) != PG_CATALOG_NAMESPACE))
		return psprintf(
			"A rollup's result must not depend on when or where it is computed: use an immutable expression%s.",
			name != NULL ? ", or declare the function IMMUTABLE if that is what it is" : "");

	if (strcmp(name, "date_trunc") == 0 && second != NULL && exprType(second) == TIMESTAMPTZOID)
	{
		const char *unit = text_constant(first);
		const char *width = unit != NULL ? width_of_unit(unit) : NULL;

		return psprintf("Write %s instead.",
						bucket_for(context, width != NULL ? width : "1 day", second,
								   list_length(arguments) > 2 ? lthird(arguments) : NULL));
	}
	if (first != NULL && exprType(first) == TIMESTAMPTZOID &&
		(strcmp(name, "date") == 0 || strcmp(name, "timestamp") == 0 || strcmp(name, "time") == 0))
	{
		if (strcmp(name, "date") == 0)
			return psprintf("Write %s instead, or (%s AT TIME ZONE %s)::date.",
							bucket_for(context, "1 day", first, NULL), shown(context, first), zone);
		return psprintf("Write %s AT TIME ZONE %s instead%s.", shown(context, first), zone,
						strcmp(name, "time") == 0 ? ", cast to time" : "");
	}
	if ((strcmp(name, "extract") == 0 || strcmp(name, "date_part") == 0) && second != NULL &&
		exprType(second) == TIMESTAMPTZOID)
	{
		const char *field = text_constant(first);

		return psprintf("Write extract(%s FROM %s AT TIME ZONE %s) instead.",
						field != NULL ? field : "field", shown(context, second), zone);
	}
	if (strcmp(name, "to_char") == 0)
		return psprintf(
			"Group by behavior.time_bucket('1 day', %s, %s) or the value itself, and format it when reading the rollup.",
			first != NULL ? shown(context, first) : "occurred_at", zone);
	if (strcmp(name, "now") == 0 || strcmp(name, "clock_timestamp") == 0 ||
		strcmp(name, "statement_timestamp") == 0 || strcmp(name, "transaction_timestamp") == 0 ||
		strcmp(name, "timeofday") == 0 || strcmp(name, "age") == 0)
		return pstrdup(
			"Group by behavior.time_bucket(...) and compare with now() when reading the rollup.");
	if (strcmp(name, "concat") == 0 || strcmp(name, "concat_ws") == 0)
	{
		StringInfoData buf;
		char *separator = NULL;
		ListCell *lc;
		List *parts = arguments;

		if (strcmp(name, "concat_ws") == 0 && parts != NIL)
		{
			separator = shown(context, linitial(parts));
			parts = list_copy_tail(parts, 1);
		}
		if (list_length(parts) == 1 && IsA(linitial(parts), ArrayExpr))
			parts = ((ArrayExpr *) linitial(parts))->elements;
		initStringInfo(&buf);
		foreach (lc, parts)
		{
			if (foreach_current_index(lc) > 0)
			{
				appendStringInfoString(&buf, " || ");
				if (separator != NULL)
					appendStringInfo(&buf, "%s || ", separator);
			}
			appendStringInfoString(&buf, shown(context, lfirst(lc)));
		}
		return psprintf("Write %s instead, with coalesce(x, '') around what may be NULL.",
						buf.data);
	}
	if (strcmp(name, "format") == 0)
		return pstrdup("Write the parts with || instead: 'a' || b.");
	if (strcmp(name, "to_jsonb") == 0 || strcmp(name, "to_json") == 0 ||
		strcmp(name, "row_to_json") == 0 || strncmp(name, "jsonb_build", 11) == 0 ||
		strncmp(name, "json_build", 10) == 0)
		return pstrdup("Group by the values themselves, and build JSON when reading the rollup.");
	if (strcmp(name, "to_timestamp") == 0 || strcmp(name, "to_date") == 0)
		return psprintf("Write behavior.try_timestamptz(%s) instead.",
						first != NULL ? shown(context, first) : "text");
	if (IsA(node, OpExpr) && first != NULL && exprType(first) == TIMESTAMPTZOID)
		return psprintf(
			"Write an expression of %s AT TIME ZONE %s instead, which does not depend on the session's time zone.",
			shown(context, first), zone);
	if (strcmp(name, "timezone") == 0 || strcmp(name, "timestamptz") == 0)
		return psprintf("Name the time zone: AT TIME ZONE %s.", zone);
	return pstrdup(
		"A rollup's result must not depend on when or where it is computed: use an immutable expression.");
}

static void
check_mutable(RefuseContext *context, Node *node)
{
	if (find_mutable(node, context))
	{
		char *hint = replacement_of(context, context->found);

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

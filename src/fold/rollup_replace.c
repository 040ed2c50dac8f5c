/*
 * rollup_replace.c
 *		What to write instead of an expression that is not immutable.
 *
 * Mostly it is a time that depends on the session's time zone: the replacement names the zone that
 * the caller has now, so that it means what he had in mind.
 */
#include "postgres.h"

#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "fold/rollup.h"

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
bucket_for(const char *width, Node *at, Node *zone, List *dpcontext)
{
	const char *zone_name = zone != NULL ? text_constant(zone) : NULL;

	if (zone_name == NULL)
		zone_name = pg_get_timezone_name(session_timezone);
	if (strcmp(width, "1 second") == 0 || strcmp(width, "1 minute") == 0)
		return psprintf("behavior.time_bucket('%s', %s)", width, rollup_shown(at, dpcontext));
	return psprintf("behavior.time_bucket('%s', %s, %s)", width, rollup_shown(at, dpcontext),
					quote_literal_cstr(zone_name));
}

/* A cast by way of text. */
static char *
cast_replacement(CoerceViaIO *cast, const char *zone, List *dpcontext)
{
	Node *argument = (Node *) cast->arg;
	Oid source = getBaseType(exprType(argument));

	if (cast->resulttype == TIMESTAMPTZOID || cast->resulttype == TIMESTAMPOID ||
		cast->resulttype == DATEOID)
		return psprintf("Write behavior.try_timestamptz(%s) instead%s.",
						rollup_shown(argument, dpcontext),
						cast->resulttype == TIMESTAMPTZOID
							? ""
							: psprintf(", and AT TIME ZONE %s for a local time", zone));
	if (source == TIMESTAMPTZOID || source == TIMESTAMPOID || source == DATEOID ||
		source == TIMEOID)
		return psprintf(
			"Group by %s or by behavior.time_bucket(...) of it, and format it when reading the rollup.",
			rollup_shown(argument, dpcontext));
	return pstrdup("Write an immutable expression instead.");
}

/* concat() or concat_ws() */
static char *
concat_replacement(const char *name, List *arguments, List *dpcontext)
{
	StringInfoData buf;
	char *separator = NULL;
	ListCell *lc;
	List *parts = arguments;

	if (strcmp(name, "concat_ws") == 0 && parts != NIL)
	{
		separator = rollup_shown(linitial(parts), dpcontext);
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
		appendStringInfoString(&buf, rollup_shown(lfirst(lc), dpcontext));
	}
	return psprintf("Write %s instead, with coalesce(x, '') around what may be NULL.", buf.data);
}

char *
rollup_replacement(Node *node, List *dpcontext)
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
		return cast_replacement((CoerceViaIO *) node, zone, dpcontext);
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
						bucket_for(width != NULL ? width : "1 day", second,
								   list_length(arguments) > 2 ? lthird(arguments) : NULL,
								   dpcontext));
	}
	if (first != NULL && exprType(first) == TIMESTAMPTZOID &&
		(strcmp(name, "date") == 0 || strcmp(name, "timestamp") == 0 || strcmp(name, "time") == 0))
	{
		if (strcmp(name, "date") == 0)
			return psprintf("Write %s instead, or (%s AT TIME ZONE %s)::date.",
							bucket_for("1 day", first, NULL, dpcontext),
							rollup_shown(first, dpcontext), zone);
		return psprintf("Write %s AT TIME ZONE %s instead%s.", rollup_shown(first, dpcontext), zone,
						strcmp(name, "time") == 0 ? ", cast to time" : "");
	}
	if ((strcmp(name, "extract") == 0 || strcmp(name, "date_part") == 0) && second != NULL &&
		exprType(second) == TIMESTAMPTZOID)
	{
		const char *field = text_constant(first);

		return psprintf("Write extract(%s FROM %s AT TIME ZONE %s) instead.",
						field != NULL ? field : "field", rollup_shown(second, dpcontext), zone);
	}
	if (strcmp(name, "to_char") == 0)
		return psprintf(
			"Group by behavior.time_bucket('1 day', %s, %s) or the value itself, and format it when reading the rollup.",
			first != NULL ? rollup_shown(first, dpcontext) : "occurred_at", zone);
	if (strcmp(name, "now") == 0 || strcmp(name, "clock_timestamp") == 0 ||
		strcmp(name, "statement_timestamp") == 0 || strcmp(name, "transaction_timestamp") == 0 ||
		strcmp(name, "timeofday") == 0 || strcmp(name, "age") == 0)
		return pstrdup(
			"Group by behavior.time_bucket(...) and compare with now() when reading the rollup.");
	if (strcmp(name, "concat") == 0 || strcmp(name, "concat_ws") == 0)
		return concat_replacement(name, arguments, dpcontext);
	if (strcmp(name, "format") == 0)
		return pstrdup("Write the parts with || instead: 'a' || b.");
	if (strcmp(name, "to_jsonb") == 0 || strcmp(name, "to_json") == 0 ||
		strcmp(name, "row_to_json") == 0 || strncmp(name, "jsonb_build", 11) == 0 ||
		strncmp(name, "json_build", 10) == 0)
		return pstrdup("Group by the values themselves, and build JSON when reading the rollup.");
	if (strcmp(name, "to_timestamp") == 0 || strcmp(name, "to_date") == 0)
		return psprintf("Write behavior.try_timestamptz(%s) instead.",
						first != NULL ? rollup_shown(first, dpcontext) : "text");
	if (IsA(node, OpExpr) && first != NULL && exprType(first) == TIMESTAMPTZOID)
		return psprintf(
			"Write an expression of %s AT TIME ZONE %s instead, which does not depend on the session's time zone.",
			rollup_shown(first, dpcontext), zone);
	if (strcmp(name, "timezone") == 0 || strcmp(name, "timestamptz") == 0)
		return psprintf("Name the time zone: AT TIME ZONE %s.", zone);
	return pstrdup(
		"A rollup's result must not depend on when or where it is computed: use an immutable expression.");
}

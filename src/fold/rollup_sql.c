/*
 * rollup_sql.c
 *		Texts of a rollup's statements and views, from its shape.
 *
 * The live view reads the state except for the groups that its tail has, and those
 * merged with the state: so neither aggregates the state again, and a condition on a key
 * reaches the state's index.  All texts are for search_path "pg_catalog,
 * pg_temp".
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "fold/rollup.h"

/* behavior.event's columns from rows of behavior.log; actor is computed as the view does. */
const char *rollup_events_sql =
	"(SELECT event_id, source, type, user_id, anonymous_id, occurred_at, sequence, properties, context, "
	"COALESCE(user_id, anonymous_id) AS actor, received_at, batch_id FROM _events)";

static void
append_columns(StringInfo buf, const RollupShape *shape, const char *prefix)
{
	const char *separator = "";

	for (int i = 1; i <= shape->nkeys; i++, separator = ", ")
		appendStringInfo(buf, "%s%sk_%d", separator, prefix, i);
	for (int i = 1; i <= shape->npartials; i++, separator = ", ")
		appendStringInfo(buf, "%s%ss_%d", separator, prefix, i);
}

/* "k_1 text, s_1 bigint" */
static void
append_definitions(StringInfo buf, const RollupShape *shape)
{
	for (int i = 0; i < shape->nkeys; i++)
		appendStringInfo(buf, ", k_%d %s", i + 1, shape->keys[i].type_name);
	for (int i = 0; i < shape->npartials; i++)
		appendStringInfo(buf, ", s_%d %s", i + 1, shape->partials[i].type_name);
}

/* Text that is equal when its bytes are: making groups need not compare it the way its language
 * does. */
static bool
compares_bytes(const RollupColumn *key)
{
	return (key->type == TEXTOID || key->type == VARCHAROID) && OidIsValid(key->collation) &&
		   get_collation_isdeterministic(key->collation);
}

/* SELECT keys, and of the partials their aggregates or which events they count. */
static void
append_query(StringInfo buf, const RollupShape *shape, const char *from, bool aggregates)
{
	const char *separator = "";

	appendStringInfoString(buf, "SELECT ");
	for (int i = 0; i < shape->nkeys; i++, separator = ", ")
		appendStringInfo(
			buf, compares_bytes(&shape->keys[i]) ? "%s(%s) COLLATE \"C\" AS k_%d" : "%s%s AS k_%d",
			separator, shape->keys[i].sql, i + 1);
	for (int i = 0; i < shape->npartials; i++, separator = ", ")
		appendStringInfo(buf, "%s%s AS s_%d", separator,
						 aggregates ? shape->partials[i].sql : shape->partials[i].counts, i + 1);
	appendStringInfo(buf, " FROM %s AS _event", from);
	if (shape->where != NULL)
		appendStringInfo(buf, " WHERE %s", shape->where);
}

/* Events to their keys, and which partials count them. */
char *
rollup_keys_sql(const RollupShape *shape, const char *from)
{
	StringInfoData buf;

	initStringInfo(&buf);
	append_query(&buf, shape, from, false);
	return buf.data;
}

/* Events to groups: SELECT keys, partials.  "from" gives behavior.event's columns. */
char *
rollup_partial_sql(const RollupShape *shape, const char *from)
{
	StringInfoData buf;

	initStringInfo(&buf);
	append_query(&buf, shape, from, true);
	for (int i = 1; i <= shape->nkeys; i++)
		appendStringInfo(&buf, "%s%d", i == 1 ? " GROUP BY " : ", ", i);
	return buf.data;
}

/* What a column becomes when partial results a and b meet; NULL is "no value yet". */
char *
rollup_merge_expression(const RollupColumn *column, const char *a, const char *b)
{
	switch (column->merge)
	{
		case MERGE_COUNT:
			return psprintf("(COALESCE(%s, 0::bigint) + COALESCE(%s, 0::bigint))", a, b);
		case MERGE_ADD:
			return psprintf("COALESCE(%s + %s, %s, %s)", a, b, a, b);
		case MERGE_LEAST:
			return psprintf("LEAST(%s, %s)", a, b);
		case MERGE_GREATEST:
			return psprintf("GREATEST(%s, %s)", a, b);
		case MERGE_AND:
			return psprintf("COALESCE(%s AND %s, %s, %s)", a, b, a, b);
		case MERGE_OR:
			return psprintf("COALESCE(%s OR %s, %s, %s)", a, b, a, b);
		case MERGE_BIT_AND:
			return psprintf("COALESCE(%s & %s, %s, %s)", a, b, a, b);
		case MERGE_BIT_OR:
			return psprintf("COALESCE(%s | %s, %s, %s)", a, b, a, b);
		case MERGE_AGGREGATE:
			return psprintf("(SELECT %s(x.v) FROM (VALUES (%s), (%s)) AS x(v))",
							column->merge_aggregate, a, b);
	}
	elog(ERROR, "unknown merge %d", (int) column->merge);
	return NULL; /* keeps the compiler quiet */
}

/*
 * Groups into the state.  MERGE and not ON CONFLICT: there is one writer, the holder of the
 * projection's row, so that a cell need not be locked before it is updated, nor inserted on trial.
 */
char *
rollup_merge_sql(const RollupShape *shape, const char *storage)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf,
					 "MERGE INTO %s AS state USING _partials AS added ON state.key_hash = "
					 "added.key_hash WHEN MATCHED THEN ",
					 storage);
	if (shape->npartials == 0)
		appendStringInfoString(&buf, "DO NOTHING");
	for (int i = 0; i < shape->npartials; i++)
		appendStringInfo(&buf, "%ss_%d = %s", i == 0 ? "UPDATE SET " : ", ", i + 1,
						 rollup_merge_expression(&shape->partials[i], psprintf("state.s_%d", i + 1),
												 psprintf("added.s_%d", i + 1)));
	appendStringInfo(&buf, " WHEN NOT MATCHED THEN INSERT (key_hash%s",
					 shape->nkeys + shape->npartials > 0 ? ", " : "");
	append_columns(&buf, shape, "");
	appendStringInfo(&buf, ") VALUES (added.key_hash%s",
					 shape->nkeys + shape->npartials > 0 ? ", " : "");
	append_columns(&buf, shape, "added.");
	appendStringInfoChar(&buf, ')');
	return buf.data;
}

/* The state table; room on each page lets updates stay there. */
char *
rollup_storage_sql(const RollupShape *shape, const char *storage)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "CREATE TABLE %s (key_hash uuid PRIMARY KEY", storage);
	append_definitions(&buf, shape);
	appendStringInfoString(&buf, ") WITH (fillfactor = 80)");
	return buf.data;
}

/* "k_1, s_1 AS a_1": finished aggregates over columns of the state. */
static void
append_finals(StringInfo buf, const RollupShape *shape)
{
	const char *separator = "";

	for (int i = 1; i <= shape->nkeys; i++, separator = ", ")
		appendStringInfo(buf, "%sk_%d", separator, i);
	for (int i = 0; i < shape->nfinals; i++, separator = ", ")
		appendStringInfo(buf, "%s%s AS a_%d", separator, shape->finals[i], i + 1);
}

/* The live view's query. */
char *
rollup_live_sql(const RollupShape *shape, const char *definition, const char *storage,
				const char *token_table)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(
		&buf,
		"WITH t AS MATERIALIZED (SELECT * FROM behavior._tail(%s::pg_catalog.regclass, %s::pg_catalog.regclass, "
		"(SELECT token FROM %s)) AS t(key_hash uuid",
		quote_literal_cstr(definition), quote_literal_cstr(storage), token_table);
	append_definitions(&buf, shape);
	appendStringInfoString(&buf, ")) ");

	if (shape->nkeys > 0)
	{
		appendStringInfo(&buf, "SELECT %s FROM (SELECT ", shape->select_list);
		append_finals(&buf, shape);
		appendStringInfo(
			&buf, " FROM %s WHERE NOT (key_hash IN (SELECT t.key_hash FROM t))) AS m UNION ALL ",
			storage);
	}
	appendStringInfo(&buf, "SELECT %s FROM (SELECT ", shape->select_list);
	append_finals(&buf, shape);
	appendStringInfoString(&buf, " FROM (SELECT ");
	for (int i = 1; i <= shape->nkeys; i++)
		appendStringInfo(&buf, "%st.k_%d", i == 1 ? "" : ", ", i);
	for (int i = 0; i < shape->npartials; i++)
		appendStringInfo(&buf, "%s%s AS s_%d", i + shape->nkeys == 0 ? "" : ", ",
						 rollup_merge_expression(&shape->partials[i], psprintf("s.s_%d", i + 1),
												 psprintf("t.s_%d", i + 1)),
						 i + 1);
	if (shape->nkeys > 0)
		appendStringInfo(&buf, " FROM t LEFT JOIN %s AS s ON s.key_hash = t.key_hash) AS u) AS m",
						 storage);
	else
		appendStringInfo(
			&buf,
			" FROM (VALUES (1)) AS o(x) LEFT JOIN t ON true LEFT JOIN %s AS s ON true) AS u) AS m",
			storage);
	return buf.data;
}

/* The folded view's query. */
char *
rollup_folded_sql(const RollupShape *shape, const char *definition, const char *storage)
{
	StringInfoData buf;
	char *ready =
		psprintf("(SELECT behavior._ready(%s::pg_catalog.regclass, %s::pg_catalog.regclass))",
				 quote_literal_cstr(definition), quote_literal_cstr(storage));

	initStringInfo(&buf);
	appendStringInfo(&buf, "SELECT %s FROM (SELECT ", shape->select_list);
	append_finals(&buf, shape);
	if (shape->nkeys > 0)
		appendStringInfo(&buf, " FROM %s WHERE %s) AS m", storage, ready);
	else
	{
		appendStringInfoString(&buf, " FROM (SELECT ");
		for (int i = 0; i < shape->npartials; i++)
		{
			if (shape->partials[i].merge == MERGE_COUNT)
				appendStringInfo(&buf, "%sCOALESCE(s.s_%d, 0::bigint) AS s_%d", i == 0 ? "" : ", ",
								 i + 1, i + 1);
			else
				appendStringInfo(&buf, "%ss.s_%d", i == 0 ? "" : ", ", i + 1);
		}
		appendStringInfo(
			&buf, " FROM (VALUES (1)) AS o(x) LEFT JOIN %s AS s ON true) AS u) AS m WHERE %s",
			storage, ready);
	}
	return buf.data;
}

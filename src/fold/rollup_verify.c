/*
 * rollup_verify.c
 *		Recomputes a rollup from the log and returns what differs.
 *
 * Reads behavior.event as the rollup's owner, through the planner and not
 * through the fold's reader, under one snapshot: the events of the ticks that the
 * projection has, without those set aside.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/spi.h"
#include "fold/projection.h"
#include "fold/rollup.h"
#include "fold/tick.h"

PG_FUNCTION_INFO_V1(behavior__verify_rollup);

/* Bounds of the cells to compare; NULL text for none. */
typedef struct Bounds
{
	char *since;
	char *until;
} Bounds;

/* Registers a tuplestore under a name for the statements that follow. */
static void
register_store(const char *name, TupleDesc desc, Tuplestorestate *store)
{
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));

	enr->md.name = pstrdup(name);
	enr->md.tupdesc = desc;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = tuplestore_tuple_count(store);
	enr->reldata = store;
	if (SPI_register_relation(enr) < 0)
		elog(ERROR, "could not register \"%s\"", name);
}

/* Events that the projection has set aside, as (batch_id, source, event_id). */
static Tuplestorestate *
read_aside(const char *name, TupleDesc desc)
{
	Tuplestorestate *store = tuplestore_begin_heap(false, false, work_mem);
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(name);
	SecureContext secure;

	secure_begin(&secure, behavior_owner());
	SPI_connect();
	spi_exec("SELECT batch_id, source, event_id FROM behavior._set_aside WHERE projection = $1",
			 SPI_OK_SELECT, true, 1, &type, &value, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Datum values[3];
		bool isnull[3];

		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, values, isnull);
		tuplestore_putvalues(store, desc, values, isnull);
	}
	SPI_finish();
	secure_end(&secure);
	return store;
}

static TupleDesc
aside_desc(void)
{
	TupleDesc desc = CreateTemplateTupleDesc(3);

	TupleDescInitEntry(desc, 1, "batch_id", INT8OID, -1, 0);
	TupleDescInitEntry(desc, 2, "source", TEXTOID, -1, 0);
	TupleDescInitEntry(desc, 3, "event_id", TEXTOID, -1, 0);
	return desc;
}

/* The events to recompute from.  OFFSET 0 keeps the query's own conditions from seeing the others
 * first. */
static char *
events_sql(const RollupShape *shape, const BatchSet *later, bool aside, const Bounds *bounds)
{
	StringInfoData buf;
	const char *separator = " WHERE ";

	initStringInfo(&buf);
	appendStringInfoString(
		&buf,
		"(SELECT e.event_id, e.source, e.type, e.user_id, e.anonymous_id, e.occurred_at, e.sequence, "
		"e.properties, e.context, e.actor, e.received_at, e.batch_id FROM behavior.event AS e");
	if (later->nruns > 0)
	{
		appendStringInfo(&buf, "%sNOT (e.batch_id <@ '{", separator);
		for (int i = 0; i < later->nruns; i++)
			appendStringInfo(&buf, "%s[" INT64_FORMAT "," INT64_FORMAT "]", i > 0 ? "," : "",
							 later->runs[i].first, later->runs[i].last);
		appendStringInfoString(&buf, "}'::int8multirange)");
		separator = " AND ";
	}
	if (aside)
	{
		appendStringInfo(&buf,
						 "%sNOT EXISTS (SELECT FROM _aside AS a WHERE a.batch_id = e.batch_id AND "
						 "a.source = e.source AND a.event_id = e.event_id)",
						 separator);
		separator = " AND ";
	}
	if (bounds->since != NULL)
	{
		appendStringInfo(&buf, "%se.occurred_at >= %s::timestamptz", separator, bounds->since);
		separator = " AND ";
	}
	if (bounds->until != NULL)
		appendStringInfo(&buf,
						 "%se.occurred_at < %s::timestamptz + interval %s + interval '2 days'",
						 separator, bounds->until, quote_literal_cstr(shape->bucket_width));
	appendStringInfoString(&buf, " OFFSET 0)");
	return buf.data;
}

/* "(SELECT to_jsonb(x) FROM (SELECT s.k_1 AS bucket) AS x)" */
static void
append_json(StringInfo buf, const RollupShape *shape, bool keys, const char *side)
{
	int count = keys ? shape->nkeys : shape->npartials;

	if (count == 0)
	{
		appendStringInfoString(buf, "'{}'::jsonb");
		return;
	}
	appendStringInfoString(buf, "(SELECT pg_catalog.to_jsonb(x) FROM (SELECT ");
	for (int i = 0; i < count; i++)
	{
		const char *separator = i > 0 ? ", " : "";

		if (keys)
			appendStringInfo(buf,
							 "%sCASE WHEN s.key_hash IS NULL THEN p.k_%d ELSE s.k_%d END AS %s",
							 separator, i + 1, i + 1, quote_identifier(shape->keys[i].label));
		else
		{
			char *label = pnstrdup(shape->partials[i].sql,
								   Min(strlen(shape->partials[i].sql), NAMEDATALEN - 10));

			appendStringInfo(buf, "%s%s.s_%d AS %s", separator, side, i + 1,
							 quote_identifier(psprintf("s_%d: %s", i + 1, label)));
		}
	}
	appendStringInfoString(buf, ") AS x)");
}

/* Cells that differ between the state (s) and what was recomputed (p). */
static char *
differences_sql(const RollupShape *shape, const char *storage, const Bounds *bounds)
{
	StringInfoData buf;
	const char *separator = "";

	initStringInfo(&buf);
	appendStringInfoString(&buf, "SELECT ");
	append_json(&buf, shape, true, NULL);
	appendStringInfoString(&buf, ", CASE WHEN s.key_hash IS NOT NULL THEN ");
	append_json(&buf, shape, false, "s");
	appendStringInfoString(&buf, " END, CASE WHEN p.key_hash IS NOT NULL THEN ");
	append_json(&buf, shape, false, "p");
	appendStringInfo(
		&buf, " END FROM %s AS s FULL JOIN _partials AS p ON p.key_hash = s.key_hash WHERE (",
		storage);
	if (shape->nkeys > 0)
	{
		appendStringInfoString(&buf, "s.key_hash IS NULL OR p.key_hash IS NULL");
		separator = " OR ";
	}
	for (int i = 0; i < shape->npartials; i++, separator = " OR ")
	{
		const RollupColumn *column = &shape->partials[i];

		if (column->compare != NULL)
			appendStringInfo(&buf, "%s%s(s.s_%d) IS DISTINCT FROM %s(p.s_%d)", separator,
							 column->compare, i + 1, column->compare, i + 1);
		else if (column->merge == MERGE_AGGREGATE)
			appendStringInfo(&buf, "%sROW(s.s_%d)::record *<> ROW(p.s_%d)::record", separator,
							 i + 1, i + 1);
		else if (column->merge == MERGE_COUNT)
			appendStringInfo(&buf, "%sCOALESCE(s.s_%d, 0::bigint) <> COALESCE(p.s_%d, 0::bigint)",
							 separator, i + 1, i + 1);
		else
			appendStringInfo(&buf, "%ss.s_%d IS DISTINCT FROM p.s_%d", separator, i + 1, i + 1);
	}
	if (*separator == '\0')
		appendStringInfoString(&buf, "false");
	appendStringInfoChar(&buf, ')');
	if (bounds->since != NULL)
		appendStringInfo(&buf, " AND COALESCE(s.k_%d, p.k_%d) >= %s::timestamptz",
						 shape->bucket_key, shape->bucket_key, bounds->since);
	if (bounds->until != NULL)
		appendStringInfo(&buf, " AND COALESCE(s.k_%d, p.k_%d) < %s::timestamptz", shape->bucket_key,
						 shape->bucket_key, bounds->until);
	return buf.data;
}

/* A bound as a literal: ISO with an offset. */
static char *
bound(bool isnull, TimestampTz at)
{
	if (isnull)
		return NULL;
	return quote_literal_cstr(timestamptz_to_str(at));
}

Datum
behavior__verify_rollup(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Snapshot snapshot = GetActiveSnapshot();
	MemoryContext caller;
	Tuplestorestate *result;
	TupleDesc result_desc;
	char *name;
	RollupRow *row;
	Bounds bounds = {NULL, NULL};
	BatchSet *later;
	TupleDesc desc = aside_desc();
	Tuplestorestate *aside;
	SecureContext secure;
	RollupPlan *plan;
	Tuplestorestate *partials;

	if (rsinfo == NULL || !IsA(rsinfo, ReturnSetInfo) ||
		(rsinfo->allowedModes & SFRM_Materialize) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in a context that cannot accept a set")));
	if (get_call_result_type(fcinfo, NULL, &result_desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	caller = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);
	result = tuplestore_begin_heap((rsinfo->allowedModes & SFRM_Materialize_Random) != 0, false,
								   work_mem);
	result_desc = CreateTupleDescCopy(result_desc);
	rsinfo->returnMode = SFRM_Materialize;
	rsinfo->setResult = result;
	rsinfo->setDesc = result_desc;
	MemoryContextSwitchTo(caller);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));

	row = rollup_row_by_name(name, snapshot);
	if (row == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("rollup \"%s\" does not exist", name)));
	if (!row->built || !OidIsValid(relation_owner(row->relation)))
		return (Datum) 0; /* nothing to compare yet */

	later = tick_batches(snapshot, projection_progress(name, snapshot), TICK_ALL);
	aside = read_aside(name, desc);

	secure_begin(&secure, relation_owner(row->relation));
	SPI_connect();
	plan = rollup_plan(row->definition, row->storage);
	if (plan->shape->bucket_key > 0)
	{
		bounds.since = bound(PG_ARGISNULL(1), PG_ARGISNULL(1) ? 0 : PG_GETARG_TIMESTAMPTZ(1));
		bounds.until = bound(PG_ARGISNULL(2), PG_ARGISNULL(2) ? 0 : PG_GETARG_TIMESTAMPTZ(2));
	}
	register_store("_aside", desc, aside);
	partials = rollup_evaluate_sql(
		plan,
		rollup_partial_sql(plan->shape, events_sql(plan->shape, later,
												   tuplestore_tuple_count(aside) > 0, &bounds)));
	register_store("_partials", plan->desc, partials);
	if (SPI_execute(differences_sql(plan->shape, rollup_qualified(row->storage), &bounds), true,
					0) != SPI_OK_SELECT)
		elog(ERROR, "could not compare rollup \"%s\"", name);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Datum values[4];
		bool isnull[4];

		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, values + 1, isnull + 1);
		values[0] = CStringGetTextDatum(name);
		isnull[0] = false;
		tuplestore_putvalues(result, result_desc, values, isnull);
	}
	tuplestore_end(partials);
	tuplestore_end(aside);
	SPI_finish();
	secure_end(&secure);
	return (Datum) 0;
}

/*
 * rollup_swap.c
 *		What a build has made takes the place of what was there.
 *
 * Done under the projection's row.  After a rebuild the rows that differ are written to the old
 * state; for another query the views are replaced, with what was set on them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "core/catalog.h"
#include "core/spi.h"
#include "fold/rollup.h"

#define LOCK_TRIES 100 /* of 10 ms each, for readers to leave before the swap */

/* Runs DDL or DML on a rollup's objects as its owner. */
void
rollup_as_owner(const RollupRow *row, const char *sql)
{
	SecureContext secure;
	Oid owner = relation_owner(row->relation);

	if (!OidIsValid(owner))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("the relation of rollup \"%s\" was dropped", row->name)));
	secure_begin(&secure, owner);
	rollup_ddl(sql);
	secure_end(&secure);
}

/* Writes what differs between the new state and the old to the old one. */
void
rollup_apply_differences(const RollupRow *row)
{
	RollupShape *shape = rollup_shape(rollup_definition_query(row->definition));
	char *old = rollup_qualified(row->storage);
	char *new = rollup_qualified(row->next_storage);
	StringInfoData sql;

	rollup_as_owner(
		row,
		psprintf(
			"DELETE FROM %s AS s WHERE NOT EXISTS (SELECT FROM %s AS n WHERE n.key_hash = s.key_hash)",
			old, new));
	initStringInfo(&sql);
	appendStringInfo(
		&sql,
		"INSERT INTO %s AS state SELECT n.* FROM %s AS n LEFT JOIN %s AS s ON s.key_hash = n.key_hash "
		"WHERE s.key_hash IS NULL",
		old, new, old);
	for (int i = 1; i <= shape->npartials; i++)
		appendStringInfo(&sql, " OR ROW(s.s_%d)::record *<> ROW(n.s_%d)::record", i, i);
	appendStringInfoString(&sql, " ON CONFLICT (key_hash) DO ");
	if (shape->npartials == 0)
		appendStringInfoString(&sql, "NOTHING");
	for (int i = 1; i <= shape->npartials; i++)
		appendStringInfo(&sql, "%ss_%d = excluded.s_%d", i == 1 ? "UPDATE SET " : ", ", i, i);
	rollup_as_owner(row, sql.data);
	rollup_as_owner(row, psprintf("DROP TABLE %s", new));
}

/* What CREATE VIEW does not carry over, privileges, options and the comment, as statements with
 * \001 for the view. */
static List *
properties_of(Oid relid)
{
	MemoryContext caller = CurrentMemoryContext;
	List *properties = NIL;
	SecureContext secure;
	Oid type = OIDOID;
	Datum value = ObjectIdGetDatum(relid);

	secure_begin(&secure, behavior_owner());
	SPI_connect();
	spi_exec(
		"SELECT pg_catalog.format(E'GRANT %s ON \\x01 TO %s%s', a.privilege_type, "
		"CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END, "
		"CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) "
		"FROM pg_catalog.pg_class AS c, LATERAL pg_catalog.aclexplode(c.relacl) AS a "
		"WHERE c.oid = $1 AND a.grantee <> c.relowner "
		"UNION ALL SELECT pg_catalog.format(E'ALTER VIEW \\x01 SET (%s)', pg_catalog.array_to_string(c.reloptions, ', ')) "
		"FROM pg_catalog.pg_class AS c WHERE c.oid = $1 AND c.reloptions IS NOT NULL "
		"UNION ALL SELECT pg_catalog.format(E'COMMENT ON VIEW \\x01 IS %L', d.description) FROM pg_catalog.pg_description AS d "
		"WHERE d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objoid = $1 AND d.objsubid = 0",
		SPI_OK_SELECT, false, 1, &type, &value, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char *text = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		MemoryContext spi = MemoryContextSwitchTo(caller);

		properties = lappend(properties, pstrdup(text));
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	secure_end(&secure);
	return properties;
}

static void
repeat_properties(const RollupRow *row, List *properties, const char *relation)
{
	ListCell *lc;

	foreach (lc, properties)
	{
		char *text = lfirst(lc);
		char *place = strchr(text, '\001');

		rollup_as_owner(row, psprintf("%.*s%s%s", (int) (place - text), text, relation, place + 1));
	}
}

/* Both relations for us alone; false when readers do not leave. */
bool
rollup_lock_views(const RollupRow *row, int tries)
{
	for (int i = 0; i < tries; i++)
	{
		if (ConditionalLockRelationOid(row->relation, AccessExclusiveLock))
		{
			if (ConditionalLockRelationOid(row->folded, AccessExclusiveLock))
				return true;
			UnlockRelationOid(row->relation, AccessExclusiveLock);
		}
		CHECK_FOR_INTERRUPTS();
		pg_usleep(10000);
	}
	return false;
}

/*
 * Whether a swap can begin.  Waits for readers before any row is locked: the old state has to be
 * folded for as long as they stay.
 */
bool
rollup_readers_have_left(const RollupRow *row)
{
	if (rollup_lock_views(row, LOCK_TRIES))
	{
		UnlockRelationOid(row->folded, AccessExclusiveLock);
		UnlockRelationOid(row->relation, AccessExclusiveLock);
		return true;
	}
	ereport(
		MyBackendType == B_BG_WORKER ? DEBUG1 : LOG,
		(errmsg("rollup \"%s\" is built, but its relation is being read; it is swapped in later",
				row->name)));
	return false;
}

/* Will the views be replaced when the build is over? */
bool
rollup_swaps_views(const RollupRow *row)
{
	return OidIsValid(row->next_storage) && row->next_definition != row->definition;
}

/* Gives an object of the new definition the name that the old one had. */
static void
rename_to(const RollupRow *row, Oid relid, const char *kind, const char *name)
{
	if (OidIsValid(get_relname_relid(name, get_rel_namespace(relid))))
		return;
	rollup_as_owner(row, psprintf("ALTER %s %s RENAME TO %s", kind, rollup_qualified(relid),
								  quote_identifier(name)));
}

/* Replaces the views by those of the new definition, and drops the old state. */
void
rollup_swap_views(RollupRow *row)
{
	Query *query = rollup_definition_query(row->next_definition);
	RollupShape *shape = rollup_shape(query);
	char *relation = rollup_qualified(row->relation);
	char *folded = rollup_qualified(row->folded);
	char *definition_name = get_rel_name(row->definition);
	char *storage_name = get_rel_name(row->storage);
	char *live_sql =
		rollup_live_sql(shape, rollup_qualified(row->next_definition),
						rollup_qualified(row->next_storage), rollup_qualified(row->token_table));
	char *folded_sql = rollup_folded_sql(shape, rollup_qualified(row->next_definition),
										 rollup_qualified(row->next_storage));
	char *old_definition = rollup_qualified(row->definition);
	char *old_storage = rollup_qualified(row->storage);
	List *live_properties = properties_of(row->relation);
	List *folded_properties = properties_of(row->folded);

	if (rollup_views_replaceable(row, query))
	{
		rollup_as_owner(row, psprintf("CREATE OR REPLACE VIEW %s AS %s", relation, live_sql));
		rollup_as_owner(row, psprintf("CREATE OR REPLACE VIEW %s AS %s", folded, folded_sql));
	}
	else
	{
		char *relation_name = get_rel_name(row->relation);
		char *folded_name = get_rel_name(row->folded);
		Oid namespace = get_rel_namespace(row->relation);
		Oid folded_namespace = get_rel_namespace(row->folded);
		SecureContext secure;

		secure_begin(&secure, relation_owner(row->relation));
		rollup_ddl(psprintf("DROP VIEW %s, %s", relation, folded));
		rollup_ddl(psprintf("CREATE VIEW %s AS %s", relation, live_sql));
		rollup_ddl(psprintf("CREATE VIEW %s AS %s", folded, folded_sql));
		secure_end(&secure);
		row->relation = get_relname_relid(relation_name, namespace);
		row->folded = get_relname_relid(folded_name, folded_namespace);
	}
	repeat_properties(row, live_properties, relation);
	repeat_properties(row, folded_properties, folded);
	rollup_as_owner(row, psprintf("DROP VIEW %s", old_definition));
	rollup_as_owner(row, psprintf("DROP TABLE %s", old_storage));
	rename_to(row, row->next_definition, "VIEW", definition_name);
	rename_to(row, row->next_storage, "TABLE", storage_name);
	rollup_run(psprintf(
		"UPDATE behavior._rollup SET relation = %u::pg_catalog.regclass, folded = %u::pg_catalog.regclass, "
		"definition = next_definition, storage = next_storage WHERE name = %s",
		row->relation, row->folded, quote_literal_cstr(row->name)));
}

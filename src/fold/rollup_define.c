/*
 * rollup_define.c
 *		create_rollup(), alter_rollup(), drop_rollup().
 *
 * What they make belongs to the caller and lies in the schema of the relation:
 * the definition, a real view with the query as it was given; the state; a token
 * that only the owner can read; and the two relations to read from.  DDL goes through SPI as the
 * caller, so that the usual privileges and event triggers apply; rows of ours
 * are written as the extension's owner.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/varlena.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/lock.h"
#include "core/spi.h"
#include "fold/projection.h"
#include "fold/rollup.h"
#include "fold/tick.h"

PG_FUNCTION_INFO_V1(behavior_create_rollup);
PG_FUNCTION_INFO_V1(behavior_alter_rollup);
PG_FUNCTION_INFO_V1(behavior_drop_rollup);

/* Runs DDL of ours as the current user, under the settings that its texts are made for. */
void
rollup_ddl(const char *sql)
{
	int guc_level = NewGUCNestLevel();
	int rc;

	pin_settings();
	SPI_connect();
	rc = SPI_execute(sql, false, 0);
	if (rc < 0)
		elog(ERROR, "\"%s\" returned %s", sql, SPI_result_code_string(rc));
	SPI_finish();
	AtEOXact_GUC(true, guc_level);
}

/* Moves the position of a syntax error from the calling statement to the rollup's query. */
static void
query_error_callback(void *arg)
{
	int position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery((const char *) arg);
	}
}

/* Parses, analyzes and checks a rollup's query; *text becomes the one statement in it. */
static Query *
checked_query(char **text)
{
	ErrorContextCallback callback;
	List *statements;
	RawStmt *statement;
	Query *query;

	callback.callback = query_error_callback;
	callback.arg = *text;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	statements = raw_parser(*text, RAW_PARSE_DEFAULT);
	if (list_length(statements) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR), errmsg("a rollup's query must be one statement"),
				 errhint("Write SELECT ... FROM behavior.event [WHERE ...] [GROUP BY ...].")));
	statement = linitial_node(RawStmt, statements);
	if (!IsA(statement->stmt, SelectStmt) || ((SelectStmt *) statement->stmt)->intoClause != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("a rollup keeps a SELECT"),
				 errhint("Write SELECT ... FROM behavior.event [WHERE ...] [GROUP BY ...].")));
	query = parse_analyze_fixedparams(statement, *text, NULL, 0, NULL);
	error_context_stack = callback.previous;

	rollup_check(query);
	if (statement->stmt_len > 0)
		*text = pnstrdup(*text + statement->stmt_location, statement->stmt_len);
	else
		*text = pstrdup(*text + statement->stmt_location);
	return query;
}

static void
check_may_read_events(void)
{
	AclResult result = pg_class_aclcheck(behavior_relid(REL_EVENT), GetUserId(), ACL_SELECT);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_VIEW, "event");
}

static char *
in_schema(Oid namespace, const char *name)
{
	return quote_qualified_identifier(get_namespace_name(namespace), name);
}

/* A free name such as "_views_state". */
static char *
free_name(const char *relation, const char *label, Oid namespace)
{
	return ChooseRelationName(psprintf("_%s", relation), NULL, label, namespace, false);
}

/* Makes the definition view from the caller's text, under the caller's search_path. */
static Oid
make_definition(const char *text, Oid namespace, const char *relation)
{
	char *name = free_name(relation, "definition", namespace);
	char *sql = psprintf("CREATE VIEW %s AS %s", in_schema(namespace, name), text);

	SPI_connect();
	if (SPI_execute(sql, false, 0) < 0)
		elog(ERROR, "could not create the definition of a rollup");
	SPI_finish();
	return get_relname_relid(name, namespace);
}

/* DROP EXTENSION ... CASCADE takes a table along that is of no use without the extension. */
static void
depend_on_extension(Oid relid)
{
	ObjectAddress table;
	ObjectAddress extension;

	if (creating_extension)
		return;
	ObjectAddressSet(table, RelationRelationId, relid);
	ObjectAddressSet(extension, ExtensionRelationId, behavior_extension_oid());
	recordDependencyOn(&table, &extension, DEPENDENCY_NORMAL);
}

/* Makes an empty state table, with an index on the time key where there is one. */
Oid
rollup_make_storage(const RollupShape *shape, Oid namespace, const char *relation)
{
	char *name = free_name(relation, "state", namespace);
	Oid relid;

	rollup_ddl(rollup_storage_sql(shape, in_schema(namespace, name)));
	relid = get_relname_relid(name, namespace);
	depend_on_extension(relid);
	if (shape->time_key > 0)
		rollup_ddl(
			psprintf("CREATE INDEX ON %s (k_%d)", in_schema(namespace, name), shape->time_key));
	return relid;
}

static bool
is_subscription(const char *name)
{
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(name);
	SecureContext secure;
	bool found;

	secure_begin(&secure, behavior_owner());
	SPI_connect();
	found = spi_exec("SELECT FROM behavior._subscription WHERE name = $1", SPI_OK_SELECT, false, 1,
					 &type, &value, NULL) > 0;
	SPI_finish();
	secure_end(&secure);
	return found;
}

/* Whether a name is free for a projection. */
static bool
name_is_taken(const char *name)
{
	RollupRow *row = rollup_row_by_name(name, GetLatestSnapshot());

	if (strcmp(name, "sessions") == 0 || is_subscription(name))
		return true;
	if (row != NULL && get_rel_name(row->relation) == NULL)
	{
		rollup_forget(name);
		return false;
	}
	return row != NULL || projection_progress(name, GetLatestSnapshot()) >= 0;
}

/* The projection's name: the relation's, or with its schema where that is taken. */
char *
rollup_projection_name(Oid namespace, const char *relation)
{
	char *name = pstrdup(relation);
	bool reserved = strcmp(name, "activity") == 0 && namespace != behavior_schema_oid();

	if (reserved || name_is_taken(name))
		name = psprintf("%s.%s", get_namespace_name(namespace), relation);
	if (name_is_taken(name))
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("a projection \"%s\" already exists", name)));
	return name;
}

/* Writes the rows of a new rollup. */
void
rollup_register(const RollupRow *row, int64 tick)
{
	Oid projection_types[] = {TEXTOID, TEXTOID};
	Datum projection_values[] = {CStringGetTextDatum(row->name),
								 CStringGetTextDatum(row->built ? "current" : "backfilling")};
	Oid types[] = {TEXTOID,		REGCLASSOID, REGCLASSOID, REGCLASSOID,
				   REGCLASSOID, REGCLASSOID, UUIDOID,	  BOOLOID};
	Datum values[] = {CStringGetTextDatum(row->name), ObjectIdGetDatum(row->relation),
					  ObjectIdGetDatum(row->folded),  ObjectIdGetDatum(row->definition),
					  ObjectIdGetDatum(row->storage), ObjectIdGetDatum(row->token_table),
					  UUIDPGetDatum(&row->token),	  BoolGetDatum(row->built)};
	SecureContext secure;

	secure_begin(&secure, behavior_owner());
	SPI_connect();
	spi_exec("INSERT INTO behavior._projection (name, kind, state) VALUES ($1, 'rollup', $2)",
			 SPI_OK_INSERT, false, 2, projection_types, projection_values, NULL);
	spi_exec(
		"INSERT INTO behavior._rollup (name, relation, folded, definition, storage, token_table, token, built) "
		"VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
		SPI_OK_INSERT, false, 8, types, values, NULL);
	SPI_finish();
	secure_end(&secure);
	projection_advance(row->name, tick);
}

/* Deletes the rows of a rollup; its dead letters stay. */
void
rollup_forget(const char *name)
{
	const char *quoted = quote_literal_cstr(name);

	rollup_run(psprintf("DELETE FROM behavior._rollup WHERE name = %s", quoted));
	rollup_run(psprintf("DELETE FROM behavior._projection WHERE name = %s", quoted));
	rollup_run(psprintf("DELETE FROM behavior._projection_tick WHERE projection = %s", quoted));
	rollup_run(psprintf("DELETE FROM behavior._log_walk WHERE projection = %s", quoted));
	rollup_run(psprintf(
		"DELETE FROM behavior._set_aside WHERE projection IN (%s, %s || pg_catalog.chr(1))", quoted,
		quoted));
}

Datum
behavior_create_rollup(PG_FUNCTION_ARGS)
{
	RangeVar *range = makeRangeVarFromNameList(textToQualifiedNameList(PG_GETARG_TEXT_PP(0)));
	char *source = text_to_cstring(PG_GETARG_TEXT_PP(1));
	bool if_not_exists = PG_GETARG_BOOL(2);
	RollupRow row = {0};
	RollupShape *shape;
	Oid namespace;
	Oid existing;
	char *folded;
	char *token;
	char *definition_name;
	char *storage_name;
	int64 tick = 0;

	check_may_read_events();
	namespace = RangeVarGetCreationNamespace(range);
	if (isAnyTempNamespace(namespace))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("a rollup cannot be temporary"), errhint("Name another schema.")));
	if (!creating_extension)
		rollup_bury_dropped(namespace);
	existing = get_relname_relid(range->relname, namespace);
	if (OidIsValid(existing))
	{
		if (if_not_exists && rollup_row_by_relation(existing, GetLatestSnapshot()) != NULL)
		{
			ereport(NOTICE, (errcode(ERRCODE_DUPLICATE_TABLE),
							 errmsg("rollup \"%s\" already exists, skipping", range->relname)));
			PG_RETURN_OID(existing);
		}
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_TABLE),
						errmsg("relation \"%s\" already exists", range->relname)));
	}

	(void) checked_query(&source);
	row.definition = make_definition(source, namespace, range->relname);
	shape = rollup_shape(rollup_definition_query(row.definition));
	row.storage = rollup_make_storage(shape, namespace, range->relname);
	definition_name = rollup_qualified(row.definition);
	storage_name = rollup_qualified(row.storage);

	token = free_name(range->relname, "token", namespace);
	rollup_ddl(psprintf(
		"CREATE TABLE %s (singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton), token uuid NOT NULL)",
		in_schema(namespace, token)));
	row.token_table = get_relname_relid(token, namespace);
	depend_on_extension(row.token_table);
	rollup_ddl(psprintf(
		"CREATE VIEW %s AS %s", in_schema(namespace, range->relname),
		rollup_live_sql(shape, definition_name, storage_name, in_schema(namespace, token))));
	row.relation = get_relname_relid(range->relname, namespace);
	folded = makeObjectName(range->relname, NULL, "folded");
	/* Names so long that theirs are cut to the same. */
	if (strcmp(folded, range->relname) == 0 ||
		(strncmp(folded, range->relname, strlen(range->relname)) != 0 &&
		 OidIsValid(get_relname_relid(folded, namespace))))
		folded = free_name(range->relname, "folded", namespace);
	rollup_ddl(psprintf("CREATE VIEW %s AS %s", in_schema(namespace, folded),
						rollup_folded_sql(shape, definition_name, storage_name)));
	row.folded = get_relname_relid(folded, namespace);

	/* In the install script the built-in rollup is made; its rows come with the first tick. */
	if (!creating_extension)
	{
		if (!pg_strong_random(&row.token, sizeof(row.token)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate a random token")));
		rollup_ddl(psprintf("INSERT INTO %s (token) VALUES (%s)", in_schema(namespace, token),
							quote_literal_cstr(DatumGetCString(
								DirectFunctionCall1(uuid_out, UUIDPGetDatum(&row.token))))));
		/* Until commit: two who make a projection of the same name wait for each other. */
		behavior_lock(behavior_relid(REL_PROJECTION), PROJECTION_NAMES_LOCK, ExclusiveLock);
		row.name = rollup_projection_name(namespace, range->relname);
		tick = tick_last(GetLatestSnapshot());
		row.built = tick == 0;
		rollup_register(&row, tick);
	}
	PG_RETURN_OID(row.relation);
}

/* The rollup of that name, which may be a relation's or a projection's. */
static RollupRow *
find_rollup(text *name, bool missing_ok)
{
	RangeVar *range = makeRangeVarFromNameList(textToQualifiedNameList(name));
	Oid relid = RangeVarGetRelid(range, NoLock, true);
	RollupRow *row = NULL;

	if (OidIsValid(relid))
		row = rollup_row_by_relation(relid, GetLatestSnapshot());
	if (row == NULL)
		row = rollup_row_by_name(text_to_cstring(name), GetLatestSnapshot());
	if (row == NULL && OidIsValid(relid))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a rollup", range->relname),
						errhint("behavior.rollup lists the rollups.")));
	if (row == NULL && !missing_ok)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("rollup \"%s\" does not exist", text_to_cstring(name))));
	return row;
}

static void
check_owner(const RollupRow *row)
{
	if (get_rel_name(row->relation) != NULL && !relation_ownercheck(row->relation, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_VIEW, get_rel_name(row->relation));
}

static void
drop_relation(Oid relid, bool cascade)
{
	char *name = OidIsValid(relid) ? rollup_qualified(relid) : NULL;

	if (name != NULL)
		rollup_ddl(psprintf("DROP %s %s %s",
							get_rel_relkind(relid) == RELKIND_VIEW ? "VIEW" : "TABLE", name,
							cascade ? "CASCADE" : "RESTRICT"));
}

/* Drops what is being built beside. */
static void
drop_next(const RollupRow *row)
{
	if (row->next_definition != row->definition)
		drop_relation(row->next_definition, false);
	drop_relation(row->next_storage, false);
	rollup_run(psprintf(
		"UPDATE behavior._rollup SET next_definition = NULL, next_storage = NULL WHERE name = %s",
		quote_literal_cstr(row->name)));
	rollup_run(psprintf("DELETE FROM behavior._log_walk WHERE projection = %s",
						quote_literal_cstr(row->name)));
	rollup_run(
		psprintf("DELETE FROM behavior._set_aside WHERE projection = %s || pg_catalog.chr(1)",
				 quote_literal_cstr(row->name)));
}

Datum
behavior_drop_rollup(PG_FUNCTION_ARGS)
{
	bool cascade = PG_GETARG_BOOL(2);
	RollupRow *row = find_rollup(PG_GETARG_TEXT_PP(0), PG_GETARG_BOOL(1));

	if (row == NULL)
	{
		ereport(NOTICE, (errmsg("rollup \"%s\" does not exist, skipping",
								text_to_cstring(PG_GETARG_TEXT_PP(0)))));
		PG_RETURN_VOID();
	}
	check_owner(row);
	rollup_lock(row->name, true);
	row = rollup_row_by_name(row->name, GetLatestSnapshot());
	if (row == NULL)
		PG_RETURN_VOID();
	drop_relation(row->relation, cascade);
	drop_relation(row->folded, cascade);
	drop_next(row);
	drop_relation(row->definition, cascade);
	drop_relation(row->storage, cascade);
	drop_relation(row->token_table, cascade);
	rollup_forget(row->name);
	PG_RETURN_VOID();
}

/* Whether a query's columns are what CREATE OR REPLACE VIEW lets the relation's become. */
bool
rollup_views_replaceable(const RollupRow *row, Query *query)
{
	Relation rel = relation_open(row->relation, AccessShareLock);
	TupleDesc desc = RelationGetDescr(rel);
	ListCell *lc;
	int i = 0;
	bool same = true;

	foreach (lc, rollup_target_list(query))
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Form_pg_attribute attribute;

		if (tle->resjunk || i >= desc->natts)
			continue;
		attribute = TupleDescAttr(desc, i++);
		if (attribute->attisdropped || strcmp(NameStr(attribute->attname), tle->resname) != 0 ||
			attribute->atttypid != exprType((Node *) tle->expr) ||
			attribute->atttypmod != exprTypmod((Node *) tle->expr) ||
			attribute->attcollation != exprCollation((Node *) tle->expr))
			same = false;
	}
	same = same && i == desc->natts;
	relation_close(rel, NoLock);
	return same;
}

/* Whether anything is built on the relations of a rollup. */
static bool
has_dependents(const RollupRow *row)
{
	SecureContext secure;
	Oid types[] = {OIDOID, OIDOID};
	Datum values[] = {ObjectIdGetDatum(row->relation), ObjectIdGetDatum(row->folded)};
	bool found;

	secure_begin(&secure, behavior_owner());
	SPI_connect();
	found =
		spi_exec(
			"SELECT FROM pg_catalog.pg_depend AS d WHERE d.deptype = 'n' AND "
			"(d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid IN ($1, $2) OR "
			"d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.refobjid IN "
			"(SELECT t.oid FROM pg_catalog.pg_type AS t WHERE t.typrelid IN ($1, $2))) AND NOT "
			"(d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND EXISTS (SELECT FROM "
			"pg_catalog.pg_rewrite AS r WHERE r.oid = d.objid AND r.ev_class IN ($1, $2)))",
			SPI_OK_SELECT, true, 2, types, values, NULL) > 0;
	SPI_finish();
	secure_end(&secure);
	return found;
}

Datum
behavior_alter_rollup(PG_FUNCTION_ARGS)
{
	RollupRow *row = find_rollup(PG_GETARG_TEXT_PP(0), false);
	char *source = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Query *query;
	RollupShape *shape;
	Oid namespace;
	char *relation;
	Oid definition;
	Oid storage;

	check_owner(row);
	check_may_read_events();
	relation = get_rel_name(row->relation);
	if (relation == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("the relation of rollup \"%s\" was dropped", row->name)));
	namespace = get_rel_namespace(row->relation);
	if (namespace == behavior_schema_oid())
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("the built-in rollup \"%s\" cannot be altered", row->name),
						errhint("Create a rollup of your own with behavior.create_rollup().")));
	query = checked_query(&source);
	rollup_lock(row->name, true);
	row = rollup_row_by_name(row->name, GetLatestSnapshot());
	if (row == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("the rollup was dropped")));
	if (!rollup_views_replaceable(row, query) && has_dependents(row))
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot change the columns of rollup \"%s\" because other objects depend on it",
					row->name),
			 errhint(
				 "Keep the columns as they are and add new ones at the end, or drop what depends on it first.")));

	drop_next(row);
	definition = make_definition(source, namespace, relation);
	shape = rollup_shape(rollup_definition_query(definition));
	storage = rollup_make_storage(shape, namespace, relation);
	rollup_run(psprintf("UPDATE behavior._rollup SET next_definition = %u::pg_catalog.regclass, "
						"next_storage = %u::pg_catalog.regclass WHERE name = %s",
						definition, storage, quote_literal_cstr(row->name)));
	rollup_run(psprintf("UPDATE behavior._projection SET rebuild = true WHERE name = %s",
						quote_literal_cstr(row->name)));
	PG_RETURN_VOID();
}

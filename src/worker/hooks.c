/*
 * hooks.c
 *		Commands that the workers must know of.
 *
 * DROP DATABASE, ALTER DATABASE RENAME and SET TABLESPACE and CREATE DATABASE TEMPLATE
 * fail while anybody is connected to the database: the workers there are stopped
 * first and kept out until the transaction has ended, whichever way.  Only for
 * a user who may run the command, or anybody could stop the workers of others.
 *
 * CREATE EXTENSION behavior and CREATE DATABASE poke the launcher at commit, and whoever has sent
 * events pokes the database's worker where there are subscriptions.  COMMIT PREPARED does not: it
 * does not know what it commits, and the worker looks once a second.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/utility.h"
#include "ingest/frame.h"
#include "worker/shared.h"
#include "worker/worker.h"

static ProcessUtility_hook_type previous_utility_hook = NULL;

/* What is due when the transaction ends. */
static bool holding = false;
static bool poke_extension = false;
static bool poke_databases = false;

static bool
may_create_databases(void)
{
	HeapTuple tuple;
	bool allowed = false;

	if (superuser())
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (HeapTupleIsValid(tuple))
	{
		allowed = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	return allowed;
}

static bool
is_template(Oid dboid)
{
	HeapTuple tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(dboid));
	bool result = false;

	if (HeapTupleIsValid(tuple))
	{
		result = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
		ReleaseSysCache(tuple);
	}
	return result;
}

static void
hold_database(const char *name, bool as_template)
{
	Oid dboid = get_database_oid(name, true);
	bool owner;

	if (!OidIsValid(dboid))
		return;
	owner = database_ownercheck(dboid, GetUserId());
	if (as_template ? may_create_databases() && (owner || is_template(dboid)) : owner)
	{
		holding = true;
		worker_hold(dboid);
	}
}

static const char *
option_text(List *options, const char *name)
{
	ListCell *cell;

	foreach (cell, options)
	{
		DefElem *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, name) == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return NULL;
}

/* Stops the workers that would make the statement fail. */
static void
before_utility(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			hold_database(((DropdbStmt *) statement)->dbname, false);
			break;
		case T_AlterDatabaseStmt:
			if (option_text(((AlterDatabaseStmt *) statement)->options, "tablespace") != NULL)
				hold_database(((AlterDatabaseStmt *) statement)->dbname, false);
			break;
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
				hold_database(((RenameStmt *) statement)->subname, false);
			break;
		case T_CreatedbStmt:
		{
			const char *template = option_text(((CreatedbStmt *) statement)->options, "template");

			hold_database(template ? template : "template1", true);
			break;
		}
		default:
			break;
	}
}

/* TRUNCATE fires no trigger of a view; PostgreSQL would only say that it is no table. */
static void
refuse_truncate(const TruncateStmt *statement)
{
	ListCell *cell;

	foreach (cell, statement->relations)
	{
		Oid relid = RangeVarGetRelid(lfirst_node(RangeVar, cell), NoLock, true);

		if (OidIsValid(relid) && OidIsValid(behavior_extension_oid()) &&
			(relid == behavior_relid(REL_EVENT) || relid == behavior_relid(REL_INBOX)))
			ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							errmsg("cannot truncate behavior.%s", get_rel_name(relid)),
							errdetail("Events are facts: they are only added."),
							errhint("Send another event that corrects it.")));
	}
}

/* Notes what the launcher is to be told at commit. */
static void
after_utility(NodeTag tag)
{
	switch (tag)
	{
		case T_CreatedbStmt:
		case T_AlterDatabaseStmt:
			poke_databases = true;
			break;
		case T_CreateExtensionStmt:
			/* by any name: another extension may have brought ours along */
			if (OidIsValid(behavior_extension_oid()))
				poke_extension = true;
			break;
		case T_TransactionStmt:
			/* COMMIT PREPARED: it may have been that of a CREATE EXTENSION */
			if (worker_count(WORKER_DATABASE, MyDatabaseId) == 0 &&
				OidIsValid(behavior_extension_oid()))
				poke_extension = true;
			break;
		default:
			break;
	}
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
				DestReceiver *dest, QueryCompletion *completion)
{
	Node *statement = pstmt->utilityStmt;
	NodeTag tag = nodeTag(statement);
	bool ours = worker_shared != NULL &&
				(tag == T_DropdbStmt || tag == T_AlterDatabaseStmt || tag == T_RenameStmt ||
				 tag == T_CreatedbStmt || tag == T_CreateExtensionStmt ||
				 (tag == T_TransactionStmt &&
				  ((TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED));

	if (ours)
		before_utility(statement);
	else if (tag == T_TruncateStmt)
		refuse_truncate((TruncateStmt *) statement);

	utility_go_on(previous_utility_hook, pstmt, query, read_only_tree, context, params, environment,
				  dest, completion);

	if (ours)
		after_utility(tag);
}

static void
on_transaction_end(XactEvent event, void *arg)
{
	bool committed;

	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			committed = event == XACT_EVENT_COMMIT;
			break;
		case XACT_EVENT_ABORT:
			committed = false;
			break;
		default:
			return;
	}

	if (holding)
	{
		holding = false;
		worker_release_holds();
	}
	if (committed && poke_extension)
		worker_poke(MyDatabaseId);
	if (committed && poke_databases)
		worker_poke(InvalidOid);
	poke_extension = false;
	poke_databases = false;
}

void
worker_hooks_install(void)
{
	previous_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	RegisterXactCallback(on_transaction_end, NULL);
	frame_committed_hook = worker_tell_news;
}

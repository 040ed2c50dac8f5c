/*
 * door_upgrade.c
 *		Lets pg_upgrade restore triggers of views that fire ALWAYS.
 *
 * The triggers of the doors fire ALWAYS (see event.sql).  pg_upgrade dumps members of
 * extensions one by one, and for such a trigger writes ALTER TABLE behavior.event ENABLE ALWAYS
 * TRIGGER, which PostgreSQL refuses for a view and which would end the upgrade.  So in a
 * server that runs for pg_upgrade, and only there, this statement is carried out here.  The library
 * is loaded by then: the functions of the triggers have just been made in the same session.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

#include "core/utility.h"
#include "ingest/door.h"

static ProcessUtility_hook_type previous_utility_hook = NULL;

/* The view of ours whose trigger the statement wants to fire always, or InvalidOid. */
static Oid
door_of(Node *statement, const char **trigger)
{
	AlterTableStmt *alter = (AlterTableStmt *) statement;
	AlterTableCmd *command;
	Oid relid;

	if (!IsA(statement, AlterTableStmt) || list_length(alter->cmds) != 1)
		return InvalidOid;
	command = linitial_node(AlterTableCmd, alter->cmds);
	if (command->subtype != AT_EnableAlwaysTrig)
		return InvalidOid;
	relid = RangeVarGetRelid(alter->relation, AccessExclusiveLock, true);
	if (!OidIsValid(relid) || get_rel_relkind(relid) != RELKIND_VIEW ||
		get_rel_namespace(relid) != get_namespace_oid("behavior", true))
		return InvalidOid;
	*trigger = command->name;
	return relid;
}

static void
fire_always(Oid relid, const char *trigger)
{
	Oid types[] = {OIDOID, NAMEOID};
	Datum values[] = {ObjectIdGetDatum(relid), CStringGetDatum(trigger)};

	SPI_connect();
	if (SPI_execute_with_args("UPDATE pg_catalog.pg_trigger SET tgenabled = 'A'"
							  " WHERE tgrelid OPERATOR(pg_catalog.=) $1"
							  " AND tgname OPERATOR(pg_catalog.=) $2",
							  2, types, values, NULL, false, 0) != SPI_OK_UPDATE ||
		SPI_processed != 1)
		elog(ERROR, "could not enable trigger \"%s\"", trigger);
	SPI_finish();
	CacheInvalidateRelcacheByRelid(relid);
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
				DestReceiver *dest, QueryCompletion *completion)
{
	const char *trigger = NULL;
	Oid door = door_of(pstmt->utilityStmt, &trigger);

	if (OidIsValid(door))
		fire_always(door, trigger);
	else
		utility_go_on(previous_utility_hook, pstmt, query, read_only_tree, context, params,
					  environment, dest, completion);
}

void
door_allow_upgrade(void)
{
	previous_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}

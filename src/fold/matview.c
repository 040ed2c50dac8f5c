/*
 * matview.c
 *		Materialized views that are refreshed on a cadence.
 *
 * A refresh is due when its interval has passed since the last one started; time
 * that was missed is not made up for.  With only_on_change it also needs something new: what
 * had been folded when the last one started (each projection's progress, and the last
 * tick) is kept as text and compared.  Progress, not just the tick: a tick is cut
 * before it is folded, and a refresh in between must not be the last one.
 *
 * Whoever refreshes holds a lock of ours on the view, so that a second
 * worker passes it by instead of queueing up behind the first.  A refresh that is not
 * CONCURRENTLY needs all readers out of its way, and new ones queue behind it: it gives
 * up waiting after some seconds and is tried again.
 *
 * It runs as the view's owner.  REFRESH makes itself a security-restricted operation
 * where it evaluates the query; around that it must not be one, since CONCURRENTLY
 * makes a temporary table.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/lock.h"
#include "core/spi.h"
#include "fold/matview.h"

#define LOCK_REFRESH 1 /* on the materialized view */
#define LOCK_TIMEOUT "5s"

#define FOLDED_SQL                                                                                                  \
	"(SELECT pg_catalog.concat((SELECT pg_catalog.max(t.tick_id) FROM behavior.tick t), ' ',"                       \
	" pg_catalog.hashtextextended(pg_catalog.string_agg("                                                           \
	"pg_catalog.concat(p.name, ' ', behavior._projection_tick_id(p.name), ' ', p.state), ',' ORDER BY p.name), 0))" \
	" FROM behavior._projection p)"

#define DUE_SQL                                                                                    \
	" FROM behavior._refresh r"                                                                    \
	" WHERE r.next_due_at <= pg_catalog.clock_timestamp()"                                         \
	" AND (NOT r.only_on_change OR r.attempts > 0 OR r.seen IS DISTINCT FROM " FOLDED_SQL ")"

PG_FUNCTION_INFO_V1(behavior_schedule_refresh);
PG_FUNCTION_INFO_V1(behavior_unschedule_refresh);

/* Raises unless the relation is a materialized view of the current user's. */
static void
check_matview(Oid matview)
{
	char relkind = get_rel_relkind(matview);

	if (relkind == '\0')
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation with OID %u does not exist", matview)));
	if (relkind != RELKIND_MATVIEW)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a materialized view", get_rel_name(matview))));
	if (!relation_ownercheck(matview, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_MATVIEW, get_rel_name(matview));
}

Datum
behavior_schedule_refresh(PG_FUNCTION_ARGS)
{
	Oid matview = PG_GETARG_OID(0);
	Interval *every = PG_GETARG_INTERVAL_P(1);
	Oid types[] = {REGCLASSOID, INTERVALOID, BOOLOID};
	Datum values[] = {ObjectIdGetDatum(matview), IntervalPGetDatum(every),
					  BoolGetDatum(PG_GETARG_BOOL(2))};
	Interval zero = {0};
	SecureContext secure;

	check_matview(matview);
	if (!DatumGetBool(
			DirectFunctionCall2(interval_gt, IntervalPGetDatum(every), IntervalPGetDatum(&zero))))
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the interval between refreshes must be above 0, not %s",
					DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(every))))));

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	(void) spi_exec(
		"INSERT INTO behavior._refresh AS r (matview, every, only_on_change, next_due_at)"
		" VALUES ($1, $2, $3, pg_catalog.clock_timestamp())"
		" ON CONFLICT (matview) DO UPDATE SET every = excluded.every,"
		" only_on_change = excluded.only_on_change, next_due_at ="
		" coalesce(r.last_started_at + excluded.every, excluded.next_due_at)",
		SPI_OK_INSERT, false, 3, types, values, NULL);
	secure_end(&secure);
	SPI_finish();
	PG_RETURN_VOID();
}

Datum
behavior_unschedule_refresh(PG_FUNCTION_ARGS)
{
	Oid matview = PG_GETARG_OID(0);
	Oid types[] = {REGCLASSOID};
	Datum values[] = {ObjectIdGetDatum(matview)};
	SecureContext secure;
	bool found;

	check_matview(matview);
	SPI_connect();
	secure_begin(&secure, behavior_owner());
	found = spi_exec("DELETE FROM behavior._refresh WHERE matview = $1", SPI_OK_DELETE, false, 1,
					 types, values, NULL) > 0;
	secure_end(&secure);
	SPI_finish();
	if (!found)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("no refresh of \"%s\" is scheduled", get_rel_name(matview))));
	PG_RETURN_VOID();
}

bool
matview_any_due(void)
{
	SecureContext secure;
	bool due;

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	due = spi_exec("SELECT 1" DUE_SQL " LIMIT 1", SPI_OK_SELECT, true, 0, NULL, NULL, NULL) > 0;
	secure_end(&secure);
	SPI_finish();
	return due;
}

List *
matview_due(void)
{
	MemoryContext context = CurrentMemoryContext;
	List *due = NIL;
	SecureContext secure;

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	(void) spi_exec("SELECT r.matview" DUE_SQL " ORDER BY r.next_due_at", SPI_OK_SELECT, true, 0,
					NULL, NULL, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old_context = MemoryContextSwitchTo(context);
		bool isnull;

		due = lappend_oid(due, DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i],
															  SPI_tuptable->tupdesc, 1, &isnull)));
		MemoryContextSwitchTo(old_context);
	}
	secure_end(&secure);
	SPI_finish();
	return due;
}

bool
matview_refresh_begin(Oid matview)
{
	Oid types[] = {REGCLASSOID};
	Datum values[] = {ObjectIdGetDatum(matview)};
	SecureContext secure;
	bool begun;

	if (!behavior_lock_conditional(matview, LOCK_REFRESH, ExclusiveLock))
		return false;

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	if (get_rel_relkind(matview) != RELKIND_MATVIEW)
	{
		/* It was dropped. */
		(void) spi_exec("DELETE FROM behavior._refresh WHERE matview = $1", SPI_OK_DELETE, false, 1,
						types, values, NULL);
		begun = false;
	}
	else
		begun =
			spi_exec("UPDATE behavior._refresh SET last_started_at = pg_catalog.clock_timestamp(),"
					 " next_due_at = pg_catalog.clock_timestamp() + every, seen = " FOLDED_SQL
					 " WHERE matview = $1 AND next_due_at <= pg_catalog.clock_timestamp()",
					 SPI_OK_UPDATE, false, 1, types, values, NULL) > 0;
	secure_end(&secure);
	SPI_finish();
	return begun;
}

/* Has the view what REFRESH CONCURRENTLY needs: rows, and a unique index over plain columns of all
 * of them? */
static bool
can_refresh_concurrently(Oid matview)
{
	Relation rel = relation_open(matview, AccessShareLock);
	bool usable = false;

	if (RelationIsPopulated(rel))
	{
		List *indexes = RelationGetIndexList(rel);
		ListCell *cell;

		foreach (cell, indexes)
		{
			Relation index = index_open(lfirst_oid(cell), AccessShareLock);
			Form_pg_index form = index->rd_index;
			bool fits = form->indisunique && form->indimmediate && form->indisvalid &&
						index->rd_rel->relam == BTREE_AM_OID && form->indnatts > 0 &&
						RelationGetIndexPredicate(index) == NIL;

			for (int i = 0; fits && i < form->indnatts; i++)
				fits = form->indkey.values[i] > 0;
			usable |= fits;
			index_close(index, AccessShareLock);
		}
		list_free(indexes);
	}
	relation_close(rel, AccessShareLock);
	return usable;
}

/* For the rest of what secure_begin() began. */
static void
set_lock_timeout(const char *value)
{
	(void) set_config_option("lock_timeout", value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
}

bool
matview_refresh_run(Oid matview)
{
	Oid types[] = {REGCLASSOID, TIMESTAMPTZOID};
	Datum values[] = {ObjectIdGetDatum(matview), TimestampTzGetDatum(GetCurrentTimestamp())};
	Oid owner;
	bool concurrently;
	char *command;
	SecureContext secure;
	int rc;

	if (!behavior_lock_conditional(matview, LOCK_REFRESH, ExclusiveLock))
		return false;
	owner = relation_owner(matview);
	if (!OidIsValid(owner))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation with OID %u does not exist", matview)));
	concurrently = can_refresh_concurrently(matview);
	command = psprintf("REFRESH MATERIALIZED VIEW %s%s", concurrently ? "CONCURRENTLY " : "",
					   quote_qualified_identifier(get_namespace_name(get_rel_namespace(matview)),
												  get_rel_name(matview)));

	SPI_connect();
	secure_begin(&secure, owner);
	SetUserIdAndSecContext(owner, secure.saved_context | SECURITY_LOCAL_USERID_CHANGE);
	set_lock_timeout(LOCK_TIMEOUT);
	LockRelationOid(matview, concurrently ? ExclusiveLock : AccessExclusiveLock);
	set_lock_timeout("0");
	rc = SPI_execute(command, false, 0);
	if (rc != SPI_OK_UTILITY)
		elog(ERROR, "\"%s\" returned %s", command, SPI_result_code_string(rc));
	secure_end(&secure);

	secure_begin(&secure, behavior_owner());
	(void) spi_exec(
		"UPDATE behavior._refresh SET last_duration = pg_catalog.clock_timestamp() - $2,"
		" attempts = 0, failed_at = NULL, last_error = NULL WHERE matview = $1",
		SPI_OK_UPDATE, false, 2, types, values, NULL);
	secure_end(&secure);
	SPI_finish();
	return true;
}

void
matview_refresh_failed(Oid matview, const char *message)
{
	Oid types[] = {REGCLASSOID, TEXTOID};
	Datum values[] = {ObjectIdGetDatum(matview), CStringGetTextDatum(message)};
	SecureContext secure;

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	(void) spi_exec(
		"UPDATE behavior._refresh SET attempts = attempts + 1,"
		" failed_at = pg_catalog.clock_timestamp(), last_error = $2,"
		" next_due_at = pg_catalog.clock_timestamp() + greatest(every, pg_catalog.make_interval("
		"secs => least(300, pg_catalog.power(2, least(attempts, 10)))))"
		" WHERE matview = $1",
		SPI_OK_UPDATE, false, 2, types, values, NULL);
	secure_end(&secure);
	SPI_finish();
}

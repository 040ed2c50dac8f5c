/*
 * subscription_reserve.c
 *		Subscriptions that have a delivery worker of their own.
 *
 * A reserved worker comes out of behavior.delivery_workers: what one subscription has for itself,
 * the others do without.  The setting may be lowered later; then those with the lowest ids keep
 * theirs, and the others are served like any other.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "core/catalog.h"
#include "core/guc.h"
#include "core/lock.h"
#include "core/spi.h"
#include "route/subscription_reserve.h"

#define LOCK_RESERVE 32769 /* on behavior._subscription, above those of subscriptions */

void
subscription_check_reserved(int64 id)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(id)};
	int allowed = Max(behavior_delivery_workers - 1, 0);
	SecureContext secure;
	bool isnull;
	int64 others;

	behavior_lock(behavior_relid(REL_SUBSCRIPTION), LOCK_RESERVE, ExclusiveLock);
	SPI_connect();
	secure_begin(&secure, behavior_owner());
	/* Not read only: under the lock it has to see what was committed until now. */
	(void) spi_exec("SELECT pg_catalog.count(*) FROM behavior._subscription"
					" WHERE reserved_worker AND handler IS NOT NULL AND subscription_id <> $1",
					SPI_OK_SELECT, false, 1, types, values, NULL);
	others = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	secure_end(&secure);
	SPI_finish();

	if (others >= allowed)
		ereport(
			ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("no delivery worker is left to be reserved"),
			 errdetail(
				 "%lld of behavior.delivery_workers (%d) are reserved, and one must be left for all other subscriptions.",
				 (long long) others, behavior_delivery_workers),
			 errhint(
				 "Raise behavior.delivery_workers, or take reserved_worker from another subscription.")));
}

List *
subscription_reserved(void)
{
	MemoryContext context = CurrentMemoryContext;
	SecureContext secure;
	List *ids = NIL;

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	(void) spi_exec("SELECT subscription_id FROM behavior._subscription"
					" WHERE reserved_worker AND handler IS NOT NULL AND NOT paused"
					" ORDER BY subscription_id",
					SPI_OK_SELECT, true, 0, NULL, NULL, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old_context = MemoryContextSwitchTo(context);
		int64 *id = palloc(sizeof(int64));
		bool isnull;

		*id =
			DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		ids = lappend(ids, id);
		MemoryContextSwitchTo(old_context);
	}
	secure_end(&secure);
	SPI_finish();
	return ids;
}

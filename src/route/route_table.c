/*
 * route_table.c
 *		All subscriptions as the router knows them, with their patterns compiled.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/spi.h"
#include "route/route_table.h"

/* Adds the places and transactions of all rows that the snapshot sees. */
static uint64
fingerprint(BehaviorRel which, Snapshot snapshot)
{
	Relation rel = table_open(behavior_relid(which), AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	uint64 sum = 1;
	HeapTuple tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		uint64 version = (uint64) HeapTupleHeaderGetRawXmin(tuple->t_data) << 32 | which << 16 |
						 ItemPointerGetOffsetNumber(&tuple->t_self);

		sum += hash_bytes_uint32_extended(ItemPointerGetBlockNumber(&tuple->t_self), version);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return sum;
}

uint64
route_table_fingerprint(Snapshot snapshot)
{
	return fingerprint(REL_SUBSCRIPTION, snapshot) * 31 +
		   fingerprint(REL_SUBSCRIPTION_JOIN, snapshot);
}

void
route_table_forget(RouteTable *table)
{
	MemoryContext context = table->context;

	memset(table, 0, sizeof(*table));
	if (context != NULL)
		MemoryContextDelete(context);
}

/* What is wrong with a pattern that is in the catalog; NULL: nothing. */
static char *
pattern_error(Jsonb *pattern)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context =
		AllocSetContextCreate(caller, "behavior pattern check", ALLOCSET_DEFAULT_SIZES);
	char *volatile error = NULL;

	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		(void) event_pattern_compile(pattern);
	}
	PG_CATCH();
	{
		ErrorData *edata;
		int category;

		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		category = ERRCODE_TO_CATEGORY(edata->sqlerrcode);
		/* What is not the pattern's fault. */
		if (category == ERRCODE_TO_CATEGORY(ERRCODE_INSUFFICIENT_RESOURCES) ||
			category == ERRCODE_TO_CATEGORY(ERRCODE_OPERATOR_INTERVENTION))
			PG_RE_THROW();
		FlushErrorState();
		error = edata->detail ? psprintf("%s: %s", edata->message, edata->detail) : edata->message;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return error;
}

static bool
same_error(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

void
route_table_load(RouteTable *table, Snapshot snapshot, uint64 print)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "behavior routes", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	List *subscriptions = subscription_list(snapshot);
	PatternSet *patterns = pattern_set_make();
	Route *routes = palloc0(sizeof(Route) * (list_length(subscriptions) + 1));
	int count = 0;
	ListCell *cell;

	foreach (cell, subscriptions)
	{
		Subscription *subscription = lfirst(cell);
		Route *route = &routes[count];

		route->id = subscription->id;
		route->channel = psprintf(CHANNEL_PREFIX "%s", subscription->name);
		route->start_at = subscription->has_start_at ? subscription->start_at : DT_NOBEGIN;
		route->joined_tick = subscription->joined_tick;
		route->created_tick = subscription->created_tick;
		route->skip_batches = subscription->skip_batches;
		route->error = pattern_error(subscription->pattern);
		route->note_error = !same_error(route->error, subscription->route_error);
		if (route->error == NULL)
			pattern_set_add(patterns, subscription->pattern, count);
		count++;
	}
	MemoryContextSwitchTo(old);

	/* It is complete. */
	route_table_forget(table);
	MemoryContextSetParent(context, TopMemoryContext);
	table->context = context;
	table->fingerprint = print;
	table->count = count;
	table->routes = routes;
	table->patterns = patterns;
}

void
route_table_note_errors(RouteTable *table)
{
	static const char *const update =
		"UPDATE behavior._subscription_join SET error = $2,"
		" failing_since = CASE WHEN $2 IS NOT NULL THEN pg_catalog.clock_timestamp() END"
		" WHERE subscription_id = (SELECT j.subscription_id FROM behavior._subscription_join j"
		" WHERE j.subscription_id = $1 FOR UPDATE SKIP LOCKED)";
	Oid types[] = {INT8OID, TEXTOID};

	for (int i = 0; i < table->count; i++)
	{
		const Route *route = &table->routes[i];
		Datum values[] = {Int64GetDatum(route->id), (Datum) 0};
		SecureContext secure;
		bool noted;

		if (!route->note_error)
			continue;
		if (route->error != NULL)
			values[1] = CStringGetTextDatum(route->error);
		SPI_connect();
		secure_begin(&secure, behavior_owner());
		noted = spi_exec(update, SPI_OK_UPDATE, false, lengthof(types), types, values,
						 route->error != NULL ? "  " : " n") > 0;
		secure_end(&secure);
		SPI_finish();
		if (noted && route->error != NULL)
			ereport(WARNING,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("nothing is routed to subscription \"%s\": %s",
							route->channel + strlen(CHANNEL_PREFIX), route->error),
					 errdetail("Its pattern does not compile; others are not concerned."),
					 errhint("Give it another pattern with behavior.alter_subscription().")));
		/* It is known to be noted by a row that may be rolled back. */
		table->fingerprint = 0;
	}
}

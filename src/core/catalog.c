/*
 * catalog.c
 *		OIDs of the extension's own relations, looked up once per backend.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "commands/extension.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "core/catalog.h"
#include "core/invalidation.h"

static const char *const rel_names[BEHAVIOR_REL_COUNT] = {
	[REL_INSTANCE] = "_instance",
	[REL_LOG] = "log",
	[REL_SENDER] = "_sender",
	[REL_SENDER_KEY] = "_sender_key",
	[REL_SENDER_ID_SEQ] = "_sender_id_seq",
	[REL_BATCH] = "_batch",
	[REL_BATCH_PKEY] = "_batch_pkey",
	[REL_BATCH_ID_SEQ] = "_batch_id_seq",
	[REL_INTAKE] = "_intake",
	[REL_INTAKE_PKEY] = "_intake_pkey",
	[REL_KEY_GENERATION] = "_key_generation",
	[REL_KEY] = "_key",
	[REL_KEY_SWITCH] = "_key_switch",
	[REL_KEY_RUN] = "_key_run",
	[REL_KEY_PAGE] = "_key_page",
	[REL_KEY_FILTER] = "_key_filter",
	[REL_DEAD_LETTER] = "dead_letter",
	[REL_DEAD_LETTER_ID_SEQ] = "dead_letter_dead_letter_id_seq",
	[REL_LOG_WALK] = "_log_walk",
	[REL_TICK] = "tick",
	[REL_TICK_RANGE] = "_tick_range",
	[REL_TICK_RANGE_PKEY] = "_tick_range_pkey",
	[REL_TICK_RANGE_TICK_ID] = "_tick_range_tick_id",
	[REL_TICK_STATE] = "_tick_state",
	[REL_TICK_STATE_PKEY] = "_tick_state_pkey",
	[REL_EVENT] = "event",
	[REL_INBOX] = "inbox",
	[REL_EVENT_TYPE] = "_event_type",
	[REL_PROJECTION] = "_projection",
	[REL_PROJECTION_TICK] = "_projection_tick",
	[REL_PROJECTION_TICK_PKEY] = "_projection_tick_pkey",
	[REL_SET_ASIDE] = "_set_aside",
	[REL_SESSION] = "_session",
	[REL_SESSION_PKEY] = "_session_pkey",
	[REL_SESSION_VISITOR] = "_session_visitor",
	[REL_SESSION_NEXT] = "_session_next",
	[REL_SESSION_NEXT_VISITOR] = "_session_next_visitor",
	[REL_SESSION_ALIAS] = "session_alias",
	[REL_SESSION_ALIAS_PKEY] = "session_alias_pkey",
	[REL_SESSION_ALIAS_MERGED_INTO] = "session_alias_merged_into",
	[REL_ROLLUP] = "_rollup",
	[REL_REFRESH] = "_refresh",
	[REL_SUBSCRIPTION] = "_subscription",
	[REL_SUBSCRIPTION_PKEY] = "_subscription_pkey",
	[REL_SUBSCRIPTION_NAME] = "_subscription_name_key",
	[REL_SUBSCRIPTION_JOIN] = "_subscription_join",
	[REL_SUBSCRIPTION_JOIN_PKEY] = "_subscription_join_pkey",
	[REL_SUBSCRIPTION_PROGRESS] = "_subscription_progress",
	[REL_SUBSCRIPTION_PROGRESS_PKEY] = "_subscription_progress_pkey",
	[REL_ROUTE_PROGRESS] = "_route_progress",
	[REL_ROUTE_PROGRESS_PKEY] = "_route_progress_pkey",
	[REL_DELIVERY_CHUNK] = "_delivery_chunk",
	[REL_DELIVERY_CHUNK_PKEY] = "_delivery_chunk_pkey",
	[REL_DELIVERY_ID_SEQ] = "_delivery_id_seq",
	[REL_DELIVERY] = "_delivery",
	[REL_DELIVERY_PKEY] = "_delivery_pkey",
	[REL_DELIVERY_DUE] = "_delivery_due",
	[REL_DELIVERY_ORDER] = "_delivery_order",
	[REL_DELIVERY_ACTOR] = "_delivery_actor",
};

static Oid schema_oid = InvalidOid;
static Oid rel_oids[BEHAVIOR_REL_COUNT];
static bool callbacks_registered = false;

static void
forget_all(void)
{
	schema_oid = InvalidOid;
	memset(rel_oids, 0, sizeof(rel_oids));
}

/* A relation changed: forget everything if it was one of ours (InvalidOid means all changed). */
static void
on_relcache_inval(Datum arg, Oid relid)
{
	if (!OidIsValid(relid))
	{
		forget_all();
		return;
	}
	for (int i = 0; i < BEHAVIOR_REL_COUNT; i++)
	{
		if (rel_oids[i] == relid)
		{
			forget_all();
			return;
		}
	}
}

static void
on_namespace_inval(Datum arg, int cacheid, uint32 hashvalue)
{
	forget_all();
}

Oid
behavior_schema_oid(void)
{
	if (!OidIsValid(schema_oid))
	{
		if (!callbacks_registered)
		{
			invalidation_call(on_relcache_inval);
			CacheRegisterSyscacheCallback(NAMESPACEOID, on_namespace_inval, (Datum) 0);
			callbacks_registered = true;
		}
		schema_oid = get_namespace_oid("behavior", true);
	}
	return schema_oid;
}

Oid
behavior_relid(BehaviorRel rel)
{
	Oid relid = rel_oids[rel];
	Oid schema;

	if (OidIsValid(relid))
		return relid;

	schema = behavior_schema_oid();
	if (OidIsValid(schema))
		relid = get_relname_relid(rel_names[rel], schema);
	if (!OidIsValid(relid))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("relation \"behavior.%s\" does not exist", rel_names[rel]),
						errhint("Run CREATE EXTENSION behavior in this database.")));
	rel_oids[rel] = relid;
	return relid;
}

Oid
behavior_extension_oid(void)
{
	return get_extension_oid("behavior", true);
}

/* The schema's owner: the extension's, since the install script makes it. */
Oid
behavior_owner(void)
{
	Oid schema = behavior_schema_oid();
	HeapTuple tuple = NULL;
	Oid owner;

	if (OidIsValid(schema))
		tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(schema));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("schema \"behavior\" does not exist"),
				 errhint("Run CREATE EXTENSION behavior in this database.")));
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);
	return owner;
}

Oid
relation_owner(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid owner = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
		ReleaseSysCache(tuple);
	}
	return owner;
}

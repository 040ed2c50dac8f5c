/*
 * catalog.h
 *		OIDs of the extension's own relations, looked up once per backend.
 *
 * Looked up by name in schema behavior, kept until any relation or schema
 * changes its identity (relcache reset), so that they stay right over DROP and
 * CREATE EXTENSION.
 */
#ifndef BEHAVIOR_CATALOG_H
#define BEHAVIOR_CATALOG_H

/*
 * Event types and subscriptions have no object in PostgreSQL's catalogs that could belong to a
 * role, so they keep their owner's name: a row can be restored where there is no such role.
 */
#define MISSING_OWNER_HINT                                                                         \
	"Create the role, or give what it owned to another one with behavior.reassign_owned()."

typedef enum BehaviorRel
{
	REL_INSTANCE,
	REL_LOG,
	REL_SENDER,
	REL_SENDER_KEY, /* index */
	REL_SENDER_ID_SEQ,
	REL_BATCH,
	REL_BATCH_PKEY, /* index */
	REL_BATCH_ID_SEQ,
	REL_INTAKE,
	REL_INTAKE_PKEY,
	REL_KEY_GENERATION,
	REL_KEY,
	REL_KEY_SWITCH, /* composite type */
	REL_KEY_RUN,
	REL_KEY_PAGE,
	REL_KEY_FILTER,
	REL_DEAD_LETTER,
	REL_DEAD_LETTER_ID_SEQ,
	REL_LOG_WALK,
	REL_TICK,
	REL_TICK_RANGE,
	REL_TICK_RANGE_PKEY,	/* index */
	REL_TICK_RANGE_TICK_ID, /* index */
	REL_TICK_STATE,
	REL_TICK_STATE_PKEY, /* index */
	REL_EVENT,
	REL_INBOX,
	REL_EVENT_TYPE,
	REL_PROJECTION,
	REL_PROJECTION_TICK,
	REL_PROJECTION_TICK_PKEY,
	REL_SET_ASIDE,
	REL_SESSION,
	REL_SESSION_PKEY,	 /* index */
	REL_SESSION_VISITOR, /* index */
	REL_SESSION_NEXT,
	REL_SESSION_NEXT_VISITOR, /* index */
	REL_SESSION_ALIAS,
	REL_SESSION_ALIAS_PKEY,		   /* index */
	REL_SESSION_ALIAS_MERGED_INTO, /* index */
	REL_ROLLUP,
	REL_REFRESH,
	REL_SUBSCRIPTION,
	REL_SUBSCRIPTION_PKEY, /* index */
	REL_SUBSCRIPTION_NAME, /* index */
	REL_SUBSCRIPTION_JOIN,
	REL_SUBSCRIPTION_JOIN_PKEY, /* index */
	REL_SUBSCRIPTION_PROGRESS,
	REL_SUBSCRIPTION_PROGRESS_PKEY, /* index */
	REL_ROUTE_PROGRESS,
	REL_ROUTE_PROGRESS_PKEY, /* index */
	REL_DELIVERY_CHUNK,
	REL_DELIVERY_CHUNK_PKEY, /* index */
	REL_DELIVERY_ID_SEQ,
	REL_DELIVERY,
	REL_DELIVERY_PKEY,	/* index */
	REL_DELIVERY_DUE,	/* index */
	REL_DELIVERY_ORDER, /* index */
	REL_DELIVERY_ACTOR, /* index */
	BEHAVIOR_REL_COUNT
} BehaviorRel;

/* OID of one of our relations; raises 42704 with a hint when the extension is not there. */
extern Oid behavior_relid(BehaviorRel rel);

/* OID of schema behavior, InvalidOid when the extension is not in this database. */
extern Oid behavior_schema_oid(void);

/* OID of the extension, InvalidOid when it is not in this database.  Not cached. */
extern Oid behavior_extension_oid(void);

/* The role that owns the extension: what our own SQL runs as. */
extern Oid behavior_owner(void);

/* Who owns a relation, InvalidOid when there is no such relation. */
extern Oid relation_owner(Oid relid);

#endif

/*
 * event_type_catalog.c
 *		create_event_type(), alter_event_type(), drop_event_type().
 *
 * Rows are only added and retired.  Whoever changes types holds SHARE ROW EXCLUSIVE on the table
 * until his transaction ends, which keeps others from changing types and nobody from sending, and
 * reads it with the latest snapshot, as DDL reads the catalogs: in every isolation level he sees
 * what was committed before he got the lock.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/table_row.h"
#include "gate/event_type.h"
#include "gate/json_schema.h"

#define MAX_NAME 255 /* bytes, as of the columns of an event */

PG_FUNCTION_INFO_V1(behavior_create_event_type);
PG_FUNCTION_INFO_V1(behavior_alter_event_type);
PG_FUNCTION_INFO_V1(behavior_drop_event_type);
PG_FUNCTION_INFO_V1(behavior__event_type_changed);

/* What there is of one (source, type). */
typedef struct Versions
{
	Relation rel;
	int last;		   /* 0: there never was one */
	HeapTuple current; /* NULL: none is in force */
} Versions;

/* The argument as a name that an event can have. */
static text *
name_argument(FunctionCallInfo fcinfo, int argument, const char *what)
{
	text *name;
	int length;

	if (PG_ARGISNULL(argument))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s is NULL", what)));
	name = PG_GETARG_TEXT_PP(argument);
	length = VARSIZE_ANY_EXHDR(name);
	if (length == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s is empty", what)));
	if (length > MAX_NAME)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s has %d bytes", what, length),
				 errdetail("No event has one of more than %d bytes.", MAX_NAME)));
	return name;
}

/* The schema, which must be one; NULL for none. */
static Jsonb *
schema_argument(FunctionCallInfo fcinfo, int argument)
{
	MemoryContext context;
	MemoryContext old;
	Jsonb *schema;

	if (PG_ARGISNULL(argument))
		return NULL;
	schema = PG_GETARG_JSONB_P(argument);
	context =
		AllocSetContextCreate(CurrentMemoryContext, "behavior schema check", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	(void) json_schema_compile(schema);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return schema;
}

static bool
same_text(Datum datum, const text *wanted)
{
	text *value = DatumGetTextPP(datum);

	return VARSIZE_ANY_EXHDR(value) == VARSIZE_ANY_EXHDR(wanted) &&
		   memcmp(VARDATA_ANY(value), VARDATA_ANY(wanted), VARSIZE_ANY_EXHDR(wanted)) == 0;
}

/* Locks the table and reads what it has of a type. */
static void
open_versions(Versions *versions, const text *source, const text *type)
{
	Snapshot snapshot;
	SysScanDesc scan;
	HeapTuple tuple;

	versions->rel = table_open(behavior_relid(REL_EVENT_TYPE), ShareRowExclusiveLock);
	versions->last = 0;
	versions->current = NULL;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = systable_beginscan(versions->rel, InvalidOid, false, snapshot, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc desc = RelationGetDescr(versions->rel);
		bool isnull;

		if (!same_text(heap_getattr(tuple, EVENT_TYPE_TYPE, desc, &isnull), type) ||
			!same_text(heap_getattr(tuple, EVENT_TYPE_SOURCE, desc, &isnull), source))
			continue;
		versions->last = Max(versions->last,
							 DatumGetInt32(heap_getattr(tuple, EVENT_TYPE_VERSION, desc, &isnull)));
		if (heap_attisnull(tuple, EVENT_TYPE_RETIRED_AT, desc))
			versions->current = heap_copytuple(tuple);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
}

/* Lets every session, this one included, read the types anew. */
static void
close_versions(Versions *versions)
{
	CacheInvalidateRelcache(versions->rel);
	table_close(versions->rel, NoLock);
	CommandCounterIncrement();
}

static void
insert_version(Versions *versions, text *source, text *type, Jsonb *schema, text *owner)
{
	Datum values[EVENT_TYPE_NATTS];
	bool isnull[EVENT_TYPE_NATTS] = {false};
	HeapTuple tuple;

	values[EVENT_TYPE_SOURCE - 1] = PointerGetDatum(source);
	values[EVENT_TYPE_TYPE - 1] = PointerGetDatum(type);
	values[EVENT_TYPE_VERSION - 1] = Int32GetDatum(versions->last + 1);
	values[EVENT_TYPE_SCHEMA - 1] = PointerGetDatum(schema);
	isnull[EVENT_TYPE_SCHEMA - 1] = schema == NULL;
	values[EVENT_TYPE_OWNER - 1] = PointerGetDatum(owner);
	values[EVENT_TYPE_CREATED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[EVENT_TYPE_RETIRED_AT - 1] = (Datum) 0;
	isnull[EVENT_TYPE_RETIRED_AT - 1] = true;
	tuple = heap_form_tuple(RelationGetDescr(versions->rel), values, isnull);
	table_row_insert(versions->rel, tuple, NULL);
}

static void
retire_current(Versions *versions)
{
	CatalogIndexState indexes = CatalogOpenIndexes(versions->rel);
	Datum values[EVENT_TYPE_NATTS] = {0};
	bool isnull[EVENT_TYPE_NATTS] = {false};
	bool replace[EVENT_TYPE_NATTS] = {false};
	HeapTuple tuple;

	values[EVENT_TYPE_RETIRED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	replace[EVENT_TYPE_RETIRED_AT - 1] = true;
	tuple = heap_modify_tuple(versions->current, RelationGetDescr(versions->rel), values, isnull,
							  replace);
	table_row_update(versions->rel, &versions->current->t_self, tuple, indexes);
	CatalogCloseIndexes(indexes);
	/* The row that follows is another one, but whatever indexes there are must see this one. */
	CommandCounterIncrement();
}

/* What to call a type in a message. */
static char *
type_label(const text *source, const text *type)
{
	char *name = text_to_cstring(type);
	char *of = text_to_cstring(source);

	if (strcmp(of, EVENT_TYPE_ANY_SOURCE) == 0)
		return psprintf("event type \"%s\"", name);
	return psprintf("event type \"%s\" of source \"%s\"", name, of);
}

/*
 * Raises unless the type is declared and the caller may act for its owner, which is returned.
 * Where there is no role of that name the extension's owner still may, and nobody else.
 */
static text *
check_owner(const Versions *versions, const text *source, const text *type)
{
	bool isnull;
	text *owner;
	char *name;
	Oid role;

	if (versions->current == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("%s does not exist", type_label(source, type)),
						errhint("behavior.event_type lists them.")));
	owner = DatumGetTextPP(heap_getattr(versions->current, EVENT_TYPE_OWNER,
										RelationGetDescr(versions->rel), &isnull));
	name = text_to_cstring(owner);
	role = get_role_oid(name, true);
	if ((!OidIsValid(role) || !has_privs_of_role(GetUserId(), role)) &&
		!has_privs_of_role(GetUserId(), behavior_owner()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of %s", type_label(source, type)),
				 OidIsValid(role) ? 0 : errdetail("Its owner, role \"%s\", does not exist.", name),
				 OidIsValid(role) ? 0 : errhint(MISSING_OWNER_HINT)));
	return owner;
}

static bool
same_schema(const Versions *versions, Jsonb *schema)
{
	bool isnull;
	Datum current = heap_getattr(versions->current, EVENT_TYPE_SCHEMA,
								 RelationGetDescr(versions->rel), &isnull);

	if (isnull || schema == NULL)
		return isnull && schema == NULL;
	return compareJsonbContainers(&DatumGetJsonbP(current)->root, &schema->root) == 0;
}

/*
 * create_event_type(type text, schema jsonb, source text, if_not_exists boolean)
 */
Datum
behavior_create_event_type(PG_FUNCTION_ARGS)
{
	text *type = name_argument(fcinfo, 0, "type");
	Jsonb *schema = schema_argument(fcinfo, 1);
	text *source = name_argument(fcinfo, 2, "source");
	bool if_not_exists = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);
	Versions versions;

	PreventCommandIfReadOnly("behavior.create_event_type()");
	open_versions(&versions, source, type);
	if (versions.current != NULL)
	{
		ereport(if_not_exists ? NOTICE : ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 if_not_exists ? errmsg("%s already exists, skipping", type_label(source, type))
							   : errmsg("%s already exists", type_label(source, type)),
				 if_not_exists ? 0 : errhint("behavior.alter_event_type() changes its schema.")));
		table_close(versions.rel, NoLock);
		PG_RETURN_VOID();
	}
	insert_version(&versions, source, type, schema,
				   cstring_to_text(GetUserNameFromId(GetUserId(), false)));
	close_versions(&versions);
	PG_RETURN_VOID();
}

/*
 * alter_event_type(type text, schema jsonb, source text)
 */
Datum
behavior_alter_event_type(PG_FUNCTION_ARGS)
{
	text *type = name_argument(fcinfo, 0, "type");
	Jsonb *schema = schema_argument(fcinfo, 1);
	text *source = name_argument(fcinfo, 2, "source");
	Versions versions;
	text *owner;

	PreventCommandIfReadOnly("behavior.alter_event_type()");
	open_versions(&versions, source, type);
	owner = check_owner(&versions, source, type);
	if (same_schema(&versions, schema))
	{
		table_close(versions.rel, NoLock);
		PG_RETURN_VOID();
	}
	retire_current(&versions);
	insert_version(&versions, source, type, schema, owner);
	close_versions(&versions);
	PG_RETURN_VOID();
}

/*
 * drop_event_type(type text, source text)
 */
Datum
behavior_drop_event_type(PG_FUNCTION_ARGS)
{
	text *type = name_argument(fcinfo, 0, "type");
	text *source = name_argument(fcinfo, 1, "source");
	Versions versions;

	PreventCommandIfReadOnly("behavior.drop_event_type()");
	open_versions(&versions, source, type);
	(void) check_owner(&versions, source, type);
	retire_current(&versions);
	close_versions(&versions);
	PG_RETURN_VOID();
}

/*
 * AFTER STATEMENT trigger of behavior._event_type.
 */
Datum
behavior__event_type_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "not called as a trigger");
	CacheInvalidateRelcache(((TriggerData *) fcinfo->context)->tg_relation);
	return PointerGetDatum(NULL);
}

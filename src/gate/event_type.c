/*
 * event_type.c
 *		The gate: may an event of this type have these properties?
 *
 * All types in force are read at once, since there are tens of them and each event asks for one;
 * their schemas are compiled when the first event asks.  They are read with the latest snapshot.
 * Names are looked up by the type alone, as few types are declared for several sources: an entry of
 * the event's own source comes before that of any.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "port/pg_bitutils.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "core/catalog.h"
#include "core/invalidation.h"
#include "gate/event_type.h"
#include "gate/json_schema.h"

#define MAX_ERROR_TEXT 1000 /* bytes of a path or a message that are kept */

typedef struct DeclaredType
{
	struct DeclaredType *next; /* in the same bucket */
	uint32 hash;			   /* of the type */
	const char *type;
	int type_length;
	const char *source;
	int source_length;
	bool any_source;
	int version;
	Jsonb *schema; /* NULL: any properties */
	JsonSchema *compiled;
} DeclaredType;

/* What this backend knows of behavior._event_type. */
typedef struct DeclaredTypes
{
	MemoryContext context;
	DeclaredType **buckets; /* NULL: there are no types */
	uint32 mask;
} DeclaredTypes;

bool event_types_declared = false;

static DeclaredTypes types;
static bool types_valid = false;
static bool types_changed = false; /* while they were being read */
static Oid types_relid = InvalidOid;
static MemoryContext check_context = NULL;

/* The table changed (InvalidOid: everything did). */
static void
on_relcache_inval(Datum arg, Oid relid)
{
	if (!OidIsValid(relid) || relid == types_relid)
	{
		types_valid = false;
		types_changed = true;
	}
}

/* A copy of a row's declaration in the current context; NULL when it is not in force. */
static DeclaredType *
declared_type(HeapTuple tuple, TupleDesc desc)
{
	Datum values[EVENT_TYPE_NATTS];
	bool isnull[EVENT_TYPE_NATTS];
	DeclaredType *type;

	heap_deform_tuple(tuple, desc, values, isnull);
	if (!isnull[EVENT_TYPE_RETIRED_AT - 1])
		return NULL;
	type = palloc0(sizeof(DeclaredType));
	type->type = TextDatumGetCString(values[EVENT_TYPE_TYPE - 1]);
	type->type_length = strlen(type->type);
	type->hash = hash_bytes((const unsigned char *) type->type, type->type_length);
	type->source = TextDatumGetCString(values[EVENT_TYPE_SOURCE - 1]);
	type->source_length = strlen(type->source);
	type->any_source = strcmp(type->source, EVENT_TYPE_ANY_SOURCE) == 0;
	type->version = DatumGetInt32(values[EVENT_TYPE_VERSION - 1]);
	if (!isnull[EVENT_TYPE_SCHEMA - 1])
		type->schema = DatumGetJsonbPCopy(values[EVENT_TYPE_SCHEMA - 1]);
	return type;
}

/* The types in force, as a list of DeclaredType in the given context. */
static List *
read_types(MemoryContext context)
{
	Relation rel = table_open(types_relid, AccessShareLock);
	List *list = NIL;
	Snapshot snapshot;
	SysScanDesc scan;
	HeapTuple tuple;
	MemoryContext old;

	/* Whatever changed before the table was opened is there to be read. */
	types_changed = false;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	old = MemoryContextSwitchTo(context);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		DeclaredType *type = declared_type(tuple, RelationGetDescr(rel));

		if (type != NULL)
			list = lappend(list, type);
	}
	MemoryContextSwitchTo(old);
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return list;
}

static void
load_types(void)
{
	static bool callback_registered = false;
	DeclaredTypes fresh = {0};
	ListCell *cell;
	List *list;

	if (!callback_registered)
	{
		invalidation_call(on_relcache_inval);
		callback_registered = true;
	}
	types_relid = behavior_relid(REL_EVENT_TYPE);

	/* Under the caller's until nothing can fail any more. */
	fresh.context =
		AllocSetContextCreate(CurrentMemoryContext, "behavior event types", ALLOCSET_SMALL_SIZES);
	list = read_types(fresh.context);
	if (list != NIL)
	{
		fresh.mask = pg_nextpower2_32(Max(8, 2 * list_length(list))) - 1;
		fresh.buckets =
			MemoryContextAllocZero(fresh.context, (fresh.mask + 1) * sizeof(DeclaredType *));
	}
	foreach (cell, list)
	{
		DeclaredType *type = lfirst(cell);
		DeclaredType **bucket = &fresh.buckets[type->hash & fresh.mask];

		type->next = *bucket;
		*bucket = type;
	}
	MemoryContextSetParent(fresh.context, TopMemoryContext);

	if (types.context != NULL)
		MemoryContextDelete(types.context);
	types = fresh;
	types_valid = !types_changed;
	event_types_declared = list != NIL;
}

void
event_type_refresh(void)
{
	/* A transaction's later statements may take no lock that would do it. */
	AcceptInvalidationMessages();
	if (!types_valid)
		load_types();
}

/* The declaration that counts for an event. */
static DeclaredType *
find_type(const char *source, int source_length, const char *name, int length)
{
	uint32 hash;
	DeclaredType *found = NULL;

	if (types.buckets == NULL)
		return NULL;
	hash = hash_bytes((const unsigned char *) name, length);
	for (DeclaredType *type = types.buckets[hash & types.mask]; type != NULL; type = type->next)
	{
		if (type->hash != hash || type->type_length != length ||
			memcmp(type->type, name, length) != 0)
			continue;
		if (type->source_length == source_length &&
			memcmp(type->source, source, source_length) == 0)
			return type;
		if (type->any_source)
			found = type;
	}
	return found;
}

static void
compile_error_context(void *arg)
{
	const DeclaredType *type = arg;

	errcontext("schema of event type \"%s\" of source \"%s\", version %d", type->type, type->source,
			   type->version);
}

/*
 * Compiles the schema.  It was checked when it was declared; that it raises here means that it was
 * restored from a server that knew more.
 */
static void
compile_type(DeclaredType *type)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "behavior event schema", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	ErrorContextCallback callback;

	callback.callback = compile_error_context;
	callback.arg = type;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	type->compiled = json_schema_compile(type->schema);
	error_context_stack = callback.previous;

	MemoryContextSwitchTo(old);
	MemoryContextSetParent(context, types.context);
}

/* Formats a message so that it ends with a whole character. */
static void
set_message(EventTypeVerdict *verdict, const char *message)
{
	int length = pg_mbcliplen(message, strlen(message), sizeof(verdict->message) - 1);

	memcpy(verdict->message, message, length);
	verdict->message[length] = '\0';
}

static void
push_text(JsonbParseState **state, JsonbIteratorToken token, const char *text)
{
	JsonbValue value;

	value.type = jbvString;
	value.val.string.len = pg_mbcliplen(text, strlen(text), MAX_ERROR_TEXT);
	value.val.string.val = unconstify(char *, text);
	(void) pushJsonbValue(state, token, &value);
}

/* What stands in dead_letter.errors. */
static Jsonb *
errors_as_jsonb(const DeclaredType *type, List *errors)
{
	JsonbParseState *state = NULL;
	JsonbValue version;
	ListCell *cell;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_text(&state, WJB_KEY, "type");
	push_text(&state, WJB_VALUE, type->type);
	push_text(&state, WJB_KEY, "source");
	push_text(&state, WJB_VALUE, type->source);
	push_text(&state, WJB_KEY, "version");
	version.type = jbvNumeric;
	version.val.numeric = int64_to_numeric(type->version);
	(void) pushJsonbValue(&state, WJB_VALUE, &version);
	push_text(&state, WJB_KEY, "errors");
	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	foreach (cell, errors)
	{
		const JsonSchemaError *error = lfirst(cell);

		(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		push_text(&state, WJB_KEY, "instance_path");
		push_text(&state, WJB_VALUE, error->instance_path);
		push_text(&state, WJB_KEY, "schema_path");
		push_text(&state, WJB_VALUE, error->schema_path);
		push_text(&state, WJB_KEY, "message");
		push_text(&state, WJB_VALUE, error->message);
		(void) pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	}
	(void) pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* Checks once more, for the list of what is wrong. */
static void
explain_violation(const DeclaredType *type, const JsonbContainer *properties,
				  EventTypeVerdict *verdict)
{
	List *errors = NIL;
	const JsonSchemaError *first = NULL;

	(void) json_schema_check(type->compiled, properties, &errors, EVENT_TYPE_MAX_ERRORS);
	if (errors != NIL)
		first = linitial(errors);
	verdict->reason = REASON_SCHEMA_VIOLATION;
	verdict->errors = errors_as_jsonb(type, errors);
	set_message(verdict, psprintf("properties%s %s (version %d of the schema)",
								  first != NULL ? first->instance_path : "",
								  first != NULL ? first->message : "do not match", type->version));
}

bool
event_type_accepts(const char *source, int source_length, const char *type, int type_length,
				   Jsonb *properties, EventTypeVerdict *verdict)
{
	static uint32 empty_object = JB_FOBJECT;
	const JsonbContainer *root;
	DeclaredType *declared;
	MemoryContext old;
	bool valid;

	if (!types_valid)
		load_types();
	declared = find_type(source, source_length, type, type_length);
	if (declared == NULL)
	{
		if (behavior_unknown_type == UNKNOWN_TYPE_ACCEPT)
			return true;
		verdict->reason = REASON_UNKNOWN_TYPE;
		verdict->errors = NULL;
		set_message(verdict,
					psprintf("type \"%s\" is not declared for source \"%s\"",
							 pnstrdup(type, type_length), pnstrdup(source, source_length)));
		return false;
	}
	if (declared->schema == NULL)
		return true;

	if (check_context == NULL)
		check_context =
			AllocSetContextCreate(TopMemoryContext, "behavior event check", ALLOCSET_SMALL_SIZES);
	if (declared->compiled == NULL)
		compile_type(declared);
	root = properties != NULL ? &properties->root : (const JsonbContainer *) &empty_object;
	old = MemoryContextSwitchTo(check_context);
	valid = json_schema_check(declared->compiled, root, NULL, 0);
	MemoryContextSwitchTo(old);
	MemoryContextReset(check_context);
	if (!valid)
		explain_violation(declared, root, verdict);
	return valid;
}

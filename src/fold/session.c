/*
 * session.c
 *		Sessions as a projection: settings, ids, and the fold of a tick.
 *
 * The settings that decide what a session is are taken when sessions are first built or
 * rebuilt, and stored with the projection.  A fold goes by what is stored.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/sha1.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/guc.h"
#include "core/hash.h"
#include "core/instance.h"
#include "core/spi.h"
#include "fold/projection.h"
#include "fold/session.h"

/* 43c32fd6-ceca-5633-ac49-1daf30b4cb49: the UUIDv5 of "behavior.session" in the namespace of URLs.
 */
static const uint8 session_namespace[UUID_LEN] = {0x43, 0xc3, 0x2f, 0xd6, 0xce, 0xca, 0x56, 0x33,
												  0xac, 0x49, 0x1d, 0xaf, 0x30, 0xb4, 0xcb, 0x49};

PG_FUNCTION_INFO_V1(behavior_session_settings);
PG_FUNCTION_INFO_V1(behavior_session_id);
PG_FUNCTION_INFO_V1(behavior_visitor_hash);

static void
push_key(JsonbParseState **state, const char *name)
{
	JsonbValue key;

	key.type = jbvString;
	key.val.string.val = unconstify(char *, name);
	key.val.string.len = strlen(name);
	pushJsonbValue(state, WJB_KEY, &key);
}

/* A list setting as a member that is an array of strings. */
static void
push_list(JsonbParseState **state, const char *name, const char *setting)
{
	List *names = NIL;
	ListCell *lc;

	push_key(state, name);
	pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	/* Its check hook has accepted the setting. */
	(void) SplitGUCList(pstrdup(setting), ',', &names);
	foreach (lc, names)
	{
		JsonbValue value;

		value.type = jbvString;
		value.val.string.val = lfirst(lc);
		value.val.string.len = strlen(lfirst(lc));
		pushJsonbValue(state, WJB_ELEM, &value);
	}
	pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

/* The settings that sessions would be built with now. */
Jsonb *
session_current_settings(void)
{
	JsonbParseState *state = NULL;
	JsonbValue value;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_key(&state, "timeout");
	value.type = jbvNumeric;
	value.val.numeric = int64_to_numeric(behavior_session_timeout);
	pushJsonbValue(&state, WJB_VALUE, &value);
	push_list(&state, "page", behavior_page_property);
	push_list(&state, "properties", behavior_session_properties);
	push_list(&state, "ignore", behavior_session_ignore);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static List *
list_member_strings(Jsonb *settings, const char *name)
{
	JsonbValue buffer;
	JsonbValue *array = getKeyJsonValueFromContainer(&settings->root, name, strlen(name), &buffer);
	List *list = NIL;

	if (array == NULL || array->type != jbvBinary || !JsonContainerIsArray(array->val.binary.data))
		return NIL;
	for (uint32 i = 0; i < JsonContainerSize(array->val.binary.data); i++)
	{
		JsonbValue *element = getIthJsonbValueFromContainer(array->val.binary.data, i);

		if (element->type == jbvString)
		{
			Bytes *string = palloc(sizeof(Bytes));

			string->data = pnstrdup(element->val.string.val, element->val.string.len);
			string->length = element->val.string.len;
			list = lappend(list, string);
		}
	}
	return list;
}

/* Stored settings, in the current context. */
SessionSettings *
session_settings(Jsonb *stored)
{
	SessionSettings *settings = palloc0(sizeof(SessionSettings));
	JsonbValue buffer;
	JsonbValue *value;

	value = getKeyJsonValueFromContainer(&stored->root, "timeout", strlen("timeout"), &buffer);
	if (value == NULL || value->type != jbvNumeric)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the stored settings of projection \"%s\" have no timeout", SESSIONS)));
	settings->timeout =
		DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(value->val.numeric))) *
		USECS_PER_SEC;
	settings->pages = list_member_strings(stored, "page");
	settings->properties = list_member_strings(stored, "properties");
	settings->ignore = list_member_strings(stored, "ignore");
	return settings;
}

static void
hash_bytes_prefixed(SipState *state, Bytes bytes)
{
	uint32 length = bytes.length;
	uint8 prefix[4] = {length, length >> 8, length >> 16, length >> 24};

	sip_update(state, prefix, sizeof(prefix));
	sip_update(state, bytes.data, bytes.length);
}

/* What the sessions of a visitor are found by: keyed, so that nobody can choose visitors that
 * collide. */
int64
session_visitor_hash(Bytes source, Bytes visitor)
{
	SipState state;

	sip_init(&state, instance_seed(), false);
	hash_bytes_prefixed(&state, source);
	hash_bytes_prefixed(&state, visitor);
	return (int64) sip_final64(&state);
}

/* What ids are made with; of the current resource owner, and to be freed before it ends. */
struct SessionIdMaker
{
	pg_cryptohash_ctx *sha1;
	int used;
	char buffer[512]; /* what has not been passed on yet: a call costs more than the bytes */
};

SessionIdMaker *
session_id_begin(void)
{
	SessionIdMaker *maker = palloc(sizeof(SessionIdMaker));

	maker->used = 0;
	maker->sha1 = pg_cryptohash_create(PG_SHA1);
	if (maker->sha1 == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	return maker;
}

void
session_id_end(SessionIdMaker *maker)
{
	pg_cryptohash_free(maker->sha1);
	pfree(maker);
}

static void
sha1_update(SessionIdMaker *maker, const void *data, size_t length)
{
	if (pg_cryptohash_update(maker->sha1, data, length) < 0)
		elog(ERROR, "could not compute SHA-1: %s", pg_cryptohash_error(maker->sha1));
}

static void
sha1_append(SessionIdMaker *maker, const void *data, size_t length)
{
	if (length > sizeof(maker->buffer) - maker->used)
	{
		sha1_update(maker, maker->buffer, maker->used);
		maker->used = 0;
	}
	if (length > sizeof(maker->buffer))
	{
		sha1_update(maker, data, length);
		return;
	}
	memcpy(maker->buffer + maker->used, data, length);
	maker->used += length;
}

/* A netstring: length, colon, bytes, comma. */
static void
sha1_append_netstring(SessionIdMaker *maker, Bytes bytes)
{
	char prefix[16];
	int length = pg_ltoa(bytes.length, prefix);

	prefix[length++] = ':';
	sha1_append(maker, prefix, length);
	sha1_append(maker, bytes.data, bytes.length);
	sha1_append(maker, ",", 1);
}

/*
 * The id of the session that begins with an event: UUIDv5 (RFC 4122, 4.3) of the netstrings of
 * source, visitor and event id.
 */
void
session_id(SessionIdMaker *maker, Bytes source, Bytes visitor, Bytes event_id, pg_uuid_t *id)
{
	uint8 digest[SHA1_DIGEST_LENGTH];

	if (pg_cryptohash_init(maker->sha1) < 0)
		elog(ERROR, "could not start SHA-1: %s", pg_cryptohash_error(maker->sha1));
	maker->used = 0;
	sha1_append(maker, session_namespace, sizeof(session_namespace));
	sha1_append_netstring(maker, source);
	sha1_append_netstring(maker, visitor);
	sha1_append_netstring(maker, event_id);
	sha1_update(maker, maker->buffer, maker->used);
	if (pg_cryptohash_final(maker->sha1, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not compute SHA-1: %s", pg_cryptohash_error(maker->sha1));

	memcpy(id->data, digest, UUID_LEN);
	id->data[6] = (id->data[6] & 0x0f) | 0x50; /* version 5 */
	id->data[8] = (id->data[8] & 0x3f) | 0x80; /* variant of RFC 4122 */
}

static void
add_events(SessionFolder *folder, const TickEvents *events)
{
	TupleTableSlot *slots[CHUNK_EVENTS_AT_ONCE];
	int n;

	for (int i = 0; i < CHUNK_EVENTS_AT_ONCE; i++)
		slots[i] = MakeSingleTupleTableSlot(events->desc, &TTSOpsMinimalTuple);
	tuplestore_rescan(events->store);
	do
	{
		CHECK_FOR_INTERRUPTS();
		n = 0;
		while (n < CHUNK_EVENTS_AT_ONCE &&
			   tuplestore_gettupleslot(events->store, true, false, slots[n]))
			n++;
		session_folder_add_kept(folder, slots, n);
	} while (n == CHUNK_EVENTS_AT_ONCE);
	for (int i = 0; i < CHUNK_EVENTS_AT_ONCE; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
}

/* Folds events into behavior._session, or into behavior._session_next. */
void
session_fold_into(const SessionSettings *settings, bool next, const TickEvents *events)
{
	SessionFolder *folder = session_folder_begin(settings, next);

	add_events(folder, events);
	session_folder_end(folder);
}

/* The settings that are stored with the projection, in the current context. */
static SessionSettings *
stored_settings(const char *name)
{
	MemoryContext context = CurrentMemoryContext;
	Oid types[1] = {TEXTOID};
	Datum values[1] = {CStringGetTextDatum(name)};
	SecureContext secure;
	SessionSettings *settings = NULL;

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	if (spi_exec("SELECT settings FROM behavior._projection WHERE name = $1", SPI_OK_SELECT, false,
				 1, types, values, NULL) == 1)
	{
		bool isnull;
		Datum stored = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
		MemoryContext spi_context = MemoryContextSwitchTo(context);

		settings = session_settings(DatumGetJsonbPCopy(stored));
		MemoryContextSwitchTo(spi_context);
	}
	secure_end(&secure);
	SPI_finish();
	if (settings == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("projection \"%s\" does not exist", name)));
	return settings;
}

/* A fold that may take several calls.  It goes with the (sub)transaction when that aborts. */
struct SessionFold
{
	MemoryContext context;
	SessionFolder *folder;
};

void
session_fold(const char *name, const TickEvents *events, SessionFold **unfinished)
{
	SessionFold *fold = *unfinished;
	MemoryContext old = CurrentMemoryContext;

	if (fold == NULL)
	{
		MemoryContext context = AllocSetContextCreate(
			CurTransactionContext, "behavior session fold", ALLOCSET_DEFAULT_SIZES);

		MemoryContextSwitchTo(context);
		fold = palloc(sizeof(SessionFold));
		fold->context = context;
		fold->folder = session_folder_begin(stored_settings(name), false);
	}
	MemoryContextSwitchTo(fold->context);
	add_events(fold->folder, events);
	*unfinished = fold;
	if (!events->more)
	{
		session_folder_end(fold->folder);
		*unfinished = NULL;
	}
	MemoryContextSwitchTo(old);
	if (*unfinished == NULL)
		MemoryContextDelete(fold->context);
}

/* The row of projection "sessions", at the beginning of the log, with the settings of now. */
void
session_prepare(void)
{
	Oid types[2] = {TEXTOID, JSONBOID};
	Datum values[2] = {CStringGetTextDatum(SESSIONS), (Datum) 0};
	SecureContext secure;

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	if (spi_exec("SELECT FROM behavior._projection WHERE name = $1", SPI_OK_SELECT, false, 1, types,
				 values, NULL) == 0)
	{
		values[1] = JsonbPGetDatum(session_current_settings());
		if (spi_exec("INSERT INTO behavior._projection (name, kind, state, settings) "
					 "VALUES ($1, 'session', 'current', $2) ON CONFLICT (name) DO NOTHING",
					 SPI_OK_INSERT, false, 2, types, values, NULL) > 0)
			projection_advance(SESSIONS, 0);
	}
	secure_end(&secure);
	SPI_finish();
}

static Bytes
bytes_argument(text *value)
{
	Bytes bytes = {VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)};

	return bytes;
}

/* behavior._session_settings() returns jsonb */
Datum
behavior_session_settings(PG_FUNCTION_ARGS)
{
	PG_RETURN_JSONB_P(session_current_settings());
}

/* behavior.session_id(source text, visitor text, event_id text) returns uuid */
Datum
behavior_session_id(PG_FUNCTION_ARGS)
{
	pg_uuid_t *id = palloc(sizeof(pg_uuid_t));
	SessionIdMaker *maker = session_id_begin();

	session_id(maker, bytes_argument(PG_GETARG_TEXT_PP(0)), bytes_argument(PG_GETARG_TEXT_PP(1)),
			   bytes_argument(PG_GETARG_TEXT_PP(2)), id);
	session_id_end(maker);
	PG_RETURN_UUID_P(id);
}

/* behavior._visitor_hash(source text, visitor text) returns bigint */
Datum
behavior_visitor_hash(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(session_visitor_hash(bytes_argument(PG_GETARG_TEXT_PP(0)),
										 bytes_argument(PG_GETARG_TEXT_PP(1))));
}

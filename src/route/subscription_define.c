/*
 * subscription_define.c
 *		create_subscription(), alter_subscription(), drop_subscription(), pause and resume.
 *
 * A subscription belongs to who creates it, and its handler runs as him.  All but creating is for
 * the owner, and takes the subscription's lock: it waits for the step of delivery that is under
 * way, and the next one waits until it is committed.  The router is never waited for, nor waits.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/lock.h"
#include "core/spi.h"
#include "fold/tick.h"
#include "route/event_pattern.h"
#include "route/subscription.h"
#include "route/subscription_reserve.h"

#define MAX_NAME		   40 /* bytes: with "behavior_" before it, a channel of NOTIFY */
#define MAX_BATCH_SIZE	   10000
#define MAX_BATCH_WINDOW   USECS_PER_HOUR
#define MAX_REORDER_WINDOW (30 * USECS_PER_DAY)
#define MAX_MAX_ATTEMPTS   1000000
#define MAX_MAX_AGE		   (3653 * USECS_PER_DAY)

PG_FUNCTION_INFO_V1(behavior_create_subscription);
PG_FUNCTION_INFO_V1(behavior_alter_subscription);
PG_FUNCTION_INFO_V1(behavior_drop_subscription);
PG_FUNCTION_INFO_V1(behavior_pause_subscription);
PG_FUNCTION_INFO_V1(behavior_resume_subscription);

/* Arguments of create_subscription(); those of alter_subscription() are the same up to START_AT. */
enum
{
	ARG_NAME,
	ARG_PATTERN,
	ARG_HANDLER,
	ARG_BATCH_SIZE,
	ARG_BATCH_WINDOW,
	ARG_ORDERED,
	ARG_REORDER_WINDOW,
	ARG_MAX_ATTEMPTS,
	ARG_MAX_AGE,
	ARG_START_AT,
	ARG_RESERVED_WORKER,
	CREATE_NARGS,
	ALTER_ARG_RESERVED_WORKER = ARG_START_AT
};

static const char *const argument_names[CREATE_NARGS] = {
	"name",			  "pattern",	  "handler", "batch_size", "batch_window",	 "ordered",
	"reorder_window", "max_attempts", "max_age", "start_at",   "reserved_worker"};

/* What of a subscription the SQL functions set; intervals as they were given. */
typedef struct Definition
{
	Jsonb *pattern;
	char *handler;
	bool takes_delivery;
	int batch_size;
	Interval *batch_window;
	bool ordered;
	Interval *reorder_window;
	int max_attempts;
	Interval *max_age;
	bool reserved_worker;
} Definition;

static void
check_name(const char *name)
{
	if (name[0] == '\0' || strlen(name) > MAX_NAME)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("name of a subscription must have 1 to %d bytes", MAX_NAME),
						errdetail("\"%s\" has %d.", name, (int) strlen(name)),
						errhint("Its channel for LISTEN is \"behavior_\" and the name.")));
}

/* Raises 42710 when a projection of any kind has the name. */
static void
check_name_is_free(const char *name)
{
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(name);
	SecureContext secure;
	bool taken;

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	taken = spi_exec("SELECT FROM behavior._projection WHERE name = $1", SPI_OK_SELECT, false, 1,
					 &type, &value, NULL) > 0;
	secure_end(&secure);
	SPI_finish();
	if (taken || strcmp(name, "sessions") == 0 || strcmp(name, "activity") == 0 ||
		subscription_find(name, GetLatestSnapshot()) != NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT), errmsg("a projection \"%s\" already exists", name),
			 errhint(
				 "Names are unique over subscriptions, rollups and sessions: behavior.projection lists them.")));
}

static Oid
delivery_array_type(void)
{
	Oid type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum("delivery"),
							   ObjectIdGetDatum(behavior_schema_oid()));

	return get_array_type(type);
}

/* Whether the function fits as a handler; *takes_delivery: by its argument. */
static bool
is_handler(Form_pg_proc form, bool *takes_delivery)
{
	if (form->prokind != PROKIND_FUNCTION || form->prorettype != VOIDOID || form->proretset ||
		form->pronargs != 1)
		return false;
	*takes_delivery = form->proargtypes.values[0] == delivery_array_type();
	return *takes_delivery || form->proargtypes.values[0] ==
								  get_array_type(get_rel_type_id(behavior_relid(REL_EVENT)));
}

static void
set_handler(Definition *definition, Oid function)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc form;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("function %u does not exist", function)));
	form = (Form_pg_proc) GETSTRUCT(tuple);
	if (!is_handler(form, &definition->takes_delivery))
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
			 errmsg("function %s cannot be the handler of a subscription",
					format_procedure(function)),
			 errdetail(
				 "A handler is a function of one argument, behavior.event[] or behavior.delivery[], that returns void.")));
	if (isAnyTempNamespace(form->pronamespace))
		ereport(ERROR, (errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
						errmsg("a temporary function cannot be the handler of a subscription"),
						errhint("Create it in another schema.")));
	if (function_aclcheck(function, GetUserId()) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, NameStr(form->proname));
	definition->handler =
		quote_qualified_identifier(get_namespace_name(form->pronamespace), NameStr(form->proname));
	ReleaseSysCache(tuple);
}

static void
check_number(const char *name, int value, int least, int most)
{
	if (value < least || value > most)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%s of a subscription must be between %d and %d, not %d", name,
							   least, most, value)));
}

/* "least" is excluded where it is 0 and the interval must be positive. */
static void
check_interval(const char *name, const Interval *interval, bool positive, int64 most)
{
	double microseconds = interval->time + (interval->day + interval->month * 30.0) * USECS_PER_DAY;

	if (INTERVAL_NOT_FINITE(interval) || microseconds < 0 || (positive && microseconds == 0) ||
		microseconds > most)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of a subscription must be %s and at most %lld seconds", name,
						positive ? "above 0" : "0 or more", (long long) (most / USECS_PER_SEC))));
}

static void
check_definition(const Definition *definition)
{
	check_number("batch_size", definition->batch_size, 1, MAX_BATCH_SIZE);
	check_interval("batch_window", definition->batch_window, false, MAX_BATCH_WINDOW);
	check_interval("reorder_window", definition->reorder_window, false, MAX_REORDER_WINDOW);
	check_number("max_attempts", definition->max_attempts, 1, MAX_MAX_ATTEMPTS);
	check_interval("max_age", definition->max_age, true, MAX_MAX_AGE);
}

static void
check_may_read(void)
{
	if (!subscription_may_read(GetUserId()))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied for view event"),
						errdetail("A subscription shows events to its owner."),
						errhint("GRANT SELECT ON behavior.event TO %s.",
								quote_identifier(GetUserNameFromId(GetUserId(), false)))));
}

/* Takes over those of the arguments that are not NULL, checked. */
static void
set_definition(Definition *definition, FunctionCallInfo fcinfo, int reserved_worker)
{
	if (!PG_ARGISNULL(ARG_PATTERN))
	{
		definition->pattern = PG_GETARG_JSONB_P(ARG_PATTERN);
		(void) event_pattern_compile(definition->pattern);
	}
	if (!PG_ARGISNULL(ARG_HANDLER))
		set_handler(definition, PG_GETARG_OID(ARG_HANDLER));
	if (!PG_ARGISNULL(ARG_BATCH_SIZE))
		definition->batch_size = PG_GETARG_INT32(ARG_BATCH_SIZE);
	if (!PG_ARGISNULL(ARG_BATCH_WINDOW))
		definition->batch_window = PG_GETARG_INTERVAL_P(ARG_BATCH_WINDOW);
	if (!PG_ARGISNULL(ARG_ORDERED))
		definition->ordered = PG_GETARG_BOOL(ARG_ORDERED);
	if (!PG_ARGISNULL(ARG_REORDER_WINDOW))
		definition->reorder_window = PG_GETARG_INTERVAL_P(ARG_REORDER_WINDOW);
	if (!PG_ARGISNULL(ARG_MAX_ATTEMPTS))
		definition->max_attempts = PG_GETARG_INT32(ARG_MAX_ATTEMPTS);
	if (!PG_ARGISNULL(ARG_MAX_AGE))
		definition->max_age = PG_GETARG_INTERVAL_P(ARG_MAX_AGE);
	if (!PG_ARGISNULL(reserved_worker))
		definition->reserved_worker = PG_GETARG_BOOL(reserved_worker);
	check_definition(definition);
}

/* Runs a statement of ours about one subscription. */
static void
run_for(const char *sql, int expected, int64 id)
{
	Oid type = INT8OID;
	Datum value = Int64GetDatum(id);
	SecureContext secure;

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	spi_exec(sql, expected, false, 1, &type, &value, NULL);
	secure_end(&secure);
	SPI_finish();
}

/* Runs of a set, as behavior._subscription.skip_batches has them. */
static Datum
runs_to_array(const BatchSet *set)
{
	Datum *items = palloc(sizeof(Datum) * (2 * set->nruns + 1));

	for (int i = 0; i < set->nruns; i++)
	{
		items[2 * i] = Int64GetDatum(set->runs[i].first);
		items[2 * i + 1] = Int64GetDatum(set->runs[i].last);
	}
	return PointerGetDatum(construct_array(items, 2 * set->nruns, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* Writes the row of a new subscription, and returns its id. */
static int64
insert_subscription(const char *name, const Definition *definition, bool has_start_at,
					TimestampTz start_at)
{
	static const char *const insert =
		"INSERT INTO behavior._subscription (name, owner, pattern, handler, takes_delivery, batch_size,"
		" batch_window, ordered, reorder_window, max_attempts, max_age, start_at, reserved_worker, created_tick,"
		" skip_batches) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"
		" RETURNING subscription_id";
	Oid types[] = {TEXTOID,		TEXTOID,		JSONBOID, TEXTOID,	   BOOLOID,
				   INT4OID,		INTERVALOID,	BOOLOID,  INTERVALOID, INT4OID,
				   INTERVALOID, TIMESTAMPTZOID, BOOLOID,  INT8OID,	   INT8ARRAYOID};
	char nulls[] = "               ";
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	int64 tick = tick_last(snapshot);
	BatchSet *sent = tick_batches(snapshot, tick, TICK_ALL);
	Datum values[lengthof(types)];
	SecureContext secure;
	char *owner = GetUserNameFromId(GetUserId(), false);
	int64 id;
	bool isnull;

	if (definition->reserved_worker && definition->handler != NULL)
		subscription_check_reserved(0);
	UnregisterSnapshot(snapshot);
	values[0] = CStringGetTextDatum(name);
	values[1] = CStringGetTextDatum(owner);
	values[2] = JsonbPGetDatum(definition->pattern);
	values[3] = definition->handler ? CStringGetTextDatum(definition->handler) : (Datum) 0;
	nulls[3] = definition->handler ? ' ' : 'n';
	values[4] = BoolGetDatum(definition->takes_delivery);
	values[5] = Int32GetDatum(definition->batch_size);
	values[6] = IntervalPGetDatum(definition->batch_window);
	values[7] = BoolGetDatum(definition->ordered);
	values[8] = IntervalPGetDatum(definition->reorder_window);
	values[9] = Int32GetDatum(definition->max_attempts);
	values[10] = IntervalPGetDatum(definition->max_age);
	values[11] = TimestampTzGetDatum(start_at);
	nulls[11] = has_start_at ? ' ' : 'n';
	values[12] = BoolGetDatum(definition->reserved_worker);
	values[13] = Int64GetDatum(tick);
	/* With a start_at it is the time of an event that counts, not when it was sent. */
	values[14] = runs_to_array(sent);
	nulls[14] = has_start_at || sent->nruns == 0 ? 'n' : ' ';

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	spi_exec(insert, SPI_OK_INSERT_RETURNING, false, lengthof(types), types, values, nulls);
	id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	secure_end(&secure);
	SPI_finish();
	return id;
}

Datum
behavior_create_subscription(PG_FUNCTION_ARGS)
{
	Definition definition = {0};
	SubscriptionProgress progress = {0};
	bool has_start_at = !PG_ARGISNULL(ARG_START_AT);
	char *name;
	int64 id;

	for (int i = 0; i < CREATE_NARGS; i++)
	{
		if (PG_ARGISNULL(i) && i != ARG_HANDLER && i != ARG_START_AT)
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
							errmsg("%s of a subscription must not be null", argument_names[i])));
	}
	name = text_to_cstring(PG_GETARG_TEXT_PP(ARG_NAME));
	check_name(name);
	check_may_read();
	set_definition(&definition, fcinfo, ARG_RESERVED_WORKER);
	if (has_start_at)
	{
		progress.replaying = true;
		progress.replay_at = PG_GETARG_TIMESTAMPTZ(ARG_START_AT);
		if (TIMESTAMP_IS_NOEND(progress.replay_at))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("start_at of a subscription must not be infinity")));
	}
	progress.live = !progress.replaying;

	/* Until commit: two who make a projection of the same name wait for each other. */
	behavior_lock(behavior_relid(REL_PROJECTION), PROJECTION_NAMES_LOCK, ExclusiveLock);
	check_name_is_free(name);
	id = insert_subscription(name, &definition, has_start_at, progress.replay_at);
	subscription_progress_move(id, &progress);
	PG_RETURN_VOID();
}

/* The caller's subscription, with its lock, as it is under that. */
static Subscription *
lock_callers(const char *name)
{
	for (;;)
	{
		Subscription *subscription = subscription_of_caller(name, GetLatestSnapshot());
		Subscription *locked;

		(void) subscription_lock(subscription->id, true);
		locked = subscription_get(subscription->id, GetLatestSnapshot());
		if (locked != NULL)
			return locked;
		/* Dropped while we waited, and there may be another one of its name. */
		subscription_unlock(subscription->id);
	}
}

static Interval *
interval_of(int64 microseconds)
{
	Interval *interval = palloc0(sizeof(Interval));

	interval->time = microseconds;
	return interval;
}

/* Writes what alter_subscription() may change. */
static void
update_subscription(int64 id, const Definition *definition)
{
	static const char *const update =
		"UPDATE behavior._subscription SET pattern = $2, handler = $3, takes_delivery = $4, batch_size = $5,"
		" batch_window = $6, ordered = $7, reorder_window = $8, max_attempts = $9, max_age = $10, reserved_worker = $11"
		" WHERE subscription_id = $1";
	Oid types[] = {INT8OID, JSONBOID,	 TEXTOID, BOOLOID,	   INT4OID, INTERVALOID,
				   BOOLOID, INTERVALOID, INT4OID, INTERVALOID, BOOLOID};
	Datum values[] = {Int64GetDatum(id),
					  JsonbPGetDatum(definition->pattern),
					  definition->handler ? CStringGetTextDatum(definition->handler) : (Datum) 0,
					  BoolGetDatum(definition->takes_delivery),
					  Int32GetDatum(definition->batch_size),
					  IntervalPGetDatum(definition->batch_window),
					  BoolGetDatum(definition->ordered),
					  IntervalPGetDatum(definition->reorder_window),
					  Int32GetDatum(definition->max_attempts),
					  IntervalPGetDatum(definition->max_age),
					  BoolGetDatum(definition->reserved_worker)};
	char nulls[] = "           ";
	SecureContext secure;

	nulls[2] = definition->handler ? ' ' : 'n';
	SPI_connect();
	secure_begin(&secure, behavior_owner());
	spi_exec(update, SPI_OK_UPDATE, false, lengthof(types), types, values, nulls);
	secure_end(&secure);
	SPI_finish();
}

Datum
behavior_alter_subscription(PG_FUNCTION_ARGS)
{
	Definition definition = {0};
	Subscription *subscription;

	if (PG_ARGISNULL(ARG_NAME))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("name of a subscription must not be null")));
	subscription = lock_callers(text_to_cstring(PG_GETARG_TEXT_PP(ARG_NAME)));
	if (subscription->handler == NULL && !PG_ARGISNULL(ARG_HANDLER))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("subscription \"%s\" has no handler and cannot be given one",
							   subscription->name),
						errdetail("Its consumers call behavior.receive()."),
						errhint("Create another subscription with a handler.")));
	definition.pattern = subscription->pattern;
	definition.handler = subscription->handler;
	definition.takes_delivery = subscription->takes_delivery;
	definition.batch_size = subscription->batch_size;
	definition.batch_window = interval_of(subscription->batch_window);
	definition.ordered = subscription->ordered;
	definition.reorder_window = interval_of(subscription->reorder_window);
	definition.max_attempts = subscription->max_attempts;
	definition.max_age = interval_of(subscription->max_age);
	definition.reserved_worker = subscription->reserved_worker;
	set_definition(&definition, fcinfo, ALTER_ARG_RESERVED_WORKER);
	if (definition.reserved_worker && definition.handler != NULL && !subscription->reserved_worker)
		subscription_check_reserved(subscription->id);
	update_subscription(subscription->id, &definition);

	/* What is held for its turn, or waits behind its actor's, has none any more. */
	if (subscription->ordered && !definition.ordered)
		run_for("UPDATE behavior._delivery SET state = 'r', due_at = pg_catalog.clock_timestamp()"
				" WHERE subscription_id = $1"
				" AND (state = 'h' OR state = 'r' AND due_at = 'infinity')",
				SPI_OK_UPDATE, subscription->id);
	PG_RETURN_VOID();
}

Datum
behavior_drop_subscription(PG_FUNCTION_ARGS)
{
	char *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	int64 id;

	if (PG_GETARG_BOOL(1) && subscription_find(name, GetLatestSnapshot()) == NULL)
	{
		ereport(NOTICE, (errmsg("subscription \"%s\" does not exist, skipping", name)));
		PG_RETURN_VOID();
	}
	id = lock_callers(name)->id;
	run_for("DELETE FROM behavior._subscription WHERE subscription_id = $1", SPI_OK_DELETE, id);
	run_for("DELETE FROM behavior._subscription_join WHERE subscription_id = $1", SPI_OK_DELETE,
			id);
	run_for("DELETE FROM behavior._subscription_progress WHERE subscription_id = $1", SPI_OK_DELETE,
			id);
	run_for("DELETE FROM behavior._delivery_chunk WHERE subscription_id = $1", SPI_OK_DELETE, id);
	run_for("DELETE FROM behavior._delivery WHERE subscription_id = $1", SPI_OK_DELETE, id);
	PG_RETURN_VOID();
}

Datum
behavior_pause_subscription(PG_FUNCTION_ARGS)
{
	Subscription *subscription = lock_callers(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	if (!subscription->paused)
		run_for("UPDATE behavior._subscription SET paused = true WHERE subscription_id = $1",
				SPI_OK_UPDATE, subscription->id);
	PG_RETURN_VOID();
}

/* Also ends a rest that failures have brought. */
Datum
behavior_resume_subscription(PG_FUNCTION_ARGS)
{
	Subscription *subscription = lock_callers(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	SubscriptionProgress progress;

	subscription_progress_read(subscription->id, snapshot, &progress);
	UnregisterSnapshot(snapshot);
	if (progress.resume_at != 0)
	{
		progress.resume_at = 0;
		subscription_progress_move(subscription->id, &progress);
	}
	if (subscription->paused)
		run_for("UPDATE behavior._subscription SET paused = false WHERE subscription_id = $1",
				SPI_OK_UPDATE, subscription->id);
	PG_RETURN_VOID();
}

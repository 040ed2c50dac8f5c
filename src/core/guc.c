/*
 * guc.c
 *		The settings of behavior.
 */
#include "postgres.h"

#include <limits.h>

#include "mb/pg_wchar.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "core/compat.h"
#include "core/guc.h"

int behavior_on_invalid = ON_INVALID_DEAD_LETTER;
char *behavior_correlation_id;
char *behavior_default_source;
bool behavior_copy_ahead = true;
int behavior_max_event_size = 256 * 1024;
int behavior_max_future = 3600;
int behavior_max_past = -1;
int behavior_unknown_type = UNKNOWN_TYPE_ACCEPT;
int behavior_session_timeout = 30 * 60;
char *behavior_page_property;
char *behavior_session_properties;
char *behavior_session_ignore;
bool behavior_worker = true;
char *behavior_databases;
int behavior_tick_interval = 5000;
int behavior_tick_events = 5000;
int behavior_idempotency_window = -1;
int behavior_batch_retention = 7 * 24 * 3600;
int behavior_maintenance_workers = 1;
int behavior_delivery_workers = 4;
int behavior_handler_timeout = 30 * 1000;
int behavior_max_hops = 16;
int behavior_key_generation_size = 1024 * 1024;
int behavior_key_run_size = 64;
int behavior_retry_delay = 1000;

static const struct config_enum_entry on_invalid_options[] = {
	{"dead_letter", ON_INVALID_DEAD_LETTER, false},
	{"error", ON_INVALID_ERROR, false},
	{NULL, 0, false}};

static const struct config_enum_entry unknown_type_options[] = {
	{"accept", UNKNOWN_TYPE_ACCEPT, false},
	{"dead_letter", UNKNOWN_TYPE_DEAD_LETTER, false},
	{NULL, 0, false}};

/*
 * Accepts a comma-separated list of names, where a name with a comma or a
 * blank in it is double-quoted.  Names keep their case.
 */
static bool
check_name_list(char **newval, void **extra, GucSource source)
{
	char *copy = pstrdup(*newval);
	List *names = NIL;
	bool ok = SplitGUCList(copy, ',', &names);

	list_free(names);
	pfree(copy);
	if (!ok)
		GUC_check_errdetail("List syntax is invalid.");
	return ok;
}

/*
 * Accepts text that fits a column of 255 bytes.  Options of a connection's start come as bytes that
 * nobody has verified, and what is stored would spoil every function that reads it.
 */
static bool
check_short_text(char **newval, void **extra, GucSource source)
{
	int length = (int) strlen(*newval);

	if (length > 255)
	{
		GUC_check_errdetail("At most 255 bytes are allowed.");
		return false;
	}
	if (pg_encoding_verifymbstr(PG_UTF8, *newval, length) != length)
	{
		GUC_check_errdetail("The value must be valid UTF-8.");
		return false;
	}
	return true;
}

/* Accepts text that may stand in the column source: neither empty nor over 255 bytes. */
static bool
check_source(char **newval, void **extra, GucSource source)
{
	if ((*newval)[0] == '\0')
	{
		GUC_check_errdetail("The default source must not be empty.");
		return false;
	}
	return check_short_text(newval, extra, source);
}

void
define_settings(void)
{
	DefineCustomEnumVariable("behavior.on_invalid", "What becomes of an event that is refused.",
							 "dead_letter keeps it with its reason and goes on; error raises.",
							 &behavior_on_invalid, ON_INVALID_DEAD_LETTER, on_invalid_options,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"behavior.correlation_id", "Stored with every batch that this session sends.", NULL,
		&behavior_correlation_id, "", PGC_USERSET, 0, check_short_text, NULL, NULL);
	DefineCustomStringVariable("behavior.default_source", "Source of events that name none.", NULL,
							   &behavior_default_source, "default", PGC_USERSET, 0, check_source,
							   NULL, NULL);
	DefineCustomBoolVariable("behavior.copy_ahead",
							 "Whether plain lines of a COPY are taken from its buffer.",
							 "off leaves every line to COPY: slower, with the same result.",
							 &behavior_copy_ahead, true, PGC_USERSET, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("behavior.max_event_size", "Largest event that is accepted.", NULL,
							&behavior_max_event_size, 256 * 1024, 1024, 64 * 1024 * 1024, PGC_SUSET,
							GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomIntVariable("behavior.max_future",
							"How far ahead of the clock an event may have occurred.",
							"-1 means no limit.", &behavior_max_future, 3600, -1, INT_MAX,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("behavior.max_past", "How long ago an event may have occurred.",
							"-1 means no limit.", &behavior_max_past, -1, -1, INT_MAX, PGC_SUSET,
							GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomEnumVariable("behavior.unknown_type",
							 "What becomes of an event whose type is not declared.", NULL,
							 &behavior_unknown_type, UNKNOWN_TYPE_ACCEPT, unknown_type_options,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("behavior.session_timeout", "Longest pause inside a session.",
							"Takes effect when sessions are rebuilt.", &behavior_session_timeout,
							30 * 60, 1, INT_MAX, PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"behavior.page_property",
		"Names under which an event's page is looked up in its properties, first found.",
		"Takes effect when sessions are rebuilt.", &behavior_page_property, "page, path, url",
		PGC_SUSET, GUC_LIST_INPUT, check_name_list, NULL, NULL);
	DefineCustomStringVariable(
		"behavior.session_properties",
		"Properties that a session keeps of its first event that has any.",
		"Takes effect when sessions are rebuilt.", &behavior_session_properties,
		"utm_source, utm_medium, utm_campaign, utm_term, utm_content, referrer", PGC_SUSET,
		GUC_LIST_INPUT, check_name_list, NULL, NULL);
	DefineCustomStringVariable(
		"behavior.session_ignore", "Event types that neither open, extend nor count in a session.",
		"Takes effect when sessions are rebuilt.", &behavior_session_ignore,
		"identify, group, alias", PGC_SUSET, GUC_LIST_INPUT, check_name_list, NULL, NULL);

	DefineCustomBoolVariable("behavior.worker", "Whether background workers tick and maintain.",
							 NULL, &behavior_worker, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"behavior.databases", "Databases that get a worker; * means all that have the extension.",
		NULL, &behavior_databases, "*", PGC_SIGHUP, GUC_LIST_INPUT, check_name_list, NULL, NULL);
	DefineCustomIntVariable("behavior.tick_interval", "Time from one tick to the next.", NULL,
							&behavior_tick_interval, 5000, 100, 3600 * 1000, PGC_SIGHUP,
							GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"behavior.tick_events", "A tick is cut early when more events than this wait.", NULL,
		&behavior_tick_events, 5000, 1, INT_MAX, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("behavior.idempotency_window", "How long a key is remembered at least.",
							"-1 means for ever.", &behavior_idempotency_window, -1, -1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("behavior.batch_retention", "How long batch rows are kept.",
							"Their sums stay in behavior.intake. -1 means for ever.",
							&behavior_batch_retention, 7 * 24 * 3600, -1, INT_MAX, PGC_SIGHUP,
							GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"behavior.maintenance_workers",
		"Most workers a database has for refresh, backfill, packing and partitions.", NULL,
		&behavior_maintenance_workers, 1, 0, 64, PGC_SIGHUP, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("behavior.delivery_workers",
							"Most workers a database has for handlers of subscriptions.",
							"0 leaves delivery to CALL behavior.tick().",
							&behavior_delivery_workers, 4, 0, 64, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("behavior.handler_timeout",
							"Longest time that one call of a handler may take.",
							"A longer one is cancelled and counts as failed. 0 means no limit.",
							&behavior_handler_timeout, 30 * 1000, 0, INT_MAX, PGC_SIGHUP,
							GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"behavior.max_hops",
		"Through how many handlers one after another an event may come to be sent.",
		"One more makes it a dead letter: a handler that sends what it is called for must end.",
		&behavior_max_hops, 16, 0, 1000, PGC_SIGHUP, 0, NULL, NULL, NULL);

	/* For tests: users have no reason to change it. */
	DefineCustomIntVariable("behavior.key_generation_size",
							"Keys in a generation that takes no more.", NULL,
							&behavior_key_generation_size, 1024 * 1024, 100, INT_MAX, PGC_SUSET,
							GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);

	DefineCustomIntVariable("behavior.key_run_size",
							"Fewest new keys in a bucket that are written as a run.", NULL,
							&behavior_key_run_size, 64, 1, INT_MAX, PGC_SUSET,
							GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);

	DefineCustomIntVariable(
		"behavior.retry_delay",
		"Time from the first failure of an event's delivery to the second attempt.",
		"Doubled with each failure, up to 300 times as much.", &behavior_retry_delay, 1000, 0,
		3600 * 1000, PGC_SUSET, GUC_UNIT_MS | GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE, NULL, NULL,
		NULL);

	MarkGUCPrefixReserved("behavior");
}

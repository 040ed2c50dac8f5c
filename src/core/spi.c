/*
 * spi.c
 *		Running SQL as somebody, in a pinned environment.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "core/spi.h"

/* Settings that change what an expression returns. */
static const char *const pinned[][2] = {
	{"search_path", "pg_catalog, pg_temp"}, {"TimeZone", "UTC"},		 {"DateStyle", "ISO, YMD"},
	{"IntervalStyle", "postgres"},			{"extra_float_digits", "1"}, {"bytea_output", "hex"},
	{"standard_conforming_strings", "on"},	{"row_security", "on"},		 {"array_nulls", "on"},
	{"transform_null_equals", "off"},		{"xmloption", "content"},
};

typedef struct CachedStatement
{
	const char *sql; /* hash key: the text itself, kept in TopMemoryContext */
	SPIPlanPtr plan;
} CachedStatement;

static HTAB *statements = NULL;

void
pin_settings(void)
{
	for (int i = 0; i < lengthof(pinned); i++)
	{
		const char *now = GetConfigOption(pinned[i][0], true, false);

		/* Setting costs ten times as much as looking, and mostly all is as it should be. */
		if (now == NULL || strcmp(now, pinned[i][1]) != 0)
			(void) set_config_option(pinned[i][0], pinned[i][1], PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
	}
}

void
secure_begin(SecureContext *secure, Oid role)
{
	GetUserIdAndSecContext(&secure->saved_user, &secure->saved_context);
	SetUserIdAndSecContext(role, secure->saved_context | SECURITY_RESTRICTED_OPERATION |
									 SECURITY_LOCAL_USERID_CHANGE);
	secure->guc_level = NewGUCNestLevel();
	pin_settings();
}

void
secure_end(SecureContext *secure)
{
	AtEOXact_GUC(false, secure->guc_level);
	SetUserIdAndSecContext(secure->saved_user, secure->saved_context);
}

static uint32
statement_hash(const void *key, Size keysize)
{
	const char *sql = *(const char *const *) key;

	return string_hash(sql, strlen(sql) + 1);
}

static int
statement_match(const void *a, const void *b, Size keysize)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

static SPIPlanPtr
cached_plan(const char *sql, int nargs, const Oid *types)
{
	CachedStatement *entry;
	bool found;

	if (statements == NULL)
	{
		HASHCTL ctl = {0};

		ctl.keysize = sizeof(char *);
		ctl.entrysize = sizeof(CachedStatement);
		ctl.hash = statement_hash;
		ctl.match = statement_match;
		ctl.hcxt = TopMemoryContext;
		statements = hash_create("behavior statements", 64, &ctl,
								 HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
	}

	entry = hash_search(statements, &sql, HASH_FIND, NULL);
	if (entry == NULL)
	{
		SPIPlanPtr plan = SPI_prepare(sql, nargs, (Oid *) types);
		const char *key;

		if (plan == NULL)
			elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		key = MemoryContextStrdup(TopMemoryContext, sql);
		entry = hash_search(statements, &key, HASH_ENTER, &found);
		entry->plan = plan;
	}
	return entry->plan;
}

uint64
spi_exec(const char *sql, int expected, bool read_only, int nargs, const Oid *types,
		 const Datum *values, const char *nulls)
{
	int rc =
		SPI_execute_plan(cached_plan(sql, nargs, types), (Datum *) values, nulls, read_only, 0);

	if (rc != expected)
		elog(ERROR, "\"%s\" returned %s", sql, SPI_result_code_string(rc));
	return SPI_processed;
}

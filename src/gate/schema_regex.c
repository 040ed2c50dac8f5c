/*
 * schema_regex.c
 *		Regular expressions of JSON schemas, by PCRE2, with limits that no pattern gets around.
 *
 * Matching is by interpretation: compiled code would need memory that is both written and run,
 * which hardened systems refuse, and counts its steps otherwise than by backtracking.
 *
 * The library does not tell how much a match has cost, and counts backtracking points from anew at
 * each place where a match may start.  So that the steps of a check stay bounded and the same
 * everywhere, a pattern that may match anywhere begins with a search of its own, which makes it one
 * match with one count; and a match is tried with a low limit first, then with higher ones as long
 * as there are steps.  Each try costs what it may have cost.  In a pattern that repeats something a
 * point may be a run over the text, in another one it is no more than a run over the pattern: hence
 * the price of one.
 */
#include "postgres.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "utils/memutils.h"

#include "gate/schema_node.h"

/*
 * Backtracking points of the first try, factor of the next ones, and the last limit for patterns
 * that repeat something: others need one for each place to start from, and no memory.
 */
#define FIRST_LIMIT	 16
#define LIMIT_FACTOR 4
#define LAST_LIMIT	 (256 * 1024)

/* Steps that a match costs in any case, and text that costs one. */
#define MATCH_STEPS	   4
#define BYTES_PER_STEP 64

/* Memory of one match, in kB, and how much of it is kept for the next. */
#define HEAP_LIMIT 16384
#define HEAP_KEPT  65536

struct SchemaRegex
{
	pcre2_code *code;
	int length; /* of the pattern */
	bool repeats;
};

/* What matches work with, once in a backend. */
static MemoryContext match_memory;
static pcre2_match_context *match_context;
static pcre2_match_data *match_data;

/* PCRE2's memory is that of a memory context: nothing to be freed one by one. */
static void *
allocate(PCRE2_SIZE size, void *context)
{
	return MemoryContextAllocExtended((MemoryContext) context, size,
									  MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
}

static void
release(void *pointer, void *context)
{
	if (pointer != NULL)
		pfree(pointer);
}

/* Compiles what is PCRE2's already; NULL: *error. */
static pcre2_code *
compile_code(const char *pattern, int *error)
{
	pcre2_general_context *general =
		pcre2_general_context_create(allocate, release, CurrentMemoryContext);
	pcre2_compile_context *context = NULL;
	pcre2_code *code = NULL;
	PCRE2_SIZE offset;

	if (general != NULL)
		context = pcre2_compile_context_create(general);
	if (context == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	pcre2_set_compile_extra_options(context, PCRE2_EXTRA_ALLOW_SURROGATE_ESCAPES);

	/*
	 * Text of the database is valid UTF-8, and so is what has been made of it.  Groups that have
	 * not matched are empty to references, as in ECMA-262.  No UCP: \b goes by ASCII.
	 */
	code = pcre2_compile((PCRE2_SPTR) pattern, strlen(pattern),
						 PCRE2_UTF | PCRE2_NO_UTF_CHECK | PCRE2_DOLLAR_ENDONLY |
							 PCRE2_MATCH_UNSET_BACKREF | PCRE2_NEVER_BACKSLASH_C | PCRE2_NEVER_UCP,
						 error, &offset, context);
	pcre2_compile_context_free(context);
	pcre2_general_context_free(general);
	if (code == NULL && (*error == PCRE2_ERROR_NOMEMORY || *error == PCRE2_ERROR_HEAPLIMIT))
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	return code;
}

/* NULL, and why in *message, when the pattern is not valid.  Lives in the current context. */
SchemaRegex *
schema_regex_compile(const char *pattern, int length, char **message)
{
	const char *flaw;
	bool repeats;
	char *translated = schema_regex_translate(pattern, length, &repeats, &flaw);
	SchemaRegex *regex;
	pcre2_code *code;
	uint32 options;
	int error;

	if (translated == NULL)
	{
		*message = pstrdup(flaw);
		return NULL;
	}
	code = compile_code(translated, &error);
	if (code != NULL)
	{
		pcre2_pattern_info(code, PCRE2_INFO_ALLOPTIONS, &options);
		if (!(options & PCRE2_ANCHORED))
		{
			char *search = psprintf("^(?s:.)*?(?:%s)", translated);

			pcre2_code_free(code);
			code = compile_code(search, &error);
			pfree(search);
		}
	}
	pfree(translated);
	if (code == NULL)
	{
		PCRE2_UCHAR text[256];

		pcre2_get_error_message(error, text, sizeof(text));
		*message = pstrdup((char *) text);
		return NULL;
	}
	regex = palloc(sizeof(SchemaRegex));
	regex->code = code;
	regex->length = length;
	regex->repeats = repeats;
	return regex;
}

static void
prepare_matches(void)
{
	pcre2_general_context *general;

	if (match_memory == NULL)
		match_memory = AllocSetContextCreate(TopMemoryContext, "behavior regular expressions",
											 ALLOCSET_DEFAULT_SIZES);
	if (match_data != NULL)
		return;
	MemoryContextReset(match_memory);
	match_context = NULL;
	general = pcre2_general_context_create(allocate, release, match_memory);
	if (general != NULL)
		match_context = pcre2_match_context_create(general);
	if (match_context != NULL)
	{
		pcre2_set_heap_limit(match_context, HEAP_LIMIT);
		match_data = pcre2_match_data_create(1, general);
	}
	if (match_data == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}

/*
 * Does a text match somewhere?  Takes what it costs off *steps; with SCHEMA_MATCH_LIMIT there is
 * no telling within these steps, or within the limits of one match.
 */
SchemaMatch
schema_regex_match(const SchemaRegex *regex, const char *text, int length, int64 *steps)
{
	int64 price = 1 + (regex->repeats ? length : regex->length) / BYTES_PER_STEP;
	int64 last_limit = regex->repeats ? LAST_LIMIT : PG_UINT32_MAX;
	int64 limit = FIRST_LIMIT;
	int result;

	prepare_matches();
	*steps -= MATCH_STEPS + length / BYTES_PER_STEP;
	for (;;)
	{
		limit = Max(Min(limit, *steps / price), 1);
		pcre2_set_match_limit(match_context, (uint32) limit);
		result = pcre2_match(regex->code, (PCRE2_SPTR) text, length, 0, PCRE2_NO_UTF_CHECK,
							 match_data, match_context);
		*steps -= limit * price;
		if (result != PCRE2_ERROR_MATCHLIMIT || *steps < price || limit >= last_limit)
			break;
		limit = Min(limit * LIMIT_FACTOR, last_limit);
	}
	if (MemoryContextMemAllocated(match_memory, false) > HEAP_KEPT)
	{
		match_data = NULL;
		MemoryContextReset(match_memory);
	}
	if (result >= 0)
		return SCHEMA_MATCH;
	return result == PCRE2_ERROR_NOMATCH ? SCHEMA_NO_MATCH : SCHEMA_MATCH_LIMIT;
}

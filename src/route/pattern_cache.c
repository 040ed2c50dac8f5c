/*
 * pattern_cache.c
 *		Patterns that this backend has compiled.
 *
 * Two levels: a call site remembers its last pattern, and where the pattern is a constant does not
 * even look at it again; behind that is a table by the pattern's bytes, from which the one not used
 * for longest goes when it gets too full.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "lib/ilist.h"
#include "nodes/primnodes.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "core/compat.h"
#include "route/pattern_cache.h"

#define MAX_PATTERNS 1000
#define MAX_MEMORY	 (16 * 1024 * 1024)

typedef struct CachedPattern
{
	uint64 hash; /* key of the table; of two patterns with the same one the later stays */
	dlist_node used;
	MemoryContext context;
	Size memory;
	Jsonb *source;
	EventPattern *pattern;
} CachedPattern;

typedef struct CallSite
{
	CachedPattern *entry;
	uint64 generation; /* of the cache: entry is there as long as it is the same */
	bool constant;
} CallSite;

static HTAB *patterns = NULL;
static MemoryContext patterns_context = NULL;
static dlist_head by_use = DLIST_STATIC_INIT(by_use);
static Size total_memory = 0;
static uint64 generation = 1; /* changes whenever an entry goes */

static void
forget(CachedPattern *entry)
{
	generation++;
	dlist_delete(&entry->used);
	total_memory -= entry->memory;
	MemoryContextDelete(entry->context);
	(void) hash_search(patterns, &entry->hash, HASH_REMOVE, NULL);
}

static inline bool
same_source(const Jsonb *a, const Jsonb *b)
{
	return VARSIZE(a) == VARSIZE(b) && memcmp(a, b, VARSIZE(a)) == 0;
}

static CachedPattern *
find_pattern(Jsonb *source)
{
	uint64 hash = hash_bytes_extended((unsigned char *) source, VARSIZE(source), 0);
	CachedPattern *entry;
	MemoryContext context;
	MemoryContext old;
	EventPattern *pattern;
	Jsonb *copy;

	if (patterns == NULL)
	{
		HASHCTL control;

		patterns_context =
			AllocSetContextCreate(TopMemoryContext, "event patterns", ALLOCSET_DEFAULT_SIZES);
		control.keysize = sizeof(uint64);
		control.entrysize = sizeof(CachedPattern);
		control.hcxt = patterns_context;
		patterns =
			hash_create("event patterns", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	entry = hash_search(patterns, &hash, HASH_FIND, NULL);
	if (entry != NULL)
	{
		if (same_source(entry->source, source))
		{
			dlist_move_head(&by_use, &entry->used);
			return entry;
		}
		forget(entry);
	}

	/* Below the caller's context until all is well. */
	context = AllocSetContextCreate(CurrentMemoryContext, "event pattern", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	copy = memcpy(palloc(VARSIZE(source)), source, VARSIZE(source));
	pattern = event_pattern_compile(source);
	MemoryContextSwitchTo(old);
	entry = hash_search(patterns, &hash, HASH_ENTER, NULL);
	MemoryContextSetParent(context, patterns_context);
	entry->context = context;
	entry->source = copy;
	entry->pattern = pattern;
	entry->memory = MemoryContextMemAllocated(context, true);
	total_memory += entry->memory;
	dlist_push_head(&by_use, &entry->used);
	while (hash_get_num_entries(patterns) > MAX_PATTERNS || total_memory > MAX_MEMORY)
	{
		CachedPattern *last = dlist_tail_element(CachedPattern, used, &by_use);

		if (last == entry)
			break;
		forget(last);
	}
	return entry;
}

/*
 * Is the argument written as a constant?  A parameter, which get_fn_expr_arg_stable() takes for as
 * good, is not: PL/pgSQL evaluates the same expression with other values.
 */
static bool
is_constant(Node *call, int arg)
{
	List *args = NIL;

	if (call != NULL && IsA(call, FuncExpr))
		args = ((FuncExpr *) call)->args;
	else if (call != NULL && IsA(call, OpExpr))
		args = ((OpExpr *) call)->args;
	return arg < list_length(args) && IsA(list_nth(args, arg), Const);
}

EventPattern *
pattern_of_call(FunctionCallInfo fcinfo, int arg)
{
	CallSite *site = fcinfo->flinfo->fn_extra;
	Jsonb *source;

	if (site != NULL && site->constant && site->generation == generation)
		return site->entry->pattern;
	source = PG_GETARG_JSONB_P(arg);
	if (site == NULL)
	{
		site = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(CallSite));
		site->constant = is_constant(fcinfo->flinfo->fn_expr, arg);
		fcinfo->flinfo->fn_extra = site;
	}
	if (site->generation != generation || !same_source(site->entry->source, source))
	{
		site->generation = 0;
		site->entry = find_pattern(source);
		site->generation = generation;
	}
	PG_FREE_IF_COPY(source, arg);
	return site->entry->pattern;
}

/*
 * invalidation.c
 *		Hands the invalidations of relations to the modules that wait for them.
 *
 * A backend has ten places for such callbacks, PostgreSQL's own included, and is ended by whoever
 * asks for the eleventh.  So all modules of this extension share one.
 */
#include "postgres.h"

#include "core/invalidation.h"

#define MAX_FUNCTIONS 32

static RelcacheCallbackFunction functions[MAX_FUNCTIONS];
static int nfunctions = 0;

static void
on_relcache_inval(Datum arg, Oid relid)
{
	for (int i = 0; i < nfunctions; i++)
		functions[i]((Datum) 0, relid);
}

void
invalidation_call(RelcacheCallbackFunction function)
{
	static bool registered = false;

	if (nfunctions == MAX_FUNCTIONS)
		elog(ERROR, "more than %d modules wait for invalidations", MAX_FUNCTIONS);
	if (!registered)
	{
		CacheRegisterRelcacheCallback(on_relcache_inval, (Datum) 0);
		registered = true;
	}
	functions[nfunctions++] = function;
}

/*
 * rollup.c
 *		Stands in for rollups until they are there.
 */
#include "postgres.h"

#include "fold/projection.h"

__attribute__((weak)) void
rollup_fold(const char *name, const TickEvents *events)
{
}

__attribute__((weak)) bool
rollup_build_step(const char *name)
{
	return false;
}

__attribute__((weak)) void
rollup_adopt(void)
{
}

__attribute__((weak)) Oid
rollup_owner(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("projection \"%s\" does not exist", name)));
	return InvalidOid;
}

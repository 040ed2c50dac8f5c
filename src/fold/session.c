/*
 * session.c
 *		Sessions: a visitor's runs of events, folded from ticks.
 */
#include "postgres.h"

#include "fmgr.h"

#include "fold/projection.h"

PG_FUNCTION_INFO_V1(behavior_session_settings);

void
session_fold(const char *name, const TickEvents *events)
{
}

bool
session_build_step(void)
{
	return false;
}

void
session_prepare(void)
{
}

Datum
behavior_session_settings(PG_FUNCTION_ARGS)
{
	PG_RETURN_NULL();
}

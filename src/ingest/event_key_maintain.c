/*
 * event_key_maintain.c
 *		Decides which generation of keys is sealed, packed, merged or dropped.
 */
#include "postgres.h"

#include "fmgr.h"

#include "ingest/event_key.h"

PG_FUNCTION_INFO_V1(behavior__key_maintain);

bool
event_key_maintain(void)
{
	return false;
}

/* _key_maintain(): one step; for tests and for the curious. */
Datum
behavior__key_maintain(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(event_key_maintain());
}

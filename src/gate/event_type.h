/*
 * event_type.h
 *		Declared types of events and the schemas of their properties.
 */
#ifndef BEHAVIOR_EVENT_TYPE_H
#define BEHAVIOR_EVENT_TYPE_H

#include "core/errors.h"
#include "utils/jsonb.h"

/* Why an event is refused by its type. */
typedef struct EventTypeVerdict
{
	Reason reason;	   /* REASON_SCHEMA_VIOLATION or REASON_UNKNOWN_TYPE */
	char message[256]; /* for the dead letter's detail */
	Jsonb *errors;	   /* for dead_letter.errors: version and the list of errors; NULL for none */
} EventTypeVerdict;

/*
 * May an event of this source and type have these properties (NULL: '{}')?  Costs a comparison
 * where no types are declared.  On false fills *verdict, in the current context.
 */
extern bool event_type_accepts(const char *source, int source_length, const char *type,
							   int type_length, Jsonb *properties, EventTypeVerdict *verdict);

#endif

/*
 * event_type.h
 *		Declared types of events and the schemas of their properties.
 *
 * A backend keeps the types that are declared now, with their schemas compiled at first use, until
 * behavior._event_type changes.  It looks at the beginning of each sending statement whether that
 * happened: a change that another session committed, one of the own transaction, and one that was
 * rolled back all count from the next statement on at the latest, in every isolation level.  A
 * statement that changes types while it sends finds them changed for the events that come then.
 */
#ifndef BEHAVIOR_EVENT_TYPE_H
#define BEHAVIOR_EVENT_TYPE_H

#include "core/errors.h"
#include "core/guc.h"
#include "utils/jsonb.h"

#define EVENT_TYPE_MAX_ERRORS 20 /* that are kept of one event */

/* Why an event is refused by its type. */
typedef struct EventTypeVerdict
{
	Reason reason;	   /* REASON_SCHEMA_VIOLATION or REASON_UNKNOWN_TYPE */
	char message[256]; /* for the dead letter's detail */
	Jsonb *errors;	   /* for dead_letter.errors: version and the list of errors; NULL for none */
} EventTypeVerdict;

/* Are any types declared, as far as event_type_refresh() knows? */
extern bool event_types_declared;

/* Called at the beginning of each sending statement. */
extern void event_type_refresh(void);

/* Can event_type_accepts() say no at all? */
static inline bool
event_type_gate(void)
{
	return event_types_declared || behavior_unknown_type != UNKNOWN_TYPE_ACCEPT;
}

/*
 * May an event of this source and type have these properties (NULL: '{}')?  Costs a comparison
 * where no types are declared.  On false fills *verdict, in the current context.
 */
extern bool event_type_accepts(const char *source, int source_length, const char *type,
							   int type_length, Jsonb *properties, EventTypeVerdict *verdict);

/* Columns of behavior._event_type. */
enum
{
	EVENT_TYPE_SOURCE = 1,
	EVENT_TYPE_TYPE,
	EVENT_TYPE_VERSION,
	EVENT_TYPE_SCHEMA,
	EVENT_TYPE_OWNER,
	EVENT_TYPE_CREATED_AT,
	EVENT_TYPE_RETIRED_AT,
	EVENT_TYPE_NATTS = EVENT_TYPE_RETIRED_AT
};

#define EVENT_TYPE_ANY_SOURCE "*"

#endif

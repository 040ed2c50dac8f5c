/*
 * envelope_map.h
 *		From one JSON object to the fields of an event.  Private to envelope*.c.
 */
#ifndef BEHAVIOR_ENVELOPE_MAP_H
#define BEHAVIOR_ENVELOPE_MAP_H

#include "core/json.h"
#include "ingest/frame.h"

#define MAX_CONSUMED 16 /* more keys than any form has columns for */

/* A list of members that is to become a jsonb object; of repeated keys the last one counts. */
typedef struct MemberList
{
	JsonNode **members;
	int count;
	int size;
} MemberList;

/* What surrounds the events of a {"batch": ...} or {"Entries": ...}, for the context of each. */
typedef struct Wrapper
{
	MemberList context;
	const JsonFlaw *flaw;
} Wrapper;

typedef enum EnvelopeForm
{
	FORM_EVENTBRIDGE,
	FORM_CLOUDEVENTS,
	FORM_SEGMENT,
	FORM_NATIVE,
	FORM_ENTRY, /* of PutEvents; known by its place */
	FORM_BATCH, /* wraps others */
	FORM_ENTRIES
} EnvelopeForm;

/* An event on its way; the first thing that is wrong with it counts. */
typedef struct Mapping
{
	Event event;
	Reason reason;
	char detail[256];
	const JsonNode *properties; /* NULL: made of property_list */
	const JsonNode *context;	/* NULL: made of context_list */
	MemberList property_list;
	MemberList context_list;
	const JsonNode *consumed[MAX_CONSUMED]; /* keys that went into a column */
	int nconsumed;
} Mapping;

extern EnvelopeForm envelope_form(const JsonNode *object);
extern void
map_event(Mapping *m, const JsonNode *object, EnvelopeForm form, const Wrapper *wrapper);
extern void
mapping_refuse(Mapping *m, Reason reason, const char *format, ...) pg_attribute_printf(3, 4);
extern void member_list_add(MemberList *list, const JsonNode *member);
extern void member_list_add_all(MemberList *list, const JsonNode *object);

#endif

/*
 * envelope.h
 *		JSON events in four forms: EventBridge, CloudEvents 1.0, Segment and native.
 *
 * The form is recognised by its keys in that order; the mapping is in
 * doc/reference.md ("JSON forms").  {"batch": [...]} and {"Entries": [...]} are unpacked, and so
 * is an array.
 */
#ifndef BEHAVIOR_ENVELOPE_H
#define BEHAVIOR_ENVELOPE_H

#include "core/json.h"
#include "ingest/frame.h"

/*
 * Adds the event or events in "node", which was parsed from text[0..length), to the
 * frame.  "defaults" (NULL allowed) gives columns for events that lack them.
 */
extern void envelope_add(Frame *frame, const JsonNode *node, const char *text, size_t length,
						 const Event *defaults);

/*
 * Adds one event that was refused before, with what came with it then (dead_letter.sent_with: its
 * text, and the tree, NULL for none).  It stays one event: nothing in it is unpacked.
 */
extern void
envelope_add_again(Frame *frame, const JsonNode *node, const char *text, const JsonNode *with,
				   TextField sent_with, const EventOrigin *origin);

/* What dead letters keep of the defaults of behavior.ingest(), given as the text of an object. */
extern TextField envelope_sent_with_defaults(const char *defaults, size_t length);

/* How many events (and values that are none) envelope_add() would add. */
extern int64 envelope_count(const JsonNode *node);

/* Columns by name, as in a native event; raises 22023 when anything about them is wrong. */
extern void envelope_defaults(const JsonNode *node, Event *defaults);

/*
 * Adds the event at text[*offset] and advances *offset behind it and the white space that follows,
 * when it is one in native form with nothing unusual; false, and nothing is done, when it is not.
 */
extern bool envelope_add_native(Frame *frame, const char *text, size_t length, size_t *offset);

#endif

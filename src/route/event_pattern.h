/*
 * event_pattern.h
 *		EventBridge event patterns: one against an event, and many at once.
 *
 * The language and where it follows which behaviour is in doc/routing.md.
 */
#ifndef BEHAVIOR_EVENT_PATTERN_H
#define BEHAVIOR_EVENT_PATTERN_H

#include "postgres.h"

#include "utils/jsonb.h"

typedef struct EventPattern EventPattern;
typedef struct PatternSet PatternSet;

/*
 * Compiles a pattern into the current context, where all of it stays.  Raises 22023 with the
 * reason as the message and the path in the detail.
 */
extern EventPattern *event_pattern_compile(Jsonb *pattern);
extern bool event_pattern_matches(const EventPattern *pattern, const JsonbContainer *event);

/*
 * Many patterns, found by the paths and values that an event has.  "rule" is the caller's number
 * for the pattern, returned when it matches.  Lives in the current context at pattern_set_make(),
 * in a context of its own that pattern_set_free() deletes.
 */
extern PatternSet *pattern_set_make(void);
extern void pattern_set_add(PatternSet *set, Jsonb *pattern, int rule);
extern void pattern_set_free(PatternSet *set);

/*
 * The rules that match, ascending, each once; their number is returned.  The array is the set's and
 * valid until its next call.  Neither raises nor leaks.
 */
extern int pattern_set_match(PatternSet *set, const JsonbContainer *event, const int **rules);

/*
 * The same for a row of behavior.log (values and isnull by LOG_x - 1, log/log_row.h), without
 * making jsonb of it first: sees what behavior.event_json() shows.
 */
extern int
pattern_set_match_row(PatternSet *set, const Datum *values, const bool *isnull, const int **rules);

#endif

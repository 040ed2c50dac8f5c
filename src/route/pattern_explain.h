/*
 * pattern_explain.h
 *		Why an event matches a pattern, or does not.
 */
#ifndef BEHAVIOR_PATTERN_EXPLAIN_H
#define BEHAVIOR_PATTERN_EXPLAIN_H

#include "access/tupdesc.h"
#include "utils/tuplestore.h"

#include "route/event_pattern.h"

/* A row (path, matched, why) for each field of the pattern, whose view holds the event. */
extern void
pattern_explain(EventPattern *pattern, bool is_object, Tuplestorestate *rows, TupleDesc desc);

#endif

/*
 * pattern_cache.h
 *		Patterns that this backend has compiled.
 */
#ifndef BEHAVIOR_PATTERN_CACHE_H
#define BEHAVIOR_PATTERN_CACHE_H

#include "fmgr.h"
#include "route/event_pattern.h"

/* The pattern that is argument "arg" of the function called; valid until the next call. */
extern EventPattern *pattern_of_call(FunctionCallInfo fcinfo, int arg);

#endif

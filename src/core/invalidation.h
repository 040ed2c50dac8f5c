/*
 * invalidation.h
 *		One place that PostgreSQL tells of changed relations, for all modules that keep something.
 */
#ifndef BEHAVIOR_INVALIDATION_H
#define BEHAVIOR_INVALIDATION_H

#include "utils/inval.h"

/*
 * As CacheRegisterRelcacheCallback(function, 0): called once for each function in a backend, and
 * the function may come at any time that takes locks, with InvalidOid for everything.
 */
extern void invalidation_call(RelcacheCallbackFunction function);

#endif

/*
 * pattern_compile.h
 *		What the two halves of the pattern compiler share: objects and $or in pattern_compile.c,
 * lists of alternatives in pattern_operator.c.
 */
#ifndef BEHAVIOR_PATTERN_COMPILE_H
#define BEHAVIOR_PATTERN_COMPILE_H

#include "core/compat.h"
#include "route/pattern_internal.h"

typedef struct PatternCompiler
{
	EventPattern *pattern;
	MemoryContext context; /* of what stays */
	StringInfoData where;  /* the path in the pattern */
	int field_room;
} PatternCompiler;

/* Raises 22023 with this reason, and where it is in the detail. */
pg_noreturn extern void
pattern_refuse(PatternCompiler *c, const char *format, ...) pg_attribute_printf(2, 3);

/* The path goes down; the result is for pattern_leave(). */
extern int pattern_enter(PatternCompiler *c, const char *key, int length);
extern int pattern_enter_item(PatternCompiler *c, int index);
extern void pattern_leave(PatternCompiler *c, int back);

/* A list of alternatives; in the current context. */
extern void pattern_compile_list(PatternCompiler *c, JsonbContainer *array, MatcherList *list);

#endif

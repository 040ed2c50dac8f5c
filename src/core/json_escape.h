/*
 * json_escape.h
 *		The escapes of a JSON string.  Private to json_parse.c.
 */
#ifndef BEHAVIOR_JSON_ESCAPE_H
#define BEHAVIOR_JSON_ESCAPE_H

#include "core/json.h"

/*
 * Undoes the escapes of what stands between from and to, where every backslash has a
 * character behind it.  Writes at most as many bytes as it reads.  What is no
 * character becomes U+FFFD or nothing, and a flaw.  Returns where an escape sequence is invalid,
 * NULL when none is.
 */
extern const char *
json_unescape(const char *from, const char *to, char *out, int *length, const JsonFlaw **flaw);

#endif

/*
 * instant.h
 *		Points in time as JSON writes them, with nothing that raises.
 */
#ifndef BEHAVIOR_INSTANT_H
#define BEHAVIOR_INSTANT_H

#include "datatype/timestamp.h"

/*
 * Reads an RFC 3339 date and time: YYYY-MM-DD, then optionally T or a blank and
 * HH:MM[:SS[.fraction]], then optionally Z or an offset ±HH[[:]MM].  Without a time
 * midnight, without an offset UTC, whatever the session's TimeZone.  A leap
 * second counts as the first second of the next minute; fractions are
 * rounded to microseconds as PostgreSQL rounds them.  False when it is anything else, or a date
 * that does not exist, or the year 0.
 */
extern bool instant_parse(const char *text, int length, TimestampTz *result);

/* An integer: from 10^11 on epoch milliseconds, below that seconds.  False outside the years 1 to
 * 9999. */
extern bool instant_from_epoch(int64 value, TimestampTz *result);

#endif

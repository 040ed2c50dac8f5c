/*
 * event_json.h
 *		The form in which event patterns see an event.
 */
#ifndef BEHAVIOR_EVENT_JSON_H
#define BEHAVIOR_EVENT_JSON_H

#include "datatype/timestamp.h"

#define EVENT_VERSION	  "0"
#define EVENT_TIME_LENGTH 64

/* A time as RFC 3339 in UTC, without a fraction where it has none; returns the length of text,
 * which is terminated and has room for EVENT_TIME_LENGTH. */
extern int event_time_text(TimestampTz time, char *text);

#endif

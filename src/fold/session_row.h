/*
 * session_row.h
 *		Columns of behavior._session and behavior._session_next by number.
 *
 * What most queries read comes first and has a fixed width; then what an update changes, side by
 * side, since the log of an update leaves out what is the same before and behind.
 */
#ifndef BEHAVIOR_SESSION_ROW_H
#define BEHAVIOR_SESSION_ROW_H

#include "fold/session.h"

enum
{
	SESSION_ID = 1,
	SESSION_VISITOR_HASH,
	SESSION_STARTED_AT,
	SESSION_ENDED_AT,
	SESSION_EVENTS,
	SESSION_PAGE_VIEWS,
	SESSION_USER_ID,
	SESSION_EXIT_TYPE,
	SESSION_EXIT_PAGE,
	SESSION_MERGE,
	SESSION_SOURCE,
	SESSION_VISITOR,
	SESSION_ENTRY_TYPE,
	SESSION_ENTRY_PAGE,
	SESSION_ENTRY_PROPERTIES,
	SESSION_NATTS = SESSION_ENTRY_PROPERTIES
};

/* session_pack.c: column "merge" */
extern Size session_pack_bound(const SessionRun *run);
extern char *session_pack(char *to, SessionRun *run);
extern void session_unpack(SessionRun *run, Bytes packed);

#endif

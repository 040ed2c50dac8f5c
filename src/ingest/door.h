/*
 * door.h
 *		What the triggers of behavior.event and behavior.inbox have in common.
 *
 * Both views carry the same statement triggers (_door_begin, _door_end, _door_refuse: see
 * event.sql); each has a row trigger of its own, which starts with door_row_frame().
 */
#ifndef BEHAVIOR_DOOR_H
#define BEHAVIOR_DOOR_H

#include "commands/trigger.h"
#include "fmgr.h"

#include "core/catalog.h"
#include "ingest/frame.h"

/*
 * The frame of the query that fired this INSTEAD OF INSERT ROW trigger.  Raises 0A000 when the
 * trigger does not sit on the view "door": else anyone could attach it to a view of his own and
 * write to the log.
 */
extern Frame *door_row_frame(FunctionCallInfo fcinfo, BehaviorRel door);

/*
 * A tuple of NULLs for a row trigger to return where nobody looks at the row again.  A row trigger
 * must not return the tuple it was given: the executor would keep one for each row until the
 * statement ends.
 */
extern HeapTuple door_empty_tuple(Frame *frame, Relation view);

/* Does the row that fired this trigger come from a COPY into the view?  Nobody looks at such a row
 * again. */
extern bool door_in_copy(void);

/* For a server that runs for pg_upgrade: lets it restore the triggers of the doors. */
extern void door_allow_upgrade(void);

#endif

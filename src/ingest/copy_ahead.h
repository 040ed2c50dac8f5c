/*
 * copy_ahead.h
 *		Takes the lines that a COPY into a door has read already, without COPY's own parsing.
 *
 * Half of what a COPY costs is PostgreSQL's way from a buffer of text to the row that a trigger
 * gets: byte by byte to a line, byte by byte to fields, an input function for each, a tuple, the
 * trigger.  So the row trigger, once it has its row, goes on with the lines behind it that stand
 * complete in COPY's buffer, as long as they are plain, and moves COPY's position behind them.
 * A line with anything unusual in it is left to COPY, which takes it, or refuses it, as ever; and
 * so is every line of a COPY with unusual options.  What comes out is the same: copy_fields.c says
 * which texts it takes.
 *
 * COPY counts the rows that it gave to the trigger; the hook on ProcessUtility adds those that
 * were taken here to the command's row count.  Where it is not in place (the library was loaded by
 * this very COPY), nothing is taken ahead.
 */
#ifndef BEHAVIOR_COPY_AHEAD_H
#define BEHAVIOR_COPY_AHEAD_H

#include "commands/copyfrom_internal.h"

#include "ingest/frame.h"

/*
 * Takes the line line[0..length) into the frame, or leaves it: returns false and has done
 * nothing.  Memory of the current context is reset behind it.
 */
typedef bool (*CopyTakeLine)(Frame *frame, CopyFromState copy, const char *line, size_t length);

/* Called by a row trigger that is fired by a COPY (door_in_copy()), when its row is taken. */
extern void copy_ahead(Frame *frame, Relation view, CopyTakeLine take);

extern void copy_ahead_install(void);

/* copy_fields.c: a line of columns of behavior.event; and is a line nothing but one text? */
extern bool copy_take_event(Frame *frame, CopyFromState copy, const char *line, size_t length);
extern bool copy_line_is_plain(CopyFromState copy, const char *line, size_t length);

#endif

/*
 * copy_ahead.c
 *		The lines that stand in the buffer of a COPY into a door; see copy_ahead.h.
 *
 * Which COPY: the hook keeps a record of each COPY ... FROM that runs, the innermost first, and
 * the first row binds it to the state that COPY's own error callback carries.  Errors tell the
 * line as COPY does, since its line number and its line are kept up to date.
 *
 * A line that turns out to be COPY's costs the parsing up to that place: where most lines do, none
 * is tried any more.
 */
#include "postgres.h"

#include "catalog/pg_trigger.h"
#include "commands/progress.h"
#include "miscadmin.h"
#include "utils/backend_progress.h"
#include "utils/backend_status.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "core/compat.h"
#include "core/guc.h"
#include "core/utility.h"
#include "ingest/copy_ahead.h"
#include "ingest/frame_internal.h"

#define LINES_LEFT_AT_LEAST 100 /* before a COPY is given up */

/* A COPY ... FROM that runs. */
typedef struct RunningCopy
{
	struct RunningCopy *outer;
	CopyFromState state; /* NULL until a row of it came to a door */
	bool usable;
	uint64 taken; /* rows that COPY itself has not seen */
	uint64 left;  /* lines that were looked at and left to COPY */
} RunningCopy;

static RunningCopy *innermost = NULL;
static ProcessUtility_hook_type previous_utility_hook = NULL;

/* Is ours the only trigger that sees the rows? */
static bool
only_row_trigger(const TriggerDesc *triggers)
{
	int count = 0;

	for (int i = 0; i < triggers->numtriggers; i++)
	{
		int16 type = triggers->triggers[i].tgtype;

		if (TRIGGER_FOR_ROW(type) && TRIGGER_FOR_INSERT(type))
			count++;
	}
	return count == 1;
}

/* Do the options of the COPY leave lines that can be taken without it? */
static bool
copy_is_plain(CopyFromState copy, Relation view)
{
	const CopyFormatOptions *options = &copy->opts;
	ListCell *cell;

	if (!behavior_copy_ahead || options->binary || options->convert_selectively ||
		COPY_HAS_DEFAULT_MARKER(options) || copy->whereClause != NULL || copy->num_defaults > 0 ||
		copy->eol_type != EOL_NL ||
		(options->csv_mode && (options->escape[0] != options->quote[0] ||
							   options->quote[0] == '\n' || options->quote[0] == '\r')) ||
		(!options->csv_mode && strstr(options->null_print, "\\.") != NULL) ||
		!only_row_trigger(view->trigdesc))
		return false;
	foreach (cell, copy->attnumlist)
	{
		int column = lfirst_int(cell) - 1;

		if (options->force_notnull_flags[column] || options->force_null_flags[column])
			return false;
	}
	return true;
}

/* COPY shows how many rows it has given to the trigger: adds the others. */
static void
show_progress(uint64 taken)
{
	if (taken > 0 && MyBEEntry != NULL && MyBEEntry->st_progress_command == PROGRESS_COMMAND_COPY)
		pgstat_progress_update_param(PROGRESS_COPY_TUPLES_PROCESSED,
									 MyBEEntry->st_progress_param[PROGRESS_COPY_TUPLES_PROCESSED] +
										 taken);
}

void
copy_ahead(Frame *frame, Relation view, CopyTakeLine take)
{
	RunningCopy *running = innermost;
	CopyFromState copy = error_context_stack->arg;
	StringInfoData line_buf;
	MemoryContext old;

	if (running == NULL || RelationGetRelid(copy->rel) != RelationGetRelid(view))
		return;
	if (running->state == NULL)
	{
		running->state = copy;
		running->usable = copy_is_plain(copy, view);
	}
	if (running->state != copy)
		return;
	show_progress(running->taken);
	if (!running->usable)
		return;

	if (frame->line_context == NULL)
		frame->line_context =
			AllocSetContextCreate(frame->context, "behavior line", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(frame->line_context);
	line_buf = copy->line_buf;
	copy->line_buf_valid = true;
	while (INPUT_BUF_BYTES(copy) > 0)
	{
		char *line = copy->input_buf + copy->input_buf_index;
		char *end = memchr(line, '\n', INPUT_BUF_BYTES(copy));
		bool taken;

		if (end == NULL)
			break;

		/* What an error in here shows as its context. */
		*end = '\0';
		copy->line_buf.data = line;
		copy->line_buf.len = end - line;
		copy->cur_lineno++;
		CHECK_FOR_INTERRUPTS();

		taken = take(frame, copy, line, end - line);
		*end = '\n';
		if (!taken)
		{
			copy->cur_lineno--;
			running->left++;
			running->usable =
				running->left < LINES_LEFT_AT_LEAST || running->left <= running->taken;
			break;
		}
		copy->input_buf_index = end + 1 - copy->input_buf;
		running->taken++;
		MemoryContextReset(frame->line_context);
	}
	copy->line_buf = line_buf;
	copy->line_buf_valid = false;
	MemoryContextSwitchTo(old);
	MemoryContextReset(frame->line_context);
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
				DestReceiver *dest, QueryCompletion *completion)
{
	RunningCopy running = {0};

	if (!IsA(pstmt->utilityStmt, CopyStmt) || !((CopyStmt *) pstmt->utilityStmt)->is_from)
	{
		utility_go_on(previous_utility_hook, pstmt, query, read_only_tree, context, params,
					  environment, dest, completion);
		return;
	}

	running.outer = innermost;
	innermost = &running;
	PG_TRY();
	{
		utility_go_on(previous_utility_hook, pstmt, query, read_only_tree, context, params,
					  environment, dest, completion);
	}
	PG_FINALLY();
	{
		innermost = running.outer;
	}
	PG_END_TRY();
	if (completion != NULL && completion->commandTag == CMDTAG_COPY)
		completion->nprocessed += running.taken;
}

void
copy_ahead_install(void)
{
	previous_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}

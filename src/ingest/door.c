/*
 * door.c
 *		The statement triggers of the views that take events.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "commands/copy.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "core/compat.h"
#include "ingest/door.h"
#include "ingest/frame_internal.h"

PG_FUNCTION_INFO_V1(behavior__door_begin);
PG_FUNCTION_INFO_V1(behavior__door_end);
PG_FUNCTION_INFO_V1(behavior__door_refuse);

pg_noreturn static void
raise_misused(FunctionCallInfo fcinfo)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("trigger function %u may only be fired by behavior.event and behavior.inbox",
					fcinfo->flinfo->fn_oid)));
}

/*
 * The call's trigger data, after checking that it is fired by one of the doors and for "event".
 */
static TriggerData *
door_trigger(FunctionCallInfo fcinfo, TriggerEvent event)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Oid relid;

	if (!CALLED_AS_TRIGGER(fcinfo))
		raise_misused(fcinfo);
	relid = RelationGetRelid(trigger->tg_relation);
	if ((relid != behavior_relid(REL_EVENT) && relid != behavior_relid(REL_INBOX)) ||
		(trigger->tg_event &
		 (TRIGGER_EVENT_ROW | TRIGGER_EVENT_TIMINGMASK | TRIGGER_EVENT_OPMASK)) != event)
		raise_misused(fcinfo);
	return trigger;
}

Frame *
door_row_frame(FunctionCallInfo fcinfo, BehaviorRel door)
{
	TriggerData *trigger;
	Frame *frame;

	trigger =
		door_trigger(fcinfo, TRIGGER_EVENT_INSERT | TRIGGER_EVENT_ROW | TRIGGER_EVENT_INSTEAD);
	if (RelationGetRelid(trigger->tg_relation) != behavior_relid(door))
		raise_misused(fcinfo);
	frame = frame_of_query(fcinfo->flinfo->fn_mcxt, door);
	if (frame == NULL)
		elog(ERROR, "a row reached %s outside a statement",
			 RelationGetRelationName(trigger->tg_relation));
	return frame;
}

HeapTuple
door_empty_tuple(Frame *frame, Relation view)
{
	if (frame->empty_tuple == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(frame->context);
		TupleDesc desc = RelationGetDescr(view);
		Datum *values = palloc0(desc->natts * sizeof(Datum));
		bool *isnull = palloc(desc->natts * sizeof(bool));

		memset(isnull, true, desc->natts * sizeof(bool));
		frame->empty_tuple = heap_form_tuple(desc, values, isnull);
		MemoryContextSwitchTo(old);
	}
	return frame->empty_tuple;
}

/*
 * COPY's own error callback is then the innermost, also where a function runs the COPY; a statement
 * that a row of a COPY sets off has callbacks of its own in front of it.
 */
bool
door_in_copy(void)
{
	return error_context_stack != NULL && error_context_stack->callback == CopyFromErrorCallback;
}

/*
 * BEFORE INSERT STATEMENT.
 */
Datum
behavior__door_begin(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = door_trigger(fcinfo, TRIGGER_EVENT_INSERT | TRIGGER_EVENT_BEFORE);

	(void) frame_push_query(fcinfo->flinfo->fn_mcxt,
							RelationGetRelid(trigger->tg_relation) == behavior_relid(REL_EVENT)
								? REL_EVENT
								: REL_INBOX);
	PG_RETURN_POINTER(NULL);
}

/*
 * AFTER INSERT STATEMENT: what the statement sent goes into the log.
 */
Datum
behavior__door_end(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = door_trigger(fcinfo, TRIGGER_EVENT_INSERT | TRIGGER_EVENT_AFTER);
	BehaviorRel door =
		RelationGetRelid(trigger->tg_relation) == behavior_relid(REL_EVENT) ? REL_EVENT : REL_INBOX;
	Frame *frame = frame_of_query(fcinfo->flinfo->fn_mcxt, door);

	if (frame == NULL)
		elog(ERROR, "a statement into %s ended that never began",
			 RelationGetRelationName(trigger->tg_relation));
	frame_finish(frame);
	PG_RETURN_POINTER(NULL);
}

/*
 * BEFORE UPDATE OR DELETE STATEMENT, so that a statement that matches no row is refused as well,
 * and INSTEAD OF UPDATE OR DELETE ROW, without which PostgreSQL would write through the view.
 */
Datum
behavior__door_refuse(PG_FUNCTION_ARGS)
{
	TriggerData *trigger;

	if (!CALLED_AS_TRIGGER(fcinfo))
		raise_misused(fcinfo);
	trigger = (TriggerData *) fcinfo->context;
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("cannot %s behavior.%s",
						   TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ? "delete from" : "update",
						   RelationGetRelationName(trigger->tg_relation)),
					errdetail("Events are facts: they are only added."),
					errhint("Send another event that corrects it.")));
}

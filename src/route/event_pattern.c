/*
 * event_pattern.c
 *		One event pattern, and the SQL functions over it.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "route/pattern_cache.h"
#include "route/pattern_explain.h"
#include "route/pattern_internal.h"

PG_FUNCTION_INFO_V1(behavior_event_matches);
PG_FUNCTION_INFO_V1(behavior_event_matched);
PG_FUNCTION_INFO_V1(behavior_explain_match);

EventPattern *
event_pattern_compile(Jsonb *source)
{
	EventPattern *pattern = palloc0(sizeof(EventPattern));

	pattern->paths = path_table_make();
	pattern_compile_into(pattern, source);
	pattern->view = event_view_make(pattern->paths);
	return pattern;
}

bool
event_pattern_matches(const EventPattern *pattern, const JsonbContainer *event)
{
	if (!JsonContainerIsObject(event))
		return false;
	event_view_begin(pattern->view);
	event_view_object(pattern->view, pattern->paths->nodes[0], event);
	for (int i = 0; i < pattern->count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (rule_matches(&pattern->rules[i], pattern->view))
			return true;
	}
	return false;
}

static Datum
call_matches(FunctionCallInfo fcinfo, int pattern_arg, int event_arg)
{
	EventPattern *pattern = pattern_of_call(fcinfo, pattern_arg);
	Jsonb *event = PG_GETARG_JSONB_P(event_arg);
	bool result = event_pattern_matches(pattern, &event->root);

	if (pattern->view->too_deep)
		ereport(ERROR, (errcode(ERRCODE_STATEMENT_TOO_COMPLEX),
						errmsg("event is nested too deeply to be matched"),
						errhint("Increase the setting \"max_stack_depth\".")));
	PG_FREE_IF_COPY(event, event_arg);
	PG_RETURN_BOOL(result);
}

Datum
behavior_event_matches(PG_FUNCTION_ARGS)
{
	return call_matches(fcinfo, 0, 1);
}

/* The operator: event @~ pattern. */
Datum
behavior_event_matched(PG_FUNCTION_ARGS)
{
	return call_matches(fcinfo, 1, 0);
}

Datum
behavior_explain_match(PG_FUNCTION_ARGS)
{
	Jsonb *source = PG_GETARG_JSONB_P(0);
	Jsonb *event = PG_GETARG_JSONB_P(1);
	EventPattern *pattern = event_pattern_compile(source);
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	event_view_begin(pattern->view);
	if (JB_ROOT_IS_OBJECT(event))
		event_view_object(pattern->view, pattern->paths->nodes[0], &event->root);
	pattern_explain(pattern, JB_ROOT_IS_OBJECT(event), result->setResult, result->setDesc);
	return (Datum) 0;
}

/*
 * utility.h
 *		The end of a hook on ProcessUtility: whoever was there before, else PostgreSQL itself.
 */
#ifndef BEHAVIOR_UTILITY_H
#define BEHAVIOR_UTILITY_H

#include "tcop/utility.h"

static inline void
utility_go_on(ProcessUtility_hook_type previous, PlannedStmt *pstmt, const char *query,
			  bool read_only_tree, ProcessUtilityContext context, ParamListInfo params,
			  QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion)
{
	(previous ? previous : standard_ProcessUtility)(pstmt, query, read_only_tree, context, params,
													environment, dest, completion);
}

#endif

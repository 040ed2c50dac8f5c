/*
 * start.c
 *		Starts workers that come when there is work.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/memutils.h"

#include "worker/worker.h"

bool
worker_start_ready(WorkerStart *start)
{
	BgwHandleStatus status;
	pid_t pid;

	if (start->handle == NULL)
		return true;
	status = GetBackgroundWorkerPid(start->handle, &pid);
	if (status == BGWH_NOT_YET_STARTED)
		return false;
	if (status == BGWH_STOPPED)
		(void) worker_unclaim(&start->ticket);
	pfree(start->handle);
	start->handle = NULL;
	return true;
}

void
worker_start(WorkerStart *start, int64 reserved)
{
	MemoryContext old_context = MemoryContextSwitchTo(TopMemoryContext);
	bool started = worker_register(start->kind, MyDatabaseId, start->function, start->name,
								   reserved, &start->ticket, &start->handle);

	MemoryContextSwitchTo(old_context);
	if (!started)
	{
		start->handle = NULL;
		if (!start->warned)
			ereport(WARNING,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("could not start %s", start->label),
					 errdetail("All %d background worker slots are in use; until one is free, %s.",
							   max_worker_processes, start->otherwise),
					 errhint("Increase max_worker_processes.")));
	}
	start->warned = !started;
}

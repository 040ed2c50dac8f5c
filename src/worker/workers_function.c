/*
 * workers_function.c
 *		behavior._workers(): the background processes of this cluster.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "core/compat.h"
#include "worker/shared.h"

PG_FUNCTION_INFO_V1(behavior__workers);

static const char *const kinds[] = {
	[WORKER_DATABASE] = "database",
	[WORKER_MAINTENANCE] = "maintenance",
	[WORKER_DELIVERY] = "delivery",
};

static const char *const states[] = {
	[WORKER_FREE] = "free",		  [WORKER_CLAIMED] = "starting", [WORKER_ATTACHED] = "probing",
	[WORKER_SERVING] = "serving", [WORKER_ENDED] = "ended",
};

static void
put_worker(ReturnSetInfo *result, const char *kind, pid_t pid, Oid dboid, const char *state)
{
	Datum values[4];
	bool nulls[4] = {0};

	values[0] = CStringGetTextDatum(kind);
	values[1] = Int32GetDatum(pid);
	nulls[1] = pid == 0;
	values[2] = ObjectIdGetDatum(dboid);
	nulls[2] = !OidIsValid(dboid);
	values[3] = CStringGetTextDatum(state);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

Datum
behavior__workers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	WorkerEntry *entries;
	int nentries;
	pid_t launcher;

	InitMaterializedSRF(fcinfo, 0);
	if (worker_shared == NULL)
		return (Datum) 0;

	/* Copied first: nothing is allocated while the lock is held. */
	nentries = worker_shared->nentries;
	entries = palloc(sizeof(WorkerEntry) * nentries);
	LWLockAcquire(worker_shared->lock, LW_SHARED);
	memcpy(entries, worker_shared->entries, sizeof(WorkerEntry) * nentries);
	launcher = worker_shared->launcher_pid;
	LWLockRelease(worker_shared->lock);

	if (launcher != 0)
		put_worker(result, "launcher", launcher, InvalidOid, "serving");
	for (int i = 0; i < nentries; i++)
	{
		if (entries[i].state != WORKER_FREE)
			put_worker(result, kinds[entries[i].kind], entries[i].pid, entries[i].dboid,
					   states[entries[i].state]);
	}
	return (Datum) 0;
}

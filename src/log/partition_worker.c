/*
 * partition_worker.c
 *		The short dynamic worker that makes a partition for a waiting sender.
 *
 * In a transaction of its own, so that the sender's takes no DDL locks: a
 * partition made there would be locked until it commits, deadlock with
 * senders that wait for each other's keys, and fail where the sender's
 * session is reading the log.  The worker never queues for a lock, so that a sender
 * that holds one unawares costs the worker's patience and no deadlock.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "core/catalog.h"
#include "log/partition.h"
#include "log/partition_make.h"

#define WAIT_FOR_WORKER 5000 /* milliseconds that a sender waits at most */
#define LOCK_PATIENCE	500	 /* milliseconds that the worker tries to get its locks */

/* What to make; travels in bgw_extra. */
typedef struct PartitionRequest
{
	TimestampTz at;
	int days_ahead;
} PartitionRequest;

PGDLLEXPORT void behavior_partition_worker_main(Datum arg);

/* Waits until the worker has ended; false when it takes too long. */
static bool
wait_for_end(BackgroundWorkerHandle *handle)
{
	TimestampTz deadline = GetCurrentTimestamp() + (int64) WAIT_FOR_WORKER * 1000;

	for (;;)
	{
		pid_t pid;
		BgwHandleStatus status;
		long left;

		CHECK_FOR_INTERRUPTS();
		status = GetBackgroundWorkerPid(handle, &pid);
		if (status == BGWH_STOPPED || status == BGWH_POSTMASTER_DIED)
			return status == BGWH_STOPPED;
		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
		if (left <= 0)
		{
			TerminateBackgroundWorker(handle);
			return false;
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, left,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

bool
partition_request(TimestampTz at, int days_ahead)
{
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;
	PartitionRequest request = {at, days_ahead};

	StaticAssertStmt(sizeof(PartitionRequest) <= BGW_EXTRALEN, "request must fit bgw_extra");
	if (!IsUnderPostmaster)
		return false;

	memset(&worker, 0, sizeof(worker));
	snprintf(worker.bgw_name, BGW_MAXLEN, "behavior partition maker");
	snprintf(worker.bgw_type, BGW_MAXLEN, "behavior partition maker");
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name), "behavior");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name),
			 "behavior_partition_worker_main");
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId);
	worker.bgw_notify_pid = MyProcPid;
	memcpy(worker.bgw_extra, &request, sizeof(request));
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		return false;
	return wait_for_end(handle);
}

void
behavior_partition_worker_main(Datum arg)
{
	PartitionRequest request;

	memcpy(&request, MyBgworkerEntry->bgw_extra, sizeof(request));
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);

	/* Whatever ALTER DATABASE or ALTER ROLE say. */
	SetConfigOption("default_transaction_isolation", "read committed", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("statement_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("lock_timeout", "500", PGC_SUSET, PGC_S_OVERRIDE);

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, "making a partition of behavior.log");

	/* The extension may not be committed yet, or be gone again: then the sender sees to it. */
	if (OidIsValid(behavior_schema_oid()) && OidIsValid(behavior_extension_oid()) &&
		partition_lock(LOCK_PATIENCE))
		partition_make(request.at, request.days_ahead);

	PopActiveSnapshot();
	CommitTransactionCommand();
	proc_exit(0);
}

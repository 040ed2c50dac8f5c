/*
 * transaction.c
 *		Steps of work: those that each commit by themselves, and those that may fail.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "core/transaction.h"

static void
pin_characteristics(void)
{
	XactIsoLevel = XACT_READ_COMMITTED;
	XactReadOnly = false;
	XactDeferrable = false;
}

void
start_transaction(void)
{
	StartTransactionCommand();
	pin_characteristics();
	/* A worker has no portal: without a snapshot SPI refuses to run anything. */
	PushActiveSnapshot(GetTransactionSnapshot());
}

void
finish_transaction(void)
{
	while (ActiveSnapshotSet())
		PopActiveSnapshot();
	CommitTransactionCommand();
}

void
next_transaction(void)
{
	if (SPI_inside_nonatomic_context())
	{
		SPI_commit();
		pin_characteristics();
	}
	else
	{
		finish_transaction();
		start_transaction();
	}
}

ErrorData *
try_step(StepCallback step, void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		step(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

ErrorData *
guard_step(StepCallback step, void *arg)
{
	ErrorData *error = try_step(step, arg);

	if (error != NULL && error_ends_statement(error->sqlerrcode))
		ReThrowError(error);
	return error;
}

bool
error_ends_statement(int sqlstate)
{
	return sqlstate == ERRCODE_QUERY_CANCELED || sqlstate == ERRCODE_ADMIN_SHUTDOWN ||
		   sqlstate == ERRCODE_CRASH_SHUTDOWN || sqlstate == ERRCODE_IDLE_SESSION_TIMEOUT;
}

void
warn_of_error(const ErrorData *error, const char *hint, const char *what, ...)
{
	StringInfoData buf;
	va_list args;
	int needed;

	initStringInfo(&buf);
	do
	{
		va_start(args, what);
		needed = appendStringInfoVA(&buf, what, args);
		va_end(args);
		if (needed > 0)
			enlargeStringInfo(&buf, needed);
	} while (needed > 0);
	ereport(WARNING, (errcode(error->sqlerrcode), errmsg("%s: %s", buf.data, error->message),
					  error->detail ? errdetail("%s", error->detail) : 0,
					  error->context ? errcontext("%s", error->context) : 0,
					  hint ? errhint("%s", hint) : 0));
	pfree(buf.data);
}

/*
 * worker.h
 *		Background processes: the launcher, one worker for each database, maintenance, delivery.
 */
#ifndef BEHAVIOR_WORKER_H
#define BEHAVIOR_WORKER_H

#include "core/compat.h"
#include "worker/shared.h"

#define LAUNCHER_TYPE	 "behavior launcher"
#define WORKER_TYPE		 "behavior worker"
#define MAINTENANCE_TYPE "behavior maintenance"
#define DELIVERY_TYPE	 "behavior delivery"

/* At preload: asks for shared memory, installs the hooks, registers the launcher. */
extern void worker_install(void);
extern void worker_hooks_install(void);

/* Main functions of the processes. */
extern PGDLLEXPORT void behavior_launcher_main(Datum arg);
extern PGDLLEXPORT void behavior_worker_main(Datum arg);
extern PGDLLEXPORT void behavior_maintenance_main(Datum arg);
extern PGDLLEXPORT void behavior_delivery_main(Datum arg);

/*
 * What the processes of a database have in common (process.c).
 *
 * process_start() attaches to the entry, connects and pins the settings; it
 * does not return when the process is not wanted.
 */
extern void process_start(Oid dboid, const char *application_name);

/* True once SIGTERM has come; between turns, a process then ends with process_leave(). */
extern bool process_stop_requested(void);
pg_noreturn extern void process_leave(WorkerOutcome outcome);

/* Waits, with nothing open, for the latch or "timeout" ms; reloads settings.  False: time to leave.
 */
extern bool process_wait(long timeout);

/* Is the extension (still) here?  With no transaction open. */
extern bool process_extension_there(void);

/*
 * Starting workers that come when there is work (start.c), by the database's worker: one at a time,
 * the next when that one has come and there still is work.
 *
 * worker_start_ready(): is none on its way?  Ask it before counting: it gives back the entry of one
 * that never came.  worker_start(): starts one; when there is no slot for it, a WARNING the first
 * time.  reserved: the subscription that a delivery worker is for, else 0.
 */
typedef struct WorkerStart
{
	WorkerKind kind;
	const char *function;  /* its main function */
	const char *name;	   /* its type, for pg_stat_activity */
	const char *label;	   /* in messages */
	const char *otherwise; /* what it means that there is none */

	WorkerTicket ticket;
	BackgroundWorkerHandle *handle; /* of the one on its way, NULL: none is */
	bool warned;
} WorkerStart;

extern bool worker_start_ready(WorkerStart *start);
extern void worker_start(WorkerStart *start, int64 reserved);

typedef enum TurnResult
{
	TURN_DONE,
	TURN_FAILED,  /* an error was logged */
	TURN_SKIPPED, /* somebody is changing the extension, or a restore is under way */
	TURN_GONE	  /* there is no extension (any more) */
} TurnResult;

/*
 * Runs a turn: holds the extension against DROP and ALTER EXTENSION, calls
 * back with no transaction open, and catches what it raises.  An error that comes
 * because the extension has gone is not logged.
 */
typedef void (*TurnCallback)(void *arg);
extern TurnResult process_turn(TurnCallback callback, void *arg, const char *activity);

/*
 * Ends a job of a turn that raised, in PG_CATCH(): rolls back, logs the error, and returns its
 * message in "context".  The turn should end soon: what held the extension is gone.  Raises again
 * when that is gone as well.
 */
extern char *process_abandon_job(MemoryContext context);

#endif

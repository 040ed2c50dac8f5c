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

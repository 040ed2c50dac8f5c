/*
 * transaction.h
 *		Steps of work: those that each commit by themselves, and those that may fail.
 */
#ifndef BEHAVIOR_TRANSACTION_H
#define BEHAVIOR_TRANSACTION_H

/*
 * Commits, and starts the next transaction: READ COMMITTED and read write, whatever the
 * defaults say.  In a procedure at top level (an open non-atomic SPI connection)
 * and in workers alike.  In a
 * procedure no snapshot of the caller's may be active.
 */
extern void next_transaction(void);

/*
 * Starts a transaction, READ COMMITTED and read write, with a snapshot for SPI to stand on; and
 * commits it.  In workers.
 */
extern void start_transaction(void);
extern void finish_transaction(void);

/*
 * Runs a step in a subtransaction, with the caller's memory context as the current one.  NULL when
 * it went well; else what it did is undone, and the error returned, in the caller's context.
 *
 * guard_step() raises errors that are not the step's (error_ends_statement()) again; try_step()
 * leaves that to a caller who has something to undo first.
 */
typedef void (*StepCallback)(void *arg);
extern ErrorData *try_step(StepCallback step, void *arg);
extern ErrorData *guard_step(StepCallback step, void *arg);

/* True for errors that end the statement, or the process, whoever they hit: cancel, shutdown. */
extern bool error_ends_statement(int sqlstate);

/* A WARNING "what: message", with the error's detail and context; hint: NULL for none. */
extern void warn_of_error(const ErrorData *error, const char *hint, const char *what, ...)
	pg_attribute_printf(3, 4);

#endif

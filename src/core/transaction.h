/*
 * transaction.h
 *		Steps of work that each commit by themselves.
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

#endif

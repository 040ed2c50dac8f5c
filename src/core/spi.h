/*
 * spi.h
 *		Running SQL as somebody, in a pinned environment.
 *
 * Everything that the extension runs through SPI, its own statements and
 * users' expressions alike, runs between secure_begin() and secure_end(): as a
 * given role, as a security-restricted operation, with search_path
 * "pg_catalog, pg_temp" and the settings that change what an expression
 * returns set to their defaults, whatever the session, ALTER ROLE or ALTER
 * DATABASE say.
 */
#ifndef BEHAVIOR_SPI_H
#define BEHAVIOR_SPI_H

#include "executor/spi.h"

typedef struct SecureContext
{
	Oid saved_user;
	int saved_context;
	int guc_level;
} SecureContext;

/* Sets what secure_begin() does, for as long as the current level of NewGUCNestLevel(). */
extern void pin_settings(void);

/* Becomes "role".  An error undoes it with the (sub)transaction. */
extern void secure_begin(SecureContext *secure, Oid role);
extern void secure_end(SecureContext *secure);

/*
 * Runs one statement with up to nargs parameters inside an open SPI
 * connection, and raises XX000 unless SPI returns "expected" (SPI_OK_...).
 * The plan is kept for the session under the statement's text: pass string
 * constants or text that is built once.  Returns SPI_processed.
 */
extern uint64 spi_exec(const char *sql, int expected, bool read_only, int nargs, const Oid *types,
					   const Datum *values, const char *nulls);

#endif

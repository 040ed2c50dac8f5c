/*
 * behavior.c
 *		Customer behaviour analytics inside PostgreSQL: where the library starts.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "core/compat.h"
#include "core/guc.h"
#include "ingest/copy_ahead.h"
#include "ingest/door.h"
#include "worker/worker.h"

PG_MODULE_MAGIC;

void _PG_init(void);

void
_PG_init(void)
{
	/* Ends with MarkGUCPrefixReserved(). */
	define_settings();

	/* pg_upgrade moves the files: nothing of ours may run. */
	if (IsBinaryUpgrade)
	{
		door_allow_upgrade();
		return;
	}
	copy_ahead_install();

	/* Loaded by a session: everything works through CALL behavior.tick(). */
	if (!process_shared_preload_libraries_in_progress)
		return;

	worker_install();
}

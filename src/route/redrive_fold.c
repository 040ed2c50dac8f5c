/*
 * redrive_fold.c
 *		behavior.redrive() of stage fold: dead letters are folded into their rollup again.
 *
 * An event that a rollup could not evaluate has a row in behavior._set_aside, for the state that
 * is read and, while another one is built beside it, for that one (fold/rollup.h).  Under the
 * rollup's locks, which keep folds and builds away, the row goes and the event is merged into
 * that state alone; on which the rollup's progress has no bearing, since only what was folded is
 * set aside.  An event that fails again is set aside again, with a new dead letter.
 *
 * What has no row counts already: the rollup was rebuilt, or got another query, that it is good
 * for.  What a build has not reached yet is left to it.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "core/catalog.h"
#include "core/errors.h"
#include "core/spi.h"
#include "core/transaction.h"
#include "fold/rollup.h"
#include "route/letter_events.h"
#include "route/redrive.h"

/* Runs a statement about an event and a list of set-aside ones; returns how many rows it found. */
static int64
set_aside(const char *sql, int expected, const char *set, const RedriveLetter *letter)
{
	Oid types[] = {TEXTOID, INT8OID, TEXTOID, TEXTOID};
	Datum values[] = {CStringGetTextDatum(set), Int64GetDatum(letter->batch_id),
					  CStringGetTextDatum(letter->source), CStringGetTextDatum(letter->event_id)};

	return spi_exec(sql, expected, false, lengthof(types), types, values, NULL);
}

/* Takes the event off a list of set-aside ones; false when it was not there. */
static bool
take_off(const char *set, const RedriveLetter *letter)
{
	return set_aside("DELETE FROM behavior._set_aside"
					 " WHERE projection = $1 AND batch_id = $2 AND source = $3 AND event_id = $4",
					 SPI_OK_DELETE, set, letter) > 0;
}

static bool
is_on(const char *set, const RedriveLetter *letter)
{
	return set_aside("SELECT FROM behavior._set_aside"
					 " WHERE projection = $1 AND batch_id = $2 AND source = $3 AND event_id = $4",
					 SPI_OK_SELECT, set, letter) > 0;
}

/* Folds those events that were on a list into a state. */
static void
fold_events(const RollupRow *row, Oid definition, Oid storage, bool beside,
			const LetterEvent *events, const bool *wanted, int n)
{
	Relation log = table_open(behavior_relid(REL_LOG), AccessShareLock);
	Tuplestorestate *store = rollup_events(work_mem);
	int64 count = 0;

	for (int i = 0; i < n; i++)
	{
		if (!wanted[i])
			continue;
		tuplestore_puttuple(store, events[i].row);
		count++;
	}
	rollup_fold_again(row, definition, storage, store, RelationGetDescr(log), count, beside);
	tuplestore_end(store);
	table_close(log, AccessShareLock);
}

/* Counts of set-aside events that are shown. */
static void
count_down(const char *name, int64 count)
{
	Oid types[] = {TEXTOID, INT8OID};
	Datum values[] = {CStringGetTextDatum(name), Int64GetDatum(count)};

	spi_exec("UPDATE behavior._projection"
			 " SET events_set_aside = GREATEST(events_set_aside - $2, 0) WHERE name = $1",
			 SPI_OK_UPDATE, false, lengthof(types), types, values, NULL);
}

/* The letters of one rollup that is there, under its locks. */
static void
redrive_rows(const RollupRow *row, RedriveLetter **letters, int n)
{
	LetterEvent *events = letter_events_of(letters, n);
	const char *set = row->name;
	const char *set_beside = psprintf("%s\001", row->name);
	bool builds = !row->built || OidIsValid(row->next_storage);
	bool *folded = palloc0(sizeof(bool) * n);
	bool *beside = palloc0(sizeof(bool) * n);
	int64 taken = 0;
	SecureContext secure;

	secure_begin(&secure, behavior_owner());
	SPI_connect();
	for (int i = 0; i < n; i++)
	{
		if (events[i].row == NULL)
			continue;
		folded[i] = take_off(set, letters[i]);
		taken += folded[i];
		beside[i] = builds && take_off(set_beside, letters[i]);
		letters[i]->status = folded[i] || beside[i] ? "folded" : "duplicate";
		/* The list of a rollup that nobody reads yet only names letters: the build comes there. */
		if (!row->built && folded[i] && !beside[i])
			letters[i]->status = "queued";
	}
	if (row->built && taken > 0)
		count_down(row->name, taken);
	SPI_finish();
	secure_end(&secure);

	if (row->built)
		fold_events(row, row->definition, row->storage, false, events, folded, n);
	if (builds)
		fold_events(row, OidIsValid(row->next_storage) ? row->next_definition : row->definition,
					OidIsValid(row->next_storage) ? row->next_storage : row->storage, true, events,
					beside, n);

	secure_begin(&secure, behavior_owner());
	SPI_connect();
	for (int i = 0; i < n; i++)
	{
		if (events[i].row == NULL)
		{
			letters[i]->status = REDRIVE_SKIPPED;
			letters[i]->failed_reason = "event_gone";
		}
		else if ((folded[i] && is_on(set, letters[i])) ||
				 (beside[i] && is_on(set_beside, letters[i])))
		{
			letters[i]->status = "dead_letter";
			letters[i]->failed_reason = reason_name(REASON_EVALUATION_ERROR);
		}
	}
	SPI_finish();
	secure_end(&secure);
}

static void
skip_all(RedriveLetter **letters, int n, const char *reason)
{
	for (int i = 0; i < n; i++)
	{
		letters[i]->status = REDRIVE_SKIPPED;
		letters[i]->failed_reason = reason;
	}
}

/* The letters of one rollup. */
typedef struct RollupLetters
{
	RedriveLetter **letters;
	int n;
} RollupLetters;

/* StepCallback */
static void
redrive_step(void *arg)
{
	const RollupLetters *of = arg;
	const char *name = of->letters[0]->projection;
	bool locked = name != NULL && rollup_lock(name, true);
	RollupRow *row = name != NULL ? rollup_row_by_name(name, GetLatestSnapshot()) : NULL;

	if (row == NULL || !OidIsValid(relation_owner(row->relation)))
		skip_all(of->letters, of->n, "no_rollup");
	else if (!locked)
		skip_all(of->letters, of->n, "busy");
	else
		redrive_rows(row, of->letters, of->n);
}

/*
 * What no event is to blame for (a dropped function, a revoked privilege) leaves the letters of
 * that rollup as they are.
 */
static void
redrive_rollup(RedriveLetter **letters, int n)
{
	RollupLetters of = {letters, n};
	ErrorData *error = guard_step(redrive_step, &of);

	if (error == NULL)
		return;
	warn_of_error(error, "Their dead letters are left as they are: call behavior.redrive() again.",
				  "events could not be folded into rollup \"%s\" again", letters[0]->projection);
	skip_all(letters, n, "rollup_failing");
	FreeErrorData(error);
}

void
redrive_fold(RedriveLetter **letters, int n)
{
	/* As tick(): the state has to be seen as others have left it. */
	if (IsolationUsesXactSnapshot())
		ereport(
			ERROR,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			 errmsg("dead letters of stage fold cannot be sent again in a transaction with one "
					"snapshot for all statements"),
			 errhint("Call behavior.redrive() outside of a transaction block, or in one that is "
					 "READ COMMITTED.")));
	redrive_by_projection(letters, n, redrive_rollup);
}

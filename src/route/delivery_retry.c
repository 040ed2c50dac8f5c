/*
 * delivery_retry.c
 *		What failed: tried again later, and in the end a dead letter.
 *
 * The n-th failure of an event is followed by behavior.retry_delay x 2^(n-1), at most 300 times
 * that, times a random 0.5 to 1.5: what failed together does not come back together.  The last
 * attempt of an event is that of max_attempts, or the one when it is max_age old.
 *
 * The queue rests after RESTS_AFTER events in a row that each failed alone: then it is not the
 * events, and to go on would only make each of them wait for its own retries.  The retries go on,
 * and the first success wakes the queue.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/guc.h"
#include "core/spi.h"
#include "ingest/dead_letter.h"
#include "log/log_row.h"
#include "route/delivery_internal.h"

#define RESTS_AFTER		8
#define BACKOFF_MOST	300	 /* of behavior.retry_delay */
#define ERROR_MAX_BYTES 1000 /* kept of an error's message */

int64
delivery_backoff(int failures)
{
	int64 times =
		failures > 9 ? BACKOFF_MOST : Min(INT64CONST(1) << Max(failures - 1, 0), BACKOFF_MOST);
	int64 delay = times * behavior_retry_delay * 1000;

	return (int64) (delay * (0.5 + pg_prng_double(&pg_global_prng_state)));
}

bool
delivery_exhausted(const Subscription *subscription, int attempts, TimestampTz first_attempt_at,
				   Reason *reason)
{
	if (attempts >= subscription->max_attempts)
		*reason = REASON_HANDLER_ERROR;
	else if (GetCurrentTimestamp() - first_attempt_at >= subscription->max_age)
		*reason = REASON_EXPIRED;
	else
		return false;
	return true;
}

void
delivery_note_failure(const Subscription *subscription, SubscriptionProgress *progress,
					  const char *error)
{
	int length = strlen(error);

	if (progress->failing_since == 0)
	{
		progress->failing_since = GetCurrentTimestamp();
		ereport(
			WARNING,
			(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
			 errmsg("subscription \"%s\" is failing: %s", subscription->name, error),
			 errdetail("This is said once; its events are tried again."),
			 OidIsValid(subscription->owner)
				 ? errhint(
					   "See behavior.subscription for its state, and behavior.dead_letter for events that were given up.")
				 : errhint(MISSING_OWNER_HINT)));
	}
	progress->last_error = pnstrdup(error, pg_mbcliplen(error, length, ERROR_MAX_BYTES));
}

/* An event as native JSON: what behavior.ingest() would take. */
static char *
event_payload(Relation log, HeapTuple event)
{
	static const char *const sql =
		"SELECT (SELECT jsonb_object_agg(e.key, e.value) FROM jsonb_each(jsonb_build_object("
		"'event_id', $1::text, 'source', $2::text, 'type', $3::text, 'user_id', $4::text,"
		" 'anonymous_id', $5::text, 'occurred_at', $6::timestamptz, 'sequence', $7::int8,"
		" 'properties', $8::jsonb, 'context', $9::jsonb)) AS e(key, value) WHERE e.value <> 'null')::text";
	static const AttrNumber columns[] = {LOG_EVENT_ID, LOG_SOURCE,		 LOG_TYPE,
										 LOG_USER_ID,  LOG_ANONYMOUS_ID, LOG_OCCURRED_AT,
										 LOG_SEQUENCE, LOG_PROPERTIES,	 LOG_CONTEXT};
	static const Oid types[] = {TEXTOID,		TEXTOID, TEXTOID,  TEXTOID, TEXTOID,
								TIMESTAMPTZOID, INT8OID, JSONBOID, JSONBOID};
	MemoryContext caller = CurrentMemoryContext;
	Datum values[lengthof(columns)];
	char nulls[lengthof(columns)];
	SecureContext secure;
	char *payload;

	for (int i = 0; i < lengthof(columns); i++)
	{
		bool isnull;

		values[i] = heap_getattr(event, columns[i], RelationGetDescr(log), &isnull);
		nulls[i] = isnull ? 'n' : ' ';
	}
	secure_begin(&secure, behavior_owner());
	SPI_connect();
	spi_exec(sql, SPI_OK_SELECT, true, lengthof(columns), types, values, nulls);
	payload =
		MemoryContextStrdup(caller, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	SPI_finish();
	secure_end(&secure);
	return payload;
}

static char *
column_text(Relation log, HeapTuple event, AttrNumber column)
{
	bool isnull;
	Datum value = heap_getattr(event, column, RelationGetDescr(log), &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

void
delivery_dead_letter(const Subscription *subscription, SubscriptionProgress *progress,
					 HeapTuple event, Reason reason, int attempts, const char *error)
{
	Relation log = table_open(behavior_relid(REL_LOG), AccessShareLock);
	DeadLetter letter = {0};
	bool isnull;

	letter.batch_id =
		DatumGetInt64(heap_getattr(event, LOG_BATCH_ID, RelationGetDescr(log), &isnull));
	letter.stage = "delivery";
	letter.reason = reason;
	letter.detail = psprintf("%s%s Given up after %d %s: %s is reached.", error,
							 error[0] != '\0' && error[strlen(error) - 1] == '.' ? "" : ".",
							 attempts, attempts == 1 ? "attempt" : "attempts",
							 reason == REASON_EXPIRED ? "max_age" : "max_attempts");
	letter.source = column_text(log, event, LOG_SOURCE);
	letter.type = column_text(log, event, LOG_TYPE);
	letter.event_id = column_text(log, event, LOG_EVENT_ID);
	letter.payload = event_payload(log, event);
	letter.payload_length = strlen(letter.payload);
	letter.projection = subscription->name;
	letter.attempts = attempts;
	dead_letter_continue(&letter, true);
	(void) dead_letter_insert(&letter);
	progress->dead_letters++;
	table_close(log, AccessShareLock);
}

void
delivery_failed(const Subscription *subscription, SubscriptionProgress *progress,
				const DeliveryItem *item, const char *error)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz first_attempt_at =
		item->own_row && item->own->first_attempt_at != 0 ? item->own->first_attempt_at : now;
	Reason reason;

	progress->failed++;
	delivery_note_failure(subscription, progress, error);
	if (!item->own_row || item->own->state == DELIVERY_HELD)
	{
		progress->failures++;
		if (progress->failures >= RESTS_AFTER)
			progress->resume_at = now + delivery_backoff(progress->failures - RESTS_AFTER + 1);
	}

	if (delivery_exhausted(subscription, item->attempt, first_attempt_at, &reason))
	{
		delivery_dead_letter(subscription, progress, item->entry.row, reason, item->attempt,
							 progress->last_error);
		if (item->own_row)
			delivery_row_done(item->own);
		else
		{
			queue_pass(subscription, progress, &item->entry, 1);
			CommandCounterIncrement();
		}
	}
	else
	{
		TimestampTz due_at = now + delivery_backoff(item->attempt);
		DeliveryRow row;

		/* Compared without adding: max_age may be as long as can be said. */
		if (due_at - first_attempt_at > subscription->max_age)
			due_at = first_attempt_at + subscription->max_age;
		if (item->own_row)
			row = *item->own;
		else
			delivery_row_of_item(subscription, item, &row);
		row.state = DELIVERY_RETRY;
		row.due_at = due_at;
		row.attempts = item->attempt;
		row.first_attempt_at = first_attempt_at;
		row.error = progress->last_error;
		if (item->own_row)
			delivery_row_update(&row);
		else
		{
			delivery_row_insert(&row);
			queue_pass(subscription, progress, &item->entry, 1);
			CommandCounterIncrement();
		}
	}
}

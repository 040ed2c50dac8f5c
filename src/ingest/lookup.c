/*
 * lookup.c
 *		What became of an event: behavior.last_batch() and behavior.find_event().
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/guc.h"
#include "core/spi.h"
#include "ingest/event_key.h"
#include "ingest/lookup.h"
#include "log/log_reader.h"
#include "log/log_row.h"

#define FIND_COLUMNS 6

PG_FUNCTION_INFO_V1(behavior_last_batch);
PG_FUNCTION_INFO_V1(behavior_find_event);

static int64 last_batch_id = 0;
static SubTransactionId last_batch_subid = InvalidSubTransactionId; /* invalid: it is committed */

void
last_batch_set(int64 batch_id)
{
	last_batch_id = batch_id;
	last_batch_subid = GetCurrentSubTransactionId();
}

void
last_batch_on_subxact(SubXactEvent event, SubTransactionId subid, SubTransactionId parent)
{
	if (last_batch_subid != subid)
		return;
	last_batch_subid = parent;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		last_batch_id = 0;
}

void
last_batch_on_xact(XactEvent event)
{
	if (event == XACT_EVENT_ABORT && last_batch_subid != InvalidSubTransactionId)
		last_batch_id = 0;
	last_batch_subid = InvalidSubTransactionId;
}

/*
 * last_batch(): the row of behavior.batch of this session's last sending statement.
 */
Datum
behavior_last_batch(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(last_batch_id)};
	SecureContext secure;
	HeapTupleHeader result = NULL;

	if (last_batch_id == 0)
		PG_RETURN_NULL();

	secure_begin(&secure, behavior_owner());
	SPI_connect();
	if (spi_exec("SELECT b FROM behavior.batch b WHERE b.batch_id OPERATOR(pg_catalog.=) $1",
				 SPI_OK_SELECT, false, 1, types, values, NULL) == 1)
	{
		bool isnull;
		Datum row = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);

		result = (HeapTupleHeader) DatumGetPointer(SPI_datumTransfer(row, false, -1));
	}
	SPI_finish();
	secure_end(&secure);

	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_HEAPTUPLEHEADER(result);
}

typedef struct Wanted
{
	text *source;
	text *event_id;
	bool found;
	TimestampTz received_at;
	TimestampTz occurred_at;
} Wanted;

static bool
same_text(TupleTableSlot *slot, int column, const text *wanted)
{
	bool isnull;
	text *value = DatumGetTextPP(slot_getattr(slot, column, &isnull));

	return VARSIZE_ANY_EXHDR(value) == VARSIZE_ANY_EXHDR(wanted) &&
		   memcmp(VARDATA_ANY(value), VARDATA_ANY(wanted), VARSIZE_ANY_EXHDR(wanted)) == 0;
}

static void
compare_event(TupleTableSlot *slot, void *arg)
{
	Wanted *wanted = arg;
	bool isnull;

	if (wanted->found || !same_text(slot, LOG_EVENT_ID, wanted->event_id) ||
		!same_text(slot, LOG_SOURCE, wanted->source))
		return;
	wanted->received_at = DatumGetTimestampTz(slot_getattr(slot, LOG_RECEIVED_AT, &isnull));
	wanted->occurred_at = DatumGetTimestampTz(slot_getattr(slot, LOG_OCCURRED_AT, &isnull));
	wanted->found = true;
}

/* The accepted event: by its key, then in its batch. */
static void
put_accepted(ReturnSetInfo *result, Wanted *wanted)
{
	uint8 key[16];
	int64 batch_id;
	BatchSet *set;
	Snapshot snapshot;
	Datum values[FIND_COLUMNS] = {0};
	bool isnull[FIND_COLUMNS] = {false, false, true, false, true, true};

	event_key_hash(VARDATA_ANY(wanted->source), VARSIZE_ANY_EXHDR(wanted->source),
				   VARDATA_ANY(wanted->event_id), VARSIZE_ANY_EXHDR(wanted->event_id), key);
	if (!event_key_find(key, &batch_id))
		return;

	set = batch_set_make();
	batch_set_append(set, batch_id, batch_id);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	log_read_batches(set, snapshot, compare_event, wanted);
	UnregisterSnapshot(snapshot);

	values[0] = CStringGetTextDatum("accepted");
	values[1] = PointerGetDatum(wanted->source);
	values[3] = Int64GetDatum(batch_id);
	if (wanted->found)
	{
		values[2] = TimestampTzGetDatum(wanted->received_at);
		values[4] = TimestampTzGetDatum(wanted->occurred_at);
		isnull[2] = isnull[4] = false;
	}
	tuplestore_putvalues(result->setResult, result->setDesc, values, isnull);
}

/* Its dead letters, the oldest first: what conflicted with it, and what was refused. */
static void
put_dead_letters(ReturnSetInfo *result, const Wanted *wanted)
{
	static const Oid types[] = {TEXTOID, TEXTOID};
	Datum arguments[] = {PointerGetDatum(wanted->event_id), PointerGetDatum(wanted->source)};
	SecureContext secure;
	uint64 n;

	secure_begin(&secure, behavior_owner());
	SPI_connect();
	n = spi_exec("SELECT CASE reason WHEN 'id_conflict' THEN 'conflict' ELSE 'dead_letter' END,"
				 " source, failed_at, batch_id, NULL::pg_catalog.timestamptz, dead_letter_id"
				 " FROM behavior.dead_letter"
				 " WHERE event_id = $1 AND source = $2 AND stage = 'ingest'"
				 " ORDER BY dead_letter_id",
				 SPI_OK_SELECT, false, 2, types, arguments, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		Datum values[FIND_COLUMNS];
		bool isnull[FIND_COLUMNS];

		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, values, isnull);
		tuplestore_putvalues(result->setResult, result->setDesc, values, isnull);
	}
	SPI_finish();
	secure_end(&secure);
}

/*
 * find_event(event_id, source): what is known of an event, by its key and without a scan of the
 * log.
 */
Datum
behavior_find_event(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Wanted wanted = {0};

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	wanted.event_id = PG_GETARG_TEXT_PP(0);
	if (PG_ARGISNULL(1) || VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(1)) == 0)
		wanted.source = cstring_to_text(behavior_default_source);
	else
		wanted.source = PG_GETARG_TEXT_PP(1);

	put_accepted(result, &wanted);
	put_dead_letters(result, &wanted);
	return (Datum) 0;
}

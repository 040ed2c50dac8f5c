/*
 * redrive.c
 *		behavior.redrive(): finds dead letters, has them sent again, marks them.
 *
 * Letters are locked one by one in the order of their ids and then looked at again, so that of two
 * calls at once the second waits and finds none; in the isolation levels above READ COMMITTED it
 * fails with 40001.  Only ids and sizes are held for all of them; payloads come some megabytes at a
 * time.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/spi.h"
#include "route/redrive.h"

#define CHUNK_LETTERS 1000
#define CHUNK_BYTES	  (8 * 1024 * 1024)

PG_FUNCTION_INFO_V1(behavior_redrive);

/*
 * The stages.  Letters of a stage without a function, but ingest, which has its own way, are not
 * selected.
 */
static const struct
{
	const char *name;
	RedriveStage send;
} stages[] = {
	{"ingest", NULL},
	{"fold", redrive_fold},
	{"delivery", redrive_delivery},
};

#define STAGE_INGEST 0

typedef struct Target
{
	int stage;
	int64 bytes;
	RedriveResult result; /* status NULL: not dealt with yet */
} Target;

typedef struct Redrive
{
	MemoryContext context; /* of the call */
	Jsonb *patch;
	Target *targets;
	int ntargets;
} Redrive;

static int
stage_number(const char *name)
{
	for (int i = 0; i < lengthof(stages); i++)
	{
		if (strcmp(stages[i].name, name) == 0)
			return i;
	}
	elog(ERROR, "unknown stage \"%s\"", name);
}

/* The names of the stages whose letters can be sent. */
static Datum
stages_wanted(bool patched)
{
	Datum names[lengthof(stages)];
	int count = 0;

	for (int i = 0; i < lengthof(stages); i++)
	{
		/* Only at ingest is the payload what is sent. */
		if (i == STAGE_INGEST || (stages[i].send != NULL && !patched))
			names[count++] = CStringGetTextDatum(stages[i].name);
	}
	return PointerGetDatum(construct_array(names, count, TEXTOID, -1, false, TYPALIGN_INT));
}

/* Locks the letters that the arguments of behavior.redrive() select. */
static void
lock_letters(Redrive *redrive, FunctionCallInfo fcinfo)
{
	static const Oid types[] = {TEXTARRAYOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum values[lengthof(types)];
	char nulls[lengthof(types)];
	SecureContext secure;

	values[0] = stages_wanted(redrive->patch != NULL);
	nulls[0] = ' ';
	for (int i = 0; i < 4; i++)
	{
		nulls[i + 1] = PG_ARGISNULL(i) ? 'n' : ' ';
		values[i + 1] = PG_ARGISNULL(i) ? (Datum) 0 : PG_GETARG_DATUM(i);
	}

	secure_begin(&secure, behavior_owner());
	SPI_connect();
	redrive->ntargets =
		spi_exec("SELECT dead_letter_id, stage, pg_catalog.octet_length(payload)"
				 " FROM behavior.dead_letter"
				 " WHERE redriven_at IS NULL AND stage = ANY ($1)"
				 " AND ($2 IS NULL OR reason = $2) AND ($3 IS NULL OR projection = $3)"
				 " AND ($4 IS NULL OR failed_at >= $4) AND ($5 IS NULL OR failed_at < $5)"
				 " ORDER BY dead_letter_id FOR UPDATE",
				 SPI_OK_SELECT, false, lengthof(types), types, values, nulls);
	redrive->targets =
		MemoryContextAllocExtended(redrive->context, Max(redrive->ntargets, 1) * sizeof(Target),
								   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < redrive->ntargets; i++)
	{
		Target *target = &redrive->targets[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		HeapTuple tuple = SPI_tuptable->vals[i];
		bool isnull;
		Datum bytes;

		target->result.dead_letter_id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
		target->stage = stage_number(TextDatumGetCString(SPI_getbinval(tuple, desc, 2, &isnull)));
		bytes = SPI_getbinval(tuple, desc, 3, &isnull);
		target->bytes = isnull ? 0 : DatumGetInt32(bytes);
	}
	SPI_finish();
	secure_end(&secure);
}

/* The ids of targets as bigint[]. */
static Datum
ids_of(Target *const *targets, int count)
{
	Datum *ids = palloc(Max(count, 1) * sizeof(Datum));

	for (int i = 0; i < count; i++)
		ids[i] = Int64GetDatum(targets[i]->result.dead_letter_id);
	return PointerGetDatum(
		construct_array(ids, count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* Reads letters, given in the order of their ids, into the current context. */
static RedriveLetter *
fetch_letters(Target *const *targets, int count)
{
	static const Oid types[] = {INT8ARRAYOID};
	RedriveLetter *letters = palloc0(count * sizeof(RedriveLetter));
	Datum values[] = {ids_of(targets, count)};
	MemoryContext context = CurrentMemoryContext;
	SecureContext secure;
	uint64 found;

	secure_begin(&secure, behavior_owner());
	SPI_connect();
	found = spi_exec("SELECT dead_letter_id, reason, source, type, event_id, projection, payload,"
					 " attempts, batch_id, payload_intact, received_at, sent_with"
					 " FROM behavior.dead_letter WHERE dead_letter_id = ANY ($1)"
					 " ORDER BY dead_letter_id",
					 SPI_OK_SELECT, false, 1, types, values, NULL);
	if (found != count)
		elog(ERROR, "%d dead letters are locked and " UINT64_FORMAT " are there", count, found);
	MemoryContextSwitchTo(context);
	for (int i = 0; i < count; i++)
	{
		RedriveLetter *letter = &letters[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		HeapTuple tuple = SPI_tuptable->vals[i];
		bool isnull;
		Datum value;

		letter->dead_letter_id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
		letter->reason = SPI_getvalue(tuple, desc, 2);
		letter->source = SPI_getvalue(tuple, desc, 3);
		letter->type = SPI_getvalue(tuple, desc, 4);
		letter->event_id = SPI_getvalue(tuple, desc, 5);
		letter->projection = SPI_getvalue(tuple, desc, 6);
		letter->payload = SPI_getvalue(tuple, desc, 7);
		letter->attempts = DatumGetInt32(SPI_getbinval(tuple, desc, 8, &isnull));
		value = SPI_getbinval(tuple, desc, 9, &isnull);
		letter->batch_id = isnull ? 0 : DatumGetInt64(value);
		letter->payload_intact = DatumGetBool(SPI_getbinval(tuple, desc, 10, &isnull));
		letter->received_at = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 11, &isnull));
		letter->sent_with = SPI_getvalue(tuple, desc, 12);
	}
	SPI_finish();
	secure_end(&secure);
	return letters;
}

/*
 * Collects the next targets of a stage (ingest, or any other) from *next on, as many as are
 * fetched at once; 0: there are no more.
 */
static int
next_chunk(const Redrive *redrive, int *next, bool ingest, Target **chunk)
{
	int64 bytes = 0;
	int count = 0;

	while (*next < redrive->ntargets && count < CHUNK_LETTERS && bytes < CHUNK_BYTES)
	{
		Target *target = &redrive->targets[(*next)++];

		if ((target->stage == STAGE_INGEST) != ingest)
			continue;
		chunk[count++] = target;
		bytes += target->bytes;
	}
	return count;
}

static void
send_ingest(Redrive *redrive)
{
	Target **chunk = palloc(CHUNK_LETTERS * sizeof(Target *));
	RedriveIngest *ingest = NULL;
	MemoryContext context =
		AllocSetContextCreate(redrive->context, "behavior redrive", ALLOCSET_DEFAULT_SIZES);
	int next = 0;
	int count;

	while ((count = next_chunk(redrive, &next, true, chunk)) > 0)
	{
		RedriveLetter *letters;
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		if (ingest == NULL)
			ingest = redrive_ingest_begin(redrive->patch);
		old = MemoryContextSwitchTo(context);
		letters = fetch_letters(chunk, count);
		for (int i = 0; i < count; i++)
			redrive_ingest_add(ingest, &letters[i], &chunk[i]->result);
		redrive_ingest_flush(ingest);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	if (ingest != NULL)
		redrive_ingest_finish(ingest);
	MemoryContextDelete(context);
}

/* The other stages, each with all of its letters of a chunk. */
static void
send_others(Redrive *redrive)
{
	Target **chunk = palloc(CHUNK_LETTERS * sizeof(Target *));
	RedriveLetter **of_stage = palloc(CHUNK_LETTERS * sizeof(RedriveLetter *));
	MemoryContext context =
		AllocSetContextCreate(redrive->context, "behavior redrive", ALLOCSET_DEFAULT_SIZES);
	int next = 0;
	int count;

	while ((count = next_chunk(redrive, &next, false, chunk)) > 0)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		RedriveLetter *letters = fetch_letters(chunk, count);

		CHECK_FOR_INTERRUPTS();
		for (int stage = 0; stage < lengthof(stages); stage++)
		{
			int n = 0;

			for (int i = 0; i < count; i++)
			{
				if (chunk[i]->stage == stage)
					of_stage[n++] = &letters[i];
			}
			if (n > 0)
				stages[stage].send(of_stage, n);
		}
		for (int i = 0; i < count; i++)
		{
			chunk[i]->result.status = letters[i].status;
			chunk[i]->result.reason = letters[i].failed_reason;
		}
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
}

/* Marks the letters that were sent. */
static void
mark_letters(const Redrive *redrive)
{
	static const Oid types[] = {INT8ARRAYOID};
	Target **sent = palloc(CHUNK_LETTERS * sizeof(Target *));
	SecureContext secure;
	int count = 0;

	secure_begin(&secure, behavior_owner());
	SPI_connect();
	for (int i = 0; i <= redrive->ntargets; i++)
	{
		if (i < redrive->ntargets &&
			strcmp(redrive->targets[i].result.status, REDRIVE_SKIPPED) != 0)
			sent[count++] = &redrive->targets[i];
		if (count == CHUNK_LETTERS || (count > 0 && i == redrive->ntargets))
		{
			Datum values[] = {ids_of(sent, count)};

			(void) spi_exec("UPDATE behavior.dead_letter"
							" SET redriven_at = pg_catalog.clock_timestamp()"
							" WHERE dead_letter_id = ANY ($1)",
							SPI_OK_UPDATE, false, 1, types, values, NULL);
			count = 0;
		}
	}
	SPI_finish();
	secure_end(&secure);
}

static void
redrive_letters(Redrive *redrive, FunctionCallInfo fcinfo)
{
	lock_letters(redrive, fcinfo);
	send_ingest(redrive);
	send_others(redrive);
	mark_letters(redrive);
}

static void
put_results(ReturnSetInfo *result, const Redrive *redrive)
{
	for (int i = 0; i < redrive->ntargets; i++)
	{
		const RedriveResult *of = &redrive->targets[i].result;
		Datum values[3];
		bool isnull[3] = {false, false, of->reason == NULL};

		values[0] = Int64GetDatum(of->dead_letter_id);
		values[1] = CStringGetTextDatum(of->status);
		values[2] = of->reason != NULL ? CStringGetTextDatum(of->reason) : (Datum) 0;
		tuplestore_putvalues(result->setResult, result->setDesc, values, isnull);
	}
}

/*
 * redrive(reason text, projection text, since timestamptz, until timestamptz, patch jsonb,
 *		dry_run boolean)
 */
Datum
behavior_redrive(PG_FUNCTION_ARGS)
{
	Redrive redrive = {0};

	PreventCommandIfReadOnly("behavior.redrive()");
	InitMaterializedSRF(fcinfo, 0);
	redrive.context = CurrentMemoryContext;
	if (!PG_ARGISNULL(4))
	{
		redrive.patch = PG_GETARG_JSONB_P(4);
		if (!JB_ROOT_IS_OBJECT(redrive.patch))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("patch is not a JSON object"),
					 errdetail("It is a JSON merge patch (RFC 7396) of each payload.")));
	}

	if (!PG_ARGISNULL(5) && PG_GETARG_BOOL(5))
	{
		ResourceOwner owner = CurrentResourceOwner;
		ErrorData *error = NULL;

		/* Not try_step(): it is rolled back when it has gone well, too. */
		BeginInternalSubTransaction(NULL);
		MemoryContextSwitchTo(redrive.context);
		PG_TRY();
		{
			redrive_letters(&redrive, fcinfo);
		}
		PG_CATCH();
		{
			MemoryContextSwitchTo(redrive.context);
			error = CopyErrorData();
			FlushErrorState();
		}
		PG_END_TRY();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(redrive.context);
		CurrentResourceOwner = owner;
		if (error != NULL)
			ReThrowError(error);
	}
	else
		redrive_letters(&redrive, fcinfo);
	put_results((ReturnSetInfo *) fcinfo->resultinfo, &redrive);
	return (Datum) 0;
}

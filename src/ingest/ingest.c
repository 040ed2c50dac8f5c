/*
 * ingest.c
 *		behavior.ingest(): JSON events as an argument, a receipt for each as the answer.
 *
 * The argument goes back to text and through the parser of behavior.inbox: one
 * way for all doors, and the slices of that text are the payloads of dead letters.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "core/compat.h"
#include "core/json.h"
#include "ingest/envelope.h"

#define INGEST_MAX_EVENTS 10000
#define INGEST_MAX_BYTES  (64 * 1024 * 1024)

PG_FUNCTION_INFO_V1(behavior_ingest);

pg_noreturn static void
raise_too_many(const char *message)
{
	ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("%s", message),
					errdetail("A call takes at most %d events and %d MB.", INGEST_MAX_EVENTS,
							  INGEST_MAX_BYTES / (1024 * 1024)),
					errhint("Send them in several calls, or with COPY behavior.inbox.")));
}

/* A jsonb argument as a tree, and the text that the tree points into. */
static JsonNode *
parse_argument(Jsonb *argument, const char **text, size_t *length)
{
	JsonNode *node;

	if (VARSIZE(argument) > INGEST_MAX_BYTES)
		raise_too_many("too much JSON in one call");
	node = json_of_jsonb(argument, text);
	*length = strlen(*text);
	if (node->flaw != NULL && node->flaw->reason == REASON_TOO_LARGE)
		raise_too_many(node->flaw->message);
	return node;
}

static void
put_receipts(ReturnSetInfo *result, const Receipt *receipts, int count)
{
	for (int i = 0; i < count; i++)
	{
		const Receipt *receipt = &receipts[i];
		Datum values[5];
		bool isnull[5] = {false};

		values[0] = Int32GetDatum(i + 1);
		isnull[1] = receipt->event_id == NULL;
		if (!isnull[1])
			values[1] = CStringGetTextDatum(receipt->event_id);
		values[2] = CStringGetTextDatum(event_status_name(receipt->status));
		isnull[3] = receipt->reason == REASON_NONE;
		if (!isnull[3])
			values[3] = CStringGetTextDatum(reason_name(receipt->reason));
		isnull[4] = receipt->dead_letter_id == 0;
		values[4] = Int64GetDatum(receipt->dead_letter_id);
		tuplestore_putvalues(result->setResult, result->setDesc, values, isnull);
	}
}

/*
 * behavior.ingest(events jsonb, defaults jsonb): sends one object or an array of at most
 * INGEST_MAX_EVENTS.
 */
Datum
behavior_ingest(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Jsonb *events;
	Event defaults = {0};
	bool has_defaults = false;
	const char *text;
	size_t length;
	JsonNode *node;
	Frame *frame;
	Receipt *receipts;
	int count;

	/* Of what it calls, nothing would say so in the caller's words, and on a standby none by its
	 * code. */
	PreventCommandIfReadOnly("behavior.ingest()");
	InitMaterializedSRF(fcinfo, 0);

	if (!PG_ARGISNULL(1))
	{
		Jsonb *argument = PG_GETARG_JSONB_P(1);

		node = parse_argument(argument, &text, &length);
		envelope_defaults(node, &defaults);
		if (JB_ROOT_COUNT(argument) > 0)
			defaults.sent_with = envelope_sent_with_defaults(text, length);
		has_defaults = true;
	}

	events = PG_ARGISNULL(0) ? NULL : PG_GETARG_JSONB_P(0);
	if (events == NULL || JB_ROOT_IS_SCALAR(events))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("events must be a JSON object or an array of them"),
						errdetail("They are %s.", events == NULL ? "NULL" : "a single value")));
	if (JB_ROOT_IS_ARRAY(events) && JB_ROOT_COUNT(events) > INGEST_MAX_EVENTS)
		raise_too_many("too many events in one call");
	node = parse_argument(events, &text, &length);
	if (envelope_count(node) > INGEST_MAX_EVENTS)
		raise_too_many("too many events in one call");

	frame = frame_push(true);
	envelope_add(frame, node, text, length, has_defaults ? &defaults : NULL);
	frame_finish(frame);
	receipts = frame_receipts(frame, &count);
	put_receipts(result, receipts, count);
	frame_free(frame);
	return (Datum) 0;
}

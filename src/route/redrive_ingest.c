/*
 * redrive_ingest.c
 *		Dead letters of stage ingest: each goes through the whole door again.
 *
 * A letter is one event, so it gives one receipt.  What came with its payload and is not in it (the
 * defaults of behavior.ingest(), the context of a batch, the default source, the time) counts as
 * it did then, so that the event is what it would have been.
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "core/json.h"
#include "ingest/envelope.h"
#include "ingest/frame.h"
#include "route/redrive.h"

struct RedriveIngest
{
	MemoryContext context;
	Frame *frame;
	const JsonNode *patch; /* NULL: none */
	const char *patch_text;
	RedriveResult **results; /* in the order of the frame's receipts */
	int count;
	int size;
};

RedriveIngest *
redrive_ingest_begin(Jsonb *patch)
{
	RedriveIngest *ingest = palloc0(sizeof(RedriveIngest));

	ingest->context = CurrentMemoryContext;
	if (patch != NULL)
		ingest->patch = json_of_jsonb(patch, &ingest->patch_text);
	ingest->frame = frame_push_again();
	return ingest;
}

/* Expects one more receipt, for this result. */
static void
add_result(RedriveIngest *ingest, RedriveResult *result)
{
	if (ingest->count == ingest->size)
	{
		ingest->size = Max(64, ingest->size * 2);
		if (ingest->results == NULL)
			ingest->results =
				MemoryContextAlloc(ingest->context, ingest->size * sizeof(RedriveResult *));
		else
			ingest->results =
				repalloc_huge(ingest->results, ingest->size * sizeof(RedriveResult *));
	}
	ingest->results[ingest->count++] = result;
}

/* with: what came with the letter's payload, NULL for nothing. */
static EventOrigin *
make_origin(const RedriveLetter *letter, const JsonNode *with)
{
	EventOrigin *origin = palloc0(sizeof(EventOrigin));
	const JsonNode *source = with != NULL ? json_member(with, "source") : NULL;

	origin->dead_letter_id = letter->dead_letter_id;
	origin->attempts = letter->attempts;
	origin->received_at = letter->received_at;
	if (source != NULL && source->kind == JSON_STRING)
	{
		origin->source.data = source->text;
		origin->source.length = source->length;
	}
	return origin;
}

static void
skip(RedriveResult *result, const char *reason)
{
	result->status = REDRIVE_SKIPPED;
	result->reason = reason;
}

/* A text's tree; NULL, with what is wrong in *message, when it is none. */
static JsonNode *
parse_whole(const char *text, char **message)
{
	size_t length = strlen(text);
	size_t offset = 0;
	JsonError error;
	JsonNode *node = json_parse(text, length, &offset, &error);

	if (node == NULL)
		*message = pstrdup(error.message);
	else if (offset < length)
	{
		*message = psprintf("more text at byte %zu", offset + 1);
		node = NULL;
	}
	return node;
}

void
redrive_ingest_add(RedriveIngest *ingest, const RedriveLetter *letter, RedriveResult *result)
{
	const char *payload = letter->payload != NULL ? letter->payload : "";
	TextField sent_with = {NULL, 0};
	const JsonNode *with = NULL;
	EventOrigin *origin;
	JsonNode *node;
	char *message;

	if (!letter->payload_intact)
	{
		skip(result, "payload_incomplete");
		return;
	}
	node = parse_whole(payload, &message);
	if (node != NULL && ingest->patch != NULL)
	{
		StringInfoData patched;

		initStringInfo(&patched);
		json_merge_patch(&patched, payload, node, ingest->patch_text, ingest->patch);
		payload = patched.data;
		node = parse_whole(payload, &message);
	}
	else if (node == NULL && ingest->patch != NULL)
	{
		/* It would only fail again. */
		skip(result, reason_name(REASON_MALFORMED_JSON));
		return;
	}

	if (letter->sent_with != NULL)
	{
		sent_with.data = letter->sent_with;
		sent_with.length = strlen(letter->sent_with);
		with = parse_whole(letter->sent_with, &message);
	}
	origin = make_origin(letter, with);
	add_result(ingest, result);
	if (node == NULL)
	{
		Event event = {0};

		event.payload.data = payload;
		event.payload.length = strlen(payload);
		event.sent_with = sent_with;
		event.origin = origin;
		frame_add_invalid(ingest->frame, REASON_MALFORMED_JSON, message, &event);
	}
	else
		envelope_add_again(ingest->frame, node, payload, with, sent_with, origin);
}

void
redrive_ingest_flush(RedriveIngest *ingest)
{
	frame_flush_now(ingest->frame);
}

void
redrive_ingest_finish(RedriveIngest *ingest)
{
	Receipt *receipts;
	int count;

	frame_finish(ingest->frame);
	receipts = frame_receipts(ingest->frame, &count);
	if (count != ingest->count)
		elog(ERROR, "%d dead letters sent again gave %d receipts", ingest->count, count);
	for (int i = 0; i < count; i++)
	{
		ingest->results[i]->status = event_status_name(receipts[i].status);
		ingest->results[i]->reason =
			receipts[i].reason != REASON_NONE ? reason_name(receipts[i].reason) : NULL;
	}
	frame_free(ingest->frame);
}

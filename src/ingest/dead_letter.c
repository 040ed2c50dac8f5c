/*
 * dead_letter.c
 *		Keeps events that were refused, could not be folded or could not be delivered.
 *
 * What is refused is often refused because it is broken, so nothing in it may
 * raise here: texts are made storable first.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "commands/sequence.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "ingest/dead_letter.h"
#include "ingest/dead_letter_row.h"

#define DEAD_LETTER_MAX_FIELD 255 /* bytes kept of source, type and event_id */

/* So many letters, and bytes of them, wait at most. */
#define LETTERS_MAX		  2048
#define LETTERS_MAX_BYTES (2 * 1024 * 1024)

struct DeadLetters
{
	MemoryContext context; /* of the rows */
	int count;
	int size;
	size_t bytes;
	HeapTuple *rows; /* in the order of their ids */
};

PG_FUNCTION_INFO_V1(behavior__dead_letter);

/* What has to be said about the texts of one letter. */
typedef struct Notes
{
	bool escaped;
	bool payload_cut;
	bool field_cut;
} Notes;

/* The longest beginning of at most "limit" bytes that does not end within a character. */
static size_t
cut_at_character(const char *data, size_t length, size_t limit)
{
	size_t cut = limit;

	if (length <= limit)
		return length;
	for (int back = 0; back < 3 && cut > 0 && ((unsigned char) data[cut] & 0xC0) == 0x80; back++)
		cut--;
	/* Four continuation bytes in a row are no character of any kind: cut anywhere. */
	return ((unsigned char) data[cut] & 0xC0) == 0x80 ? limit : cut;
}

/* A text datum of the bytes, those that text cannot hold as \xNN. */
static Datum
storable_text(const char *data, size_t length, Notes *notes)
{
	size_t done = pg_encoding_verifymbstr(PG_UTF8, data, length);
	StringInfoData buffer;

	if (done == length)
		return PointerGetDatum(cstring_to_text_with_len(data, length));

	notes->escaped = true;
	initStringInfo(&buffer);
	appendBinaryStringInfo(&buffer, data, done);
	/* By character from here: verifying the rest anew after each bad byte would be quadratic. */
	while (done < length)
	{
		const unsigned char *at = (const unsigned char *) data + done;
		int size = pg_utf_mblen(at);

		if (*at != 0 && size <= length - done && pg_utf8_islegal(at, size))
		{
			appendBinaryStringInfo(&buffer, data + done, size);
			done += size;
		}
		else
		{
			appendStringInfo(&buffer, "\\x%02x", *at);
			done++;
		}
	}
	return PointerGetDatum(cstring_to_text_with_len(buffer.data, buffer.len));
}

static void
set_text(Datum *values, bool *isnull, int column, const char *data, size_t length, Notes *notes)
{
	if (data == NULL)
		isnull[column - 1] = true;
	else
		values[column - 1] = storable_text(data, length, notes);
}

static void
set_field(Datum *values, bool *isnull, int column, const char *field, Notes *notes)
{
	size_t length = field != NULL ? strlen(field) : 0;
	size_t kept = field != NULL ? cut_at_character(field, length, DEAD_LETTER_MAX_FIELD) : 0;

	if (kept < length)
		notes->field_cut = true;
	set_text(values, isnull, column, field, kept, notes);
}

/* Adds a sentence to a detail that may not end in a full stop. */
static void
add_sentence(StringInfo detail, const char *sentence)
{
	if (detail->len > 0)
		appendStringInfoString(detail, detail->data[detail->len - 1] == '.' ? " " : ". ");
	appendStringInfoString(detail, sentence);
}

/* The detail as given, with the notes behind it. */
static void
set_detail(Datum *values, bool *isnull, const DeadLetter *letter, Notes *notes)
{
	StringInfoData detail;

	initStringInfo(&detail);
	if (letter->detail != NULL)
		appendStringInfoString(&detail, letter->detail);
	if (notes->payload_cut)
		add_sentence(&detail, psprintf("Only the beginning of a payload of %zu bytes is kept.",
									   letter->payload_length));
	if (notes->field_cut)
		add_sentence(&detail,
					 psprintf("Fields longer than %d bytes are cut.", DEAD_LETTER_MAX_FIELD));
	if (notes->escaped)
		add_sentence(&detail, "Bytes that text cannot hold are written as \\xNN.");
	set_text(values, isnull, DEAD_LETTER_DETAIL, detail.len > 0 ? detail.data : NULL, detail.len,
			 notes);
}

static void
set_jsonb(Datum *values, bool *isnull, int column, Jsonb *jsonb)
{
	values[column - 1] = PointerGetDatum(jsonb);
	isnull[column - 1] = jsonb == NULL;
}

/* The row of a letter, in the context given; *id: its number. */
static HeapTuple
form_row(Relation rel, const DeadLetter *letter, MemoryContext result_context, int64 *id)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "dead letter", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	HeapTuple row;
	Datum *values;
	bool *isnull;
	Notes notes = {0};
	Notes payload_notes = {0};
	TimestampTz now = GetCurrentTimestamp();
	size_t kept;
	int natts = RelationGetDescr(rel)->natts;

	/* Columns that somebody added stay NULL. */
	values = (Datum *) palloc0(natts * sizeof(Datum));
	isnull = (bool *) palloc0(natts * sizeof(bool));
	for (int i = DEAD_LETTER_NATTS; i < natts; i++)
		isnull[i] = true;

	*id = nextval_internal(behavior_relid(REL_DEAD_LETTER_ID_SEQ), false);
	values[DEAD_LETTER_ID - 1] = Int64GetDatum(*id);
	if (letter->batch_id > 0)
		values[DEAD_LETTER_BATCH_ID - 1] = Int64GetDatum(letter->batch_id);
	else
		isnull[DEAD_LETTER_BATCH_ID - 1] = true;
	values[DEAD_LETTER_FAILED_AT - 1] = TimestampTzGetDatum(now);
	values[DEAD_LETTER_STAGE - 1] = CStringGetTextDatum(letter->stage);
	values[DEAD_LETTER_REASON - 1] = CStringGetTextDatum(reason_name(letter->reason));
	set_jsonb(values, isnull, DEAD_LETTER_ERRORS, letter->errors);
	values[DEAD_LETTER_ATTEMPTS - 1] = Int32GetDatum(Max(letter->attempts, 1));
	isnull[DEAD_LETTER_REDRIVEN_AT - 1] = true;
	values[DEAD_LETTER_PREVIOUS - 1] = Int64GetDatum(letter->previous);
	isnull[DEAD_LETTER_PREVIOUS - 1] = letter->previous == 0;
	values[DEAD_LETTER_RECEIVED_AT - 1] =
		TimestampTzGetDatum(letter->received_at != 0 ? letter->received_at : now);
	set_jsonb(values, isnull, DEAD_LETTER_SENT_WITH, letter->sent_with);

	set_field(values, isnull, DEAD_LETTER_SOURCE, letter->source, &notes);
	set_field(values, isnull, DEAD_LETTER_TYPE, letter->type, &notes);
	set_field(values, isnull, DEAD_LETTER_EVENT_ID, letter->event_id, &notes);
	set_text(values, isnull, DEAD_LETTER_PROJECTION, letter->projection,
			 letter->projection != NULL ? strlen(letter->projection) : 0, &notes);

	kept = letter->payload != NULL
			   ? cut_at_character(letter->payload, letter->payload_length, DEAD_LETTER_MAX_PAYLOAD)
			   : 0;
	notes.payload_cut = letter->payload != NULL && kept < letter->payload_length;
	set_text(values, isnull, DEAD_LETTER_PAYLOAD, letter->payload, kept, &payload_notes);
	values[DEAD_LETTER_PAYLOAD_INTACT - 1] =
		BoolGetDatum(!notes.payload_cut && !payload_notes.escaped && !letter->payload_abridged);
	notes.escaped |= payload_notes.escaped;
	set_detail(values, isnull, letter, &notes);

	MemoryContextSwitchTo(result_context);
	row = heap_form_tuple(RelationGetDescr(rel), values, isnull);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return row;
}

int64
dead_letter_insert(const DeadLetter *letter)
{
	Relation rel = table_open(behavior_relid(REL_DEAD_LETTER), RowExclusiveLock);
	HeapTuple row;
	int64 id;

	row = form_row(rel, letter, CurrentMemoryContext, &id);
	dead_letter_rows_insert(rel, &row, 1);
	table_close(rel, NoLock);
	return id;
}

int64
dead_letters_add(DeadLetters **letters, MemoryContext context, const DeadLetter *letter)
{
	Relation rel = table_open(behavior_relid(REL_DEAD_LETTER), RowExclusiveLock);
	DeadLetters *waiting = *letters;
	HeapTuple row;
	int64 id;

	if (waiting == NULL)
	{
		waiting = MemoryContextAllocZero(context, sizeof(DeadLetters));
		waiting->context = AllocSetContextCreate(context, "dead letters", ALLOCSET_DEFAULT_SIZES);
		*letters = waiting;
	}
	row = form_row(rel, letter, waiting->context, &id);
	table_close(rel, NoLock);
	if (waiting->count == waiting->size)
	{
		int size = Max(4, waiting->size * 4);

		waiting->rows = waiting->rows == NULL
							? MemoryContextAlloc(context, size * sizeof(HeapTuple))
							: repalloc(waiting->rows, size * sizeof(HeapTuple));
		waiting->size = size;
	}
	waiting->rows[waiting->count++] = row;
	waiting->bytes += row->t_len;
	if (waiting->count >= LETTERS_MAX || waiting->bytes >= LETTERS_MAX_BYTES)
		dead_letters_write(waiting);
	return id;
}

void
dead_letters_write(DeadLetters *letters)
{
	Relation rel;

	if (letters == NULL || letters->count == 0)
		return;
	rel = table_open(behavior_relid(REL_DEAD_LETTER), RowExclusiveLock);
	dead_letter_rows_insert(rel, letters->rows, letters->count);
	table_close(rel, NoLock);
	letters->count = 0;
	letters->bytes = 0;
	MemoryContextReset(letters->context);
}

Datum
behavior__dead_letter(PG_FUNCTION_ARGS)
{
	DeadLetter letter = {0};
	char *texts[7] = {NULL};

	for (int i = 0; i < 7; i++)
	{
		if (!PG_ARGISNULL(i) && i != 1 && i != 5)
			texts[i] = text_to_cstring(PG_GETARG_TEXT_PP(i));
	}
	if (texts[0] == NULL || PG_ARGISNULL(1) || PG_GETARG_INT32(1) <= REASON_NONE ||
		PG_GETARG_INT32(1) >= REASON_COUNT)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("a dead letter has a stage and a reason")));
	letter.stage = texts[0];
	letter.reason = (Reason) PG_GETARG_INT32(1);
	letter.source = texts[2];
	letter.type = texts[3];
	letter.event_id = texts[4];
	letter.detail = texts[6];
	if (!PG_ARGISNULL(5))
	{
		bytea *payload = PG_GETARG_BYTEA_PP(5);

		letter.payload = VARDATA_ANY(payload);
		letter.payload_length = VARSIZE_ANY_EXHDR(payload);
	}
	PG_RETURN_INT64(dead_letter_insert(&letter));
}

/*
 * session_row.c
 *		A session as a row of behavior._session, and back.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "core/compat.h"
#include "fold/session.h"
#include "fold/session_row.h"

#define ROW_BYTES 2048 /* values of most rows fit on the stack */

static Bytes
bytes_from_datum(Datum datum, bool isnull)
{
	Bytes bytes = {NULL, 0};

	if (!isnull)
	{
		text *value = DatumGetTextPP(datum);

		bytes.data = VARDATA_ANY(value);
		bytes.length = VARSIZE_ANY_EXHDR(value);
	}
	return bytes;
}

/* What a row says; it points into the tuple and the current context. */
void
session_run_from_row(SessionRun *run, TupleDesc desc, HeapTuple tuple)
{
	Datum values[SESSION_NATTS];
	bool nulls[SESSION_NATTS];

	heap_deform_tuple(tuple, desc, values, nulls);
	memset(run, 0, sizeof(*run));
	run->stored = true;
	run->tid = tuple->t_self;
	run->id = *DatumGetUUIDP(values[SESSION_ID - 1]);
	run->first.at = DatumGetTimestampTz(values[SESSION_STARTED_AT - 1]);
	run->last.at = DatumGetTimestampTz(values[SESSION_ENDED_AT - 1]);
	run->events = DatumGetInt64(values[SESSION_EVENTS - 1]);
	run->page_views = DatumGetInt64(values[SESSION_PAGE_VIEWS - 1]);
	run->entry_type = bytes_from_datum(values[SESSION_ENTRY_TYPE - 1], false);
	run->exit_type = bytes_from_datum(values[SESSION_EXIT_TYPE - 1], false);
	run->entry_page =
		bytes_from_datum(values[SESSION_ENTRY_PAGE - 1], nulls[SESSION_ENTRY_PAGE - 1]);
	run->exit_page = bytes_from_datum(values[SESSION_EXIT_PAGE - 1], nulls[SESSION_EXIT_PAGE - 1]);
	run->user_id = bytes_from_datum(values[SESSION_USER_ID - 1], nulls[SESSION_USER_ID - 1]);
	if (!nulls[SESSION_ENTRY_PROPERTIES - 1])
		run->properties = DatumGetJsonbP(values[SESSION_ENTRY_PROPERTIES - 1]);
	session_unpack(run, bytes_from_datum(values[SESSION_MERGE - 1], false));
	run->id_event = run->first.event_id;
}

static Size
value_bound(Size length)
{
	return ALIGNOF_INT - 1 + VARHDRSZ + length;
}

/* The value that begins at or behind "to" and shall have so many bytes. */
static char *
begin_value(char *to, Size length)
{
	if (length + VARHDRSZ_SHORT <= VARATT_SHORT_MAX)
		SET_VARSIZE_SHORT(to, length + VARHDRSZ_SHORT);
	else
	{
		to = (char *) INTALIGN(to);
		SET_VARSIZE(to, length + VARHDRSZ);
	}
	return to;
}

/* Stores bytes, or NULL, as an attribute's value. */
static void
put_bytes(char **to, Datum *values, bool *nulls, int attribute, Bytes bytes)
{
	char *value;

	nulls[attribute - 1] = bytes.data == NULL;
	values[attribute - 1] = (Datum) 0;
	if (bytes.data == NULL)
		return;
	value = begin_value(*to, bytes.length);
	values[attribute - 1] = PointerGetDatum(value);
	memcpy(VARDATA_ANY(value), bytes.data, bytes.length);
	*to = VARDATA_ANY(value) + bytes.length;
}

/* A tuple in the current context. */
HeapTuple
session_run_to_row(SessionRun *run, const SessionVisitor *visitor, TupleDesc desc)
{
	const struct
	{
		int attribute;
		Bytes bytes;
	} texts[] = {
		{SESSION_USER_ID, run->user_id},	   {SESSION_EXIT_TYPE, run->exit_type},
		{SESSION_EXIT_PAGE, run->exit_page},   {SESSION_SOURCE, visitor->source},
		{SESSION_VISITOR, visitor->visitor},   {SESSION_ENTRY_TYPE, run->entry_type},
		{SESSION_ENTRY_PAGE, run->entry_page},
	};
	Datum values[SESSION_NATTS];
	bool nulls[SESSION_NATTS] = {0};
	int32 on_stack[ROW_BYTES / sizeof(int32)];
	char *buffer = (char *) on_stack;
	char *merge;
	char *to;
	Size size = value_bound(session_pack_bound(run));
	HeapTuple tuple;

	for (int i = 0; i < lengthof(texts); i++)
		size += value_bound(texts[i].bytes.length);
	if (size > ROW_BYTES)
		buffer = palloc_extended(size, MCXT_ALLOC_HUGE);

	values[SESSION_ID - 1] = UUIDPGetDatum(&run->id);
	values[SESSION_VISITOR_HASH - 1] = Int64GetDatum(visitor->hash);
	values[SESSION_STARTED_AT - 1] = TimestampTzGetDatum(run->first.at);
	values[SESSION_ENDED_AT - 1] = TimestampTzGetDatum(run->last.at);
	values[SESSION_EVENTS - 1] = Int64GetDatum(run->events);
	values[SESSION_PAGE_VIEWS - 1] = Int64GetDatum(run->page_views);
	nulls[SESSION_ENTRY_PROPERTIES - 1] = run->properties == NULL;
	values[SESSION_ENTRY_PROPERTIES - 1] = PointerGetDatum(run->properties);

	/* Its length is known when it has been packed, so it comes first; heap_form_tuple() makes it
	 * short. */
	merge = buffer;
	to = session_pack(VARDATA(merge), run);
	SET_VARSIZE(merge, to - merge);
	values[SESSION_MERGE - 1] = PointerGetDatum(merge);
	for (int i = 0; i < lengthof(texts); i++)
		put_bytes(&to, values, nulls, texts[i].attribute, texts[i].bytes);

	tuple = heap_form_tuple(desc, values, nulls);
	if (buffer != (char *) on_stack)
		pfree(buffer);
	return tuple;
}

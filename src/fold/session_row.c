/*
 * session_row.c
 *		A session as a row of behavior._session, and back.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "core/compat.h"
#include "fold/session.h"
#include "fold/session_row.h"

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

static Datum
bytes_to_datum(Bytes bytes)
{
	return PointerGetDatum(cstring_to_text_with_len(bytes.data, bytes.length));
}

/* An order key as it is stored: NULL in the first of its columns says that it is "fallback". */
static OrderKey
stored_key(const Datum *values, const bool *nulls, int at, int sequence, int event_id,
		   const OrderKey *fallback)
{
	OrderKey key;

	if (nulls[at - 1])
		return *fallback;
	key.at = DatumGetTimestampTz(values[at - 1]);
	key.has_sequence = !nulls[sequence - 1];
	key.sequence = key.has_sequence ? DatumGetInt64(values[sequence - 1]) : 0;
	key.event_id = bytes_from_datum(values[event_id - 1], nulls[event_id - 1]);
	return key;
}

static void
store_key(Datum *values, bool *nulls, int at, int sequence, int event_id, const OrderKey *key,
		  bool has_value, const OrderKey *fallback)
{
	nulls[at - 1] = nulls[sequence - 1] = nulls[event_id - 1] = true;
	if (!has_value || order_key_compare(key, fallback) == 0)
		return;
	nulls[at - 1] = nulls[event_id - 1] = false;
	nulls[sequence - 1] = !key->has_sequence;
	values[at - 1] = TimestampTzGetDatum(key->at);
	values[sequence - 1] = Int64GetDatum(key->sequence);
	values[event_id - 1] = bytes_to_datum(key->event_id);
}

static void
read_types(SessionRun *run, Jsonb *counts)
{
	JsonbIterator *it = JsonbIteratorInit(&counts->root);
	JsonbIteratorToken token;
	JsonbValue value;
	int n = 0;

	run->max_types = run->ntypes = JB_ROOT_COUNT(counts);
	run->types = palloc_extended(sizeof(TypeCount) * (run->max_types + 1), MCXT_ALLOC_HUGE);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			run->types[n].type.data = value.val.string.val;
			run->types[n].type.length = value.val.string.len;
		}
		else if (token == WJB_VALUE && value.type == jbvNumeric)
			run->types[n++].count = DatumGetInt64(
				DirectFunctionCall1(numeric_int8, NumericGetDatum(value.val.numeric)));
	}
	Assert(n == run->ntypes);
	run->max_types++;
}

static Jsonb *
types_to_jsonb(SessionRun *run)
{
	JsonbParseState *state = NULL;

	session_run_sum_types(run);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < run->ntypes; i++)
	{
		JsonbValue value;

		value.type = jbvString;
		value.val.string.val = unconstify(char *, run->types[i].type.data);
		value.val.string.len = run->types[i].type.length;
		pushJsonbValue(&state, WJB_KEY, &value);
		value.type = jbvNumeric;
		value.val.numeric = int64_to_numeric(run->types[i].count);
		pushJsonbValue(&state, WJB_VALUE, &value);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* What a row says; it points into the tuple. */
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
	run->first.has_sequence = !nulls[SESSION_FIRST_SEQUENCE - 1];
	run->first.sequence =
		run->first.has_sequence ? DatumGetInt64(values[SESSION_FIRST_SEQUENCE - 1]) : 0;
	run->first.event_id = bytes_from_datum(values[SESSION_FIRST_EVENT_ID - 1], false);
	run->id_event = run->first.event_id;
	run->last.at = DatumGetTimestampTz(values[SESSION_ENDED_AT - 1]);
	run->last.has_sequence = !nulls[SESSION_LAST_SEQUENCE - 1];
	run->last.sequence =
		run->last.has_sequence ? DatumGetInt64(values[SESSION_LAST_SEQUENCE - 1]) : 0;
	run->last.event_id = bytes_from_datum(values[SESSION_LAST_EVENT_ID - 1], false);

	run->entry_type = bytes_from_datum(values[SESSION_ENTRY_TYPE - 1], false);
	run->exit_type = bytes_from_datum(values[SESSION_EXIT_TYPE - 1], false);
	run->entry_page =
		bytes_from_datum(values[SESSION_ENTRY_PAGE - 1], nulls[SESSION_ENTRY_PAGE - 1]);
	run->exit_page = bytes_from_datum(values[SESSION_EXIT_PAGE - 1], nulls[SESSION_EXIT_PAGE - 1]);
	run->user_id = bytes_from_datum(values[SESSION_USER_ID - 1], nulls[SESSION_USER_ID - 1]);
	if (!nulls[SESSION_ENTRY_PROPERTIES - 1])
		run->properties = DatumGetJsonbP(values[SESSION_ENTRY_PROPERTIES - 1]);
	run->entry_page_key =
		stored_key(values, nulls, SESSION_ENTRY_PAGE_AT, SESSION_ENTRY_PAGE_SEQUENCE,
				   SESSION_ENTRY_PAGE_EVENT_ID, &run->first);
	run->exit_page_key = stored_key(values, nulls, SESSION_EXIT_PAGE_AT, SESSION_EXIT_PAGE_SEQUENCE,
									SESSION_EXIT_PAGE_EVENT_ID, &run->last);
	run->properties_key =
		stored_key(values, nulls, SESSION_PROPERTIES_AT, SESSION_PROPERTIES_SEQUENCE,
				   SESSION_PROPERTIES_EVENT_ID, &run->first);
	run->user_key = stored_key(values, nulls, SESSION_USER_AT, SESSION_USER_SEQUENCE,
							   SESSION_USER_EVENT_ID, &run->last);

	run->events = DatumGetInt64(values[SESSION_EVENTS - 1]);
	run->page_views = DatumGetInt64(values[SESSION_PAGE_VIEWS - 1]);
	read_types(run, DatumGetJsonbP(values[SESSION_TYPE_COUNTS - 1]));
}

static void
optional_text(Datum *values, bool *nulls, int attribute, Bytes bytes)
{
	nulls[attribute - 1] = bytes.data == NULL;
	values[attribute - 1] = bytes.data == NULL ? (Datum) 0 : bytes_to_datum(bytes);
}

/* A tuple in the current context; its values are made in "scratch", which is then reset. */
HeapTuple
session_run_to_row(SessionRun *run, const SessionVisitor *visitor, TupleDesc desc,
				   MemoryContext scratch)
{
	MemoryContext context = MemoryContextSwitchTo(scratch);
	Datum values[SESSION_NATTS];
	bool nulls[SESSION_NATTS] = {0};
	HeapTuple tuple;

	values[SESSION_ID - 1] = UUIDPGetDatum(&run->id);
	values[SESSION_VISITOR_HASH - 1] = Int64GetDatum(visitor->hash);
	values[SESSION_STARTED_AT - 1] = TimestampTzGetDatum(run->first.at);
	values[SESSION_ENDED_AT - 1] = TimestampTzGetDatum(run->last.at);
	values[SESSION_EVENTS - 1] = Int64GetDatum(run->events);
	values[SESSION_PAGE_VIEWS - 1] = Int64GetDatum(run->page_views);
	values[SESSION_FIRST_SEQUENCE - 1] = Int64GetDatum(run->first.sequence);
	nulls[SESSION_FIRST_SEQUENCE - 1] = !run->first.has_sequence;
	values[SESSION_LAST_SEQUENCE - 1] = Int64GetDatum(run->last.sequence);
	nulls[SESSION_LAST_SEQUENCE - 1] = !run->last.has_sequence;
	store_key(values, nulls, SESSION_ENTRY_PAGE_AT, SESSION_ENTRY_PAGE_SEQUENCE,
			  SESSION_ENTRY_PAGE_EVENT_ID, &run->entry_page_key, run->entry_page.data != NULL,
			  &run->first);
	store_key(values, nulls, SESSION_EXIT_PAGE_AT, SESSION_EXIT_PAGE_SEQUENCE,
			  SESSION_EXIT_PAGE_EVENT_ID, &run->exit_page_key, run->exit_page.data != NULL,
			  &run->last);
	store_key(values, nulls, SESSION_PROPERTIES_AT, SESSION_PROPERTIES_SEQUENCE,
			  SESSION_PROPERTIES_EVENT_ID, &run->properties_key, run->properties != NULL,
			  &run->first);
	store_key(values, nulls, SESSION_USER_AT, SESSION_USER_SEQUENCE, SESSION_USER_EVENT_ID,
			  &run->user_key, run->user_id.data != NULL, &run->last);
	values[SESSION_SOURCE - 1] = bytes_to_datum(visitor->source);
	values[SESSION_VISITOR - 1] = bytes_to_datum(visitor->visitor);
	optional_text(values, nulls, SESSION_USER_ID, run->user_id);
	values[SESSION_ENTRY_TYPE - 1] = bytes_to_datum(run->entry_type);
	optional_text(values, nulls, SESSION_ENTRY_PAGE, run->entry_page);
	values[SESSION_EXIT_TYPE - 1] = bytes_to_datum(run->exit_type);
	optional_text(values, nulls, SESSION_EXIT_PAGE, run->exit_page);
	nulls[SESSION_ENTRY_PROPERTIES - 1] = run->properties == NULL;
	values[SESSION_ENTRY_PROPERTIES - 1] = PointerGetDatum(run->properties);
	values[SESSION_TYPE_COUNTS - 1] = PointerGetDatum(types_to_jsonb(run));
	values[SESSION_FIRST_EVENT_ID - 1] = bytes_to_datum(run->first.event_id);
	values[SESSION_LAST_EVENT_ID - 1] = bytes_to_datum(run->last.event_id);

	MemoryContextSwitchTo(context);
	tuple = heap_form_tuple(desc, values, nulls);
	MemoryContextReset(scratch);
	return tuple;
}

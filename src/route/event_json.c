/*
 * event_json.c
 *		An event as EventBridge shows it: what event patterns see.
 *
 *	version		"0"
 *	id			event_id
 *	detail-type	type
 *	source		source
 *	time		occurred_at, RFC 3339 in UTC
 *	resources	[]
 *	detail		properties
 *
 * and user_id, anonymous_id, actor, sequence, context and received_at (as time) under their own
 * names, where they are not NULL.  The keys account and region are not there.
 * pattern_set_match_row() sees the same without making it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tupdesc.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "core/compat.h"
#include "route/event_json.h"

PG_FUNCTION_INFO_V1(behavior_event_json);

int
event_time_text(TimestampTz time, char *text)
{
	struct pg_tm tm;
	fsec_t fraction;
	int length;

	/* Never outside of what a timestamp can be. */
	if (TIMESTAMP_NOT_FINITE(time) || timestamp2tm(time, NULL, &tm, &fraction, NULL, NULL) != 0)
		return snprintf(text, EVENT_TIME_LENGTH, "%sinfinity",
						TIMESTAMP_IS_NOBEGIN(time) ? "-" : "");
	/* Before Christ as ISO 8601 has it: the year 0 is 1 BC. */
	length = snprintf(text, EVENT_TIME_LENGTH, "%s%04d-%02d-%02dT%02d:%02d:%02d",
					  tm.tm_year < 0 ? "-" : "", abs(tm.tm_year), tm.tm_mon, tm.tm_mday, tm.tm_hour,
					  tm.tm_min, tm.tm_sec);
	if (fraction != 0)
	{
		length += snprintf(text + length, EVENT_TIME_LENGTH - length, ".%06d", (int) fraction);
		while (text[length - 1] == '0')
			length--;
	}
	text[length++] = 'Z';
	text[length] = '\0';
	return length;
}

static void
put_key(JsonbParseState **state, const char *key)
{
	JsonbValue value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, key);
	value.val.string.len = strlen(key);
	pushJsonbValue(state, WJB_KEY, &value);
}

static void
put_string(JsonbParseState **state, const char *key, const char *data, int length)
{
	JsonbValue value;

	put_key(state, key);
	value.type = jbvString;
	value.val.string.val = unconstify(char *, data);
	value.val.string.len = length;
	pushJsonbValue(state, WJB_VALUE, &value);
}

/* The columns of behavior.event by name, so that later ones do not matter. */
typedef struct Columns
{
	TupleDesc desc;
	HeapTupleData tuple;
} Columns;

static bool
get_column(Columns *columns, const char *name, Oid type, Datum *value)
{
	for (int i = 0; i < columns->desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(columns->desc, i);
		bool isnull;

		if (att->attisdropped || strcmp(NameStr(att->attname), name) != 0)
			continue;
		if (att->atttypid != type)
			break;
		*value = heap_getattr(&columns->tuple, i + 1, columns->desc, &isnull);
		return !isnull;
	}
	return false;
}

static void
put_text(JsonbParseState **state, Columns *columns, const char *column, const char *key)
{
	Datum value;

	if (get_column(columns, column, TEXTOID, &value))
	{
		text *string = DatumGetTextPP(value);

		put_string(state, key, VARDATA_ANY(string), VARSIZE_ANY_EXHDR(string));
	}
}

static void
put_time(JsonbParseState **state, Columns *columns, const char *column, const char *key)
{
	Datum value;

	if (get_column(columns, column, TIMESTAMPTZOID, &value))
	{
		char *buffer = palloc(EVENT_TIME_LENGTH);

		put_string(state, key, buffer, event_time_text(DatumGetTimestampTz(value), buffer));
	}
}

static void
put_object(JsonbParseState **state, Columns *columns, const char *column, const char *key,
		   bool always)
{
	JsonbValue value;
	Datum datum;

	if (get_column(columns, column, JSONBOID, &datum))
	{
		Jsonb *object = DatumGetJsonbP(datum);

		put_key(state, key);
		if (JB_ROOT_IS_SCALAR(object))
			(void) JsonbExtractScalar(&object->root, &value);
		else
		{
			value.type = jbvBinary;
			value.val.binary.data = &object->root;
			value.val.binary.len = VARSIZE(object) - VARHDRSZ;
		}
		pushJsonbValue(state, WJB_VALUE, &value);
	}
	else if (always)
	{
		put_key(state, key);
		pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
		pushJsonbValue(state, WJB_END_OBJECT, NULL);
	}
}

Datum
behavior_event_json(PG_FUNCTION_ARGS)
{
	HeapTupleHeader header = PG_GETARG_HEAPTUPLEHEADER(0);
	JsonbParseState *state = NULL;
	JsonbValue value;
	Columns columns;
	Datum datum;

	columns.desc =
		lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header), HeapTupleHeaderGetTypMod(header));
	columns.tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&columns.tuple.t_self);
	columns.tuple.t_tableOid = InvalidOid;
	columns.tuple.t_data = header;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	put_string(&state, "version", EVENT_VERSION, strlen(EVENT_VERSION));
	put_text(&state, &columns, "event_id", "id");
	put_text(&state, &columns, "type", "detail-type");
	put_text(&state, &columns, "source", "source");
	put_time(&state, &columns, "occurred_at", "time");
	put_key(&state, "resources");
	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	put_object(&state, &columns, "properties", "detail", true);
	put_text(&state, &columns, "user_id", "user_id");
	put_text(&state, &columns, "anonymous_id", "anonymous_id");
	put_text(&state, &columns, "actor", "actor");
	if (get_column(&columns, "sequence", INT8OID, &datum))
	{
		put_key(&state, "sequence");
		value.type = jbvNumeric;
		value.val.numeric = int64_to_numeric(DatumGetInt64(datum));
		pushJsonbValue(&state, WJB_VALUE, &value);
	}
	put_object(&state, &columns, "context", "context", false);
	put_time(&state, &columns, "received_at", "received_at");
	ReleaseTupleDesc(columns.desc);
	PG_RETURN_JSONB_P(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

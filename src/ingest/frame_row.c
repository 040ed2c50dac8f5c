/*
 * frame_row.c
 *		Lays an event into the frame's arena as a row of behavior.log, ready to be stored.
 *
 * The row is made once, in the form in which a page keeps it, and its values point into it: forming
 * a tuple at the flush would measure and copy each value again.  What heap_form_tuple() makes of
 * the same values must come out: short headers where they fit, padding of zeros before others.
 * But a row that no handler sent ends before the column hops, which then reads as NULL: a row that
 * has all other columns would need a bitmap for it.
 */
#include "postgres.h"

#include "access/htup_details.h"

#include "core/compat.h"
#include "ingest/frame_internal.h"

/* What the header of a value and the padding before it take at most. */
#define VALUE_OVERHEAD (VARHDRSZ + sizeof(int32) - 1)

typedef struct RowWriter
{
	LogRow *row;
	char *cur;
} RowWriter;

static inline void
put_int64(RowWriter *w, int column, int64 value)
{
	memcpy(w->cur, &value, sizeof(value));
	w->row->values[column - 1] = Int64GetDatum(value);
	w->row->isnull[column - 1] = false;
	w->cur += sizeof(value);
}

static inline void
put_int16(RowWriter *w, int column, int16 value)
{
	char *aligned = (char *) SHORTALIGN(w->cur);

	while (w->cur < aligned)
		*w->cur++ = 0;
	memcpy(w->cur, &value, sizeof(value));
	w->row->values[column - 1] = Int16GetDatum(value);
	w->row->isnull[column - 1] = false;
	w->cur += sizeof(value);
}

/* A value of variable length. */
static inline void
put_bytes(RowWriter *w, int column, const void *data, size_t length)
{
	char *value = w->cur;

	if (length + VARHDRSZ_SHORT <= VARATT_SHORT_MAX)
	{
		SET_VARSIZE_SHORT(value, length + VARHDRSZ_SHORT);
		memcpy(VARDATA_SHORT(value), data, length);
		w->cur += length + VARHDRSZ_SHORT;
	}
	else
	{
		char *aligned = (char *) INTALIGN(value);

		while (value < aligned)
			*value++ = 0;
		SET_VARSIZE(value, length + VARHDRSZ);
		memcpy(VARDATA(value), data, length);
		w->cur = value + length + VARHDRSZ;
	}
	w->row->values[column - 1] = PointerGetDatum(value);
	w->row->isnull[column - 1] = false;
}

static inline bool
text_lacks(const TextField *field)
{
	return field->data == NULL || field->length == 0;
}

static inline void
put_text(RowWriter *w, int column, const TextField *field)
{
	if (text_lacks(field))
		w->row->isnull[column - 1] = true;
	else
		put_bytes(w, column, field->data, field->length);
}

static inline void
put_jsonb(RowWriter *w, int column, const Jsonb *jsonb)
{
	put_bytes(w, column, VARDATA(jsonb), VARSIZE(jsonb) - VARHDRSZ);
}

static inline size_t
jsonb_size(const Jsonb *jsonb)
{
	return jsonb == NULL ? sizeof(JsonbContainer) : VARSIZE(jsonb);
}

void
frame_form_row(Frame *frame, const Event *event, const TextField *event_id, const TextField *source,
			   TimestampTz now, LogRow *row)
{
	static const uint32 empty_object = JB_FOBJECT;
	/* A row without NULLs has no bitmap: amcheck takes room for one to be corruption. */
	bool nulls = !event->has_sequence || event->context == NULL || text_lacks(event_id) ||
				 text_lacks(source) || text_lacks(&event->type) || text_lacks(&event->user_id) ||
				 text_lacks(&event->anonymous_id);
	int natts = frame_hops == 0 ? LOG_HOPS - 1 : LOG_NATTS;
	size_t header = MAXALIGN(SizeofHeapTupleHeader + (nulls ? BITMAPLEN(natts) : 0));
	size_t most = HEAPTUPLESIZE + header + 4 * sizeof(int64) + event_id->length + source->length +
				  event->type.length + event->user_id.length + event->anonymous_id.length +
				  jsonb_size(event->properties) + jsonb_size(event->context) + 7 * VALUE_OVERHEAD +
				  2 * sizeof(int16);
	HeapTuple tuple = frame_alloc(frame, most);
	HeapTupleHeader data = (HeapTupleHeader) ((char *) tuple + HEAPTUPLESIZE);
	RowWriter w = {row, (char *) data + header};

	put_int64(&w, LOG_OCCURRED_AT,
			  event->has_occurred_at  ? event->occurred_at
			  : event->origin != NULL ? event->origin->received_at
									  : now);
	put_int64(&w, LOG_RECEIVED_AT, now);
	put_int64(&w, LOG_BATCH_ID, frame_batch_id(frame));
	row->isnull[LOG_SEQUENCE - 1] = true;
	row->values[LOG_SEQUENCE - 1] = 0;
	if (event->has_sequence)
		put_int64(&w, LOG_SEQUENCE, event->sequence);
	put_text(&w, LOG_EVENT_ID, event_id);
	put_text(&w, LOG_SOURCE, source);
	put_text(&w, LOG_TYPE, &event->type);
	put_text(&w, LOG_USER_ID, &event->user_id);
	put_text(&w, LOG_ANONYMOUS_ID, &event->anonymous_id);
	if (event->properties != NULL)
		put_jsonb(&w, LOG_PROPERTIES, event->properties);
	else
		put_bytes(&w, LOG_PROPERTIES, &empty_object, sizeof(empty_object));
	row->isnull[LOG_CONTEXT - 1] = true;
	if (event->context != NULL)
		put_jsonb(&w, LOG_CONTEXT, event->context);
	row->isnull[LOG_HOPS - 1] = true;
	row->values[LOG_HOPS - 1] = 0;
	if (frame_hops != 0)
		put_int16(&w, LOG_HOPS, frame_hops);

	memset(data, 0, header);
	for (int i = 0; nulls && i < natts; i++)
	{
		if (!row->isnull[i])
			data->t_bits[i / 8] |= 1 << (i % 8);
	}
	data->t_infomask = HEAP_HASVARWIDTH;
	if (nulls)
		data->t_infomask |= HEAP_HASNULL;
	data->t_hoff = header;
	HeapTupleHeaderSetNatts(data, natts);
	ItemPointerSetInvalid(&data->t_ctid);
	tuple->t_len = w.cur - (char *) data;
	tuple->t_tableOid = InvalidOid;
	ItemPointerSetInvalid(&tuple->t_self);
	tuple->t_data = data;
	row->tuple = tuple;
	frame_give_back(frame, w.cur);
}

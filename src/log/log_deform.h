/*
 * log_deform.h
 *		Values of a stored row of the log, column by column up to the last one that is wanted.
 *
 * What slot_getsomeattrs() does for any row, without what it asks for each: the columns are walked
 * once, by numbers that are looked up once a scan.
 */
#ifndef BEHAVIOR_LOG_DEFORM_H
#define BEHAVIOR_LOG_DEFORM_H

#include "access/htup_details.h"
#include "access/tupmacs.h"

#include "core/compat.h"
#include "log/log_row.h"

typedef struct LogColumn
{
	int16 length; /* -1: by reference, of any length */
	uint8 align;  /* less one */
	bool byval;
} LogColumn;

typedef struct LogLayout
{
	TupleDesc desc;
	int last; /* number of the last column that is wanted */
	LogColumn columns[LOG_NATTS];
} LogLayout;

/* False when rows of "desc" cannot be walked this way. */
static inline bool
log_layout_init(LogLayout *layout, TupleDesc desc, int last)
{
	if (desc->natts != LOG_NATTS)
		return false;
	layout->desc = desc;
	layout->last = last;
	for (int i = 0; i < LOG_NATTS; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (attribute->attlen == 0 || attribute->attlen < -1)
			return false;
		layout->columns[i].length = attribute->attlen;
		layout->columns[i].byval = attribute->attbyval;
		layout->columns[i].align = att_align_nominal(1, attribute->attalign) - 1;
	}
	return true;
}

/* Sets values and isnull of the first layout->last columns; they point into the tuple. */
static inline void
log_deform(const LogLayout *layout, MinimalTuple tuple, Datum *values, bool *isnull)
{
	HeapTupleHeader header = (HeapTupleHeader) ((char *) tuple - MINIMAL_TUPLE_OFFSET);
	const bits8 *present = (header->t_infomask & HEAP_HASNULL) != 0 ? header->t_bits : NULL;
	char *data = (char *) header + header->t_hoff;
	int stored = Min(HeapTupleHeaderGetNatts(header), layout->last);
	Size at = 0;
	int i;

	for (i = 0; i < stored; i++)
	{
		const LogColumn *column = &layout->columns[i];

		isnull[i] = present != NULL && att_isnull(i, present);
		if (isnull[i])
			continue;
		if (column->length == -1)
		{
			/* A value with a short header begins anywhere, and not with a zero. */
			if (VARATT_NOT_PAD_BYTE(data + at) == 0)
				at = (at + column->align) & ~(Size) column->align;
			values[i] = PointerGetDatum(data + at);
			at += VARSIZE_ANY(data + at);
		}
		else
		{
			at = (at + column->align) & ~(Size) column->align;
			values[i] = fetch_att(data + at, column->byval, column->length);
			at += column->length;
		}
	}
	for (; i < layout->last; i++)
		values[i] = getmissingattr(layout->desc, i + 1, &isnull[i]);
}

#endif

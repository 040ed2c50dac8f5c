/*
 * tick_rows.c
 *		Rows of a chunk of events in memory by number, and the type of each as a small number.
 *
 * Made in one pass, when a second look at the chunk or one that asks for types is due.  Types are
 * few; one that is compressed, or comes when the table is full or crowded where it belongs, is
 * "another" and is compared by who asks for it.
 */
#include "postgres.h"

#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "fold/tick_rows.h"
#include "log/log_deform.h"

#define SLOTS  (4 * TICK_ROWS_TYPES) /* a power of two */
#define PROBES 32					 /* slots that a type may lie behind the one of its hash */

/* The slot of a type, or the empty one in which it belongs; NULL when others are in its way. */
static uint16 *
find_slot(const TickRows *rows, uint16 *slots, const char *data, uint32 length)
{
	uint32 hash = length * 31;

	for (uint32 i = 0; i < length; i++)
		hash = (hash ^ (uint8) data[i]) * 0x01000193;
	hash ^= hash >> 15;
	for (uint32 probe = 0; probe < PROBES; probe++)
	{
		uint16 *found = &slots[(hash + probe) & (SLOTS - 1)];
		const TickRowType *type = &rows->types[*found];

		if (*found == 0 || (type->length == length && memcmp(type->data, data, length) == 0))
			return found;
	}
	return NULL;
}

/* The number of a type, given now when it is new. */
static uint16
number_of(TickRows *rows, uint16 *slots, const struct varlena *type)
{
	const char *data;
	uint32 length;
	uint16 *slot;

	if (VARATT_IS_EXTERNAL(type) || VARATT_IS_COMPRESSED(type))
		return TICK_ROWS_OTHER_TYPE;
	data = VARDATA_ANY(type);
	length = VARSIZE_ANY_EXHDR(type);
	slot = find_slot(rows, slots, data, length);
	if (slot == NULL)
		return TICK_ROWS_OTHER_TYPE;
	if (*slot == 0 && rows->ntypes < TICK_ROWS_TYPES)
	{
		*slot = ++rows->ntypes;
		rows->types[*slot].data = data;
		rows->types[*slot].length = length;
	}
	return *slot;
}

TickRows *
tick_rows_make(Tuplestorestate *store, TupleDesc desc, int64 count, MemoryContext parent)
{
	MemoryContext context;
	MemoryContext caller;
	TickRows *rows;
	TupleTableSlot *slot;
	LogLayout layout;
	uint16 *slots;
	Datum values[LOG_NATTS];
	bool isnull[LOG_NATTS];

	if (!tuplestore_in_memory(store) || !log_layout_init(&layout, desc, LOG_TYPE))
		return NULL;
	context = AllocSetContextCreate(parent, "behavior tick rows", ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(context);
	rows = palloc0(sizeof(TickRows));
	rows->rows = MemoryContextAllocHuge(context, count * sizeof(MinimalTuple));
	rows->type_of = MemoryContextAllocHuge(context, count * sizeof(uint16));
	MemoryContextSwitchTo(caller);

	slots = palloc0(SLOTS * sizeof(uint16));
	slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	tuplestore_rescan(store);
	while (rows->count < count && tuplestore_gettupleslot(store, true, false, slot))
	{
		MinimalTuple row = ((MinimalTupleTableSlot *) slot)->mintuple;

		CHECK_FOR_INTERRUPTS();
		log_deform(&layout, row, values, isnull);
		rows->rows[rows->count] = row;
		rows->type_of[rows->count++] =
			isnull[LOG_TYPE - 1]
				? TICK_ROWS_OTHER_TYPE
				: number_of(rows, slots,
							(const struct varlena *) DatumGetPointer(values[LOG_TYPE - 1]));
	}
	ExecDropSingleTupleTableSlot(slot);
	pfree(slots);
	return rows;
}

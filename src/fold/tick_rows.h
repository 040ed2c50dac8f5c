/*
 * tick_rows.h
 *		Rows of a chunk of events in memory by number, and the type of each as a small number.
 *
 * What a tuplestore cannot tell: where its rows lie.  A rollup that asks for events of one type
 * passes by the others without a look at them.
 */
#ifndef BEHAVIOR_TICK_ROWS_H
#define BEHAVIOR_TICK_ROWS_H

#include "access/htup_details.h"
#include "access/tupdesc.h"
#include "utils/tuplestore.h"

/* Types that are told apart; the others are TICK_ROWS_OTHER_TYPE. */
#define TICK_ROWS_TYPES		 1024
#define TICK_ROWS_OTHER_TYPE 0

typedef struct TickRowType
{
	const char *data;
	uint32 length;
} TickRowType;

/* Valid as long as the tuplestore, which must not go to disk. */
typedef struct TickRows
{
	int64 count;
	MinimalTuple *rows;
	uint16 *type_of;
	int ntypes; /* numbers 1 .. ntypes are in use */
	TickRowType types[TICK_ROWS_TYPES + 1];
} TickRows;

/* In a context of its own below "parent"; NULL when the rows are not all in memory. */
extern TickRows *
tick_rows_make(Tuplestorestate *store, TupleDesc desc, int64 count, MemoryContext parent);

#endif

/*
 * table_row.h
 *		Writing rows of the extension's own tables, whatever indexes somebody added to them.
 *
 * CatalogTupleInsert() and its kin are quick but know plain indexes only: on an expression they
 * crash, and in a partial index they enter every row.  These fall back on the executor there.
 */
#ifndef BEHAVIOR_TABLE_ROW_H
#define BEHAVIOR_TABLE_ROW_H

#include "access/htup.h"
#include "catalog/indexing.h"
#include "executor/tuptable.h"
#include "utils/relcache.h"

/* With the indexes that CatalogOpenIndexes() opened, or NULL: opened here. */
extern void table_row_insert(Relation rel, HeapTuple tuple, CatalogIndexState indexes);
extern void
table_row_update(Relation rel, ItemPointer tid, HeapTuple tuple, CatalogIndexState indexes);
extern void
table_rows_insert(Relation rel, TupleTableSlot **slots, int n, CatalogIndexState indexes);

/* Is it a B-tree on columns alone, of which no entry waits for the end of the transaction? */
extern bool table_index_is_plain(Relation index);

/* An entry of a row that stands in the table, in a plain index or one of kind hash. */
extern void
table_index_insert(Relation rel, Relation index, Datum *values, bool *isnull, ItemPointer tid);

/* Does the latest snapshot see a row?  Cheap where the table is empty. */
extern bool table_has_rows(Oid relid);

#endif

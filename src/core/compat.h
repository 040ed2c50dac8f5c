/*
 * compat.h
 *		What differs between the supported PostgreSQL versions, by feature name.
 *
 * The only file that looks at PG_VERSION_NUM.
 */
#ifndef BEHAVIOR_COMPAT_H
#define BEHAVIOR_COMPAT_H

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 190000
#error "behavior supports PostgreSQL 15 to 18"
#endif

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "executor/executor.h"
#include "nodes/tidbitmap.h"
#include "parser/parse_node.h"
#include "storage/bufmgr.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/rel.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* Functions that do not return: 18 has a word for it. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* A hint that memory will be read soon. */
#ifdef __GNUC__
#define prefetch_memory(address) __builtin_prefetch(address)
#else
#define prefetch_memory(address) ((void) (address))
#endif

/* 17 put a backend's virtual transaction id into a struct of its own. */
#if PG_VERSION_NUM >= 170000
#define MY_LXID (MyProc->vxid.lxid)
#else
#define MY_LXID (MyProc->lxid)
#endif

/* Index scans that report what they did to EXPLAIN: an argument more. */
#if PG_VERSION_NUM >= 180000
#define index_beginscan_compat(heap, index, snapshot, nkeys, norderbys)                            \
	index_beginscan(heap, index, snapshot, NULL, nkeys, norderbys)
#else
#define index_beginscan_compat(heap, index, snapshot, nkeys, norderbys)                            \
	index_beginscan(heap, index, snapshot, nkeys, norderbys)
#endif

/* Checks of ownership and privileges by kind of object became one function each in 16. */
#if PG_VERSION_NUM >= 160000
#define database_ownercheck(oid, role) object_ownercheck(DatabaseRelationId, (oid), (role))
#define function_aclcheck(oid, role)                                                               \
	object_aclcheck(ProcedureRelationId, (oid), (role), ACL_EXECUTE)
#define relation_ownercheck(oid, role) object_ownercheck(RelationRelationId, (oid), (role))
#else
#define database_ownercheck(oid, role) pg_database_ownercheck((oid), (role))
#define function_aclcheck(oid, role)   pg_proc_aclcheck((oid), (role), ACL_EXECUTE)
#define relation_ownercheck(oid, role) pg_class_ownercheck((oid), (role))
#endif

#if PG_VERSION_NUM >= 170000
#define HAVE_TRANSACTION_TIMEOUT
#endif

/* Index entries of a new row; the list names deferred constraints to check again. */
static inline List *
compat_insert_index_tuples(ResultRelInfo *result, TupleTableSlot *slot, EState *estate)
{
#if PG_VERSION_NUM >= 160000
	return ExecInsertIndexTuples(result, slot, estate, false, false, NULL, NIL, false);
#else
	return ExecInsertIndexTuples(result, slot, estate, false, false, NULL, NIL);
#endif
}

/* 17: what an index keeps between inserts, such as a pinned page, is let go of at their end. */
static inline void
compat_index_insert_end(Relation index, IndexInfo *info)
{
#if PG_VERSION_NUM >= 170000
	index_insert_cleanup(index, info);
#endif
}

/* Index entries of a row that may be a new version; of a heap-only one 16 enters it into BRIN
 * alone. */
static inline List *
compat_index_row(ResultRelInfo *result, TupleTableSlot *slot, EState *estate, bool only_summarizing)
{
#if PG_VERSION_NUM >= 160000
	return ExecInsertIndexTuples(result, slot, estate, false, false, NULL, NIL, only_summarizing);
#else
	return ExecInsertIndexTuples(result, slot, estate, false, false, NULL, NIL);
#endif
}

/* Updates a row; true when the new version needs entries in indexes. */
static inline bool
compat_heap_update(Relation rel, ItemPointer tid, HeapTuple tuple, bool *only_summarizing)
{
#if PG_VERSION_NUM >= 160000
	TU_UpdateIndexes update;

	simple_heap_update(rel, tid, tuple, &update);
	*only_summarizing = update == TU_Summarizing;
	return update != TU_None;
#else
	simple_heap_update(rel, tid, tuple);
	*only_summarizing = false;
	return !HeapTupleIsHeapOnly(tuple);
#endif
}

/* Pins a buffer if it still holds this block; false when not. */
static inline bool
compat_read_recent_buffer(Relation rel, BlockNumber block, Buffer buffer)
{
#if PG_VERSION_NUM >= 160000
	return ReadRecentBuffer(rel->rd_locator, MAIN_FORKNUM, block, buffer);
#else
	return ReadRecentBuffer(rel->rd_node, MAIN_FORKNUM, block, buffer);
#endif
}

/* Does this backend hold exactly this lock? */
static inline bool
compat_lock_held_by_me(const LOCKTAG *tag, LOCKMODE mode)
{
#if PG_VERSION_NUM >= 170000
	return LockHeldByMe(tag, mode, false);
#else
	return LockHeldByMe(tag, mode);
#endif
}

static inline IndexScanDesc
compat_index_beginscan_bitmap(Relation index, Snapshot snapshot, int nkeys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan_bitmap(index, snapshot, NULL, nkeys);
#else
	return index_beginscan_bitmap(index, snapshot, nkeys);
#endif
}

/* Blocks of a bitmap in ascending order; false at its end. */
#if PG_VERSION_NUM >= 180000
typedef TBMPrivateIterator CompatBlockIterator;
#else
typedef TBMIterator CompatBlockIterator;
#endif

static inline CompatBlockIterator *
compat_block_iterator(TIDBitmap *bitmap)
{
#if PG_VERSION_NUM >= 180000
	return tbm_begin_private_iterate(bitmap);
#else
	return tbm_begin_iterate(bitmap);
#endif
}

static inline bool
compat_next_block(CompatBlockIterator *iterator, BlockNumber *block)
{
#if PG_VERSION_NUM >= 180000
	TBMIterateResult result;

	if (!tbm_private_iterate(iterator, &result))
		return false;
	*block = result.blockno;
#else
	TBMIterateResult *result = tbm_iterate(iterator);

	if (result == NULL)
		return false;
	*block = result->blockno;
#endif
	return true;
}

static inline void
compat_end_block_iterator(CompatBlockIterator *iterator)
{
#if PG_VERSION_NUM >= 180000
	tbm_end_private_iterate(iterator);
#else
	tbm_end_iterate(iterator);
#endif
}

/* Input functions that report an error without raising it. */
#if PG_VERSION_NUM >= 160000
#define HAVE_SOFT_ERRORS 1
#include "nodes/miscnodes.h"
#endif

/* 16: COPY's option DEFAULT. */
#if PG_VERSION_NUM >= 160000
#define COPY_HAS_DEFAULT_MARKER(options) ((options)->default_print != NULL)
#else
#define COPY_HAS_DEFAULT_MARKER(options) false
#endif

/* Before 17 every interval is finite. */
#if PG_VERSION_NUM < 170000
#define INTERVAL_NOT_FINITE(interval) false
#endif

/* 18: whether a deferrable primary key will do. */
#if PG_VERSION_NUM >= 180000
#define RelationGetPrimaryKeyIndex_compat(rel) RelationGetPrimaryKeyIndex(rel, false)
#else
#define RelationGetPrimaryKeyIndex_compat(rel) RelationGetPrimaryKeyIndex(rel)
#endif

/* 18: the target list refers to GROUP BY expressions through a range table entry of their own. */
#if PG_VERSION_NUM >= 180000
#define query_ungrouped_targets(query)                                                             \
	((query)->hasGroupRTE                                                                          \
		 ? (List *) flatten_group_exprs(NULL, (query), (Node *) (query)->targetList)               \
		 : (query)->targetList)
#else
#define query_ungrouped_targets(query) ((query)->targetList)
#endif

#endif

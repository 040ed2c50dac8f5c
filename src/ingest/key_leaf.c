/*
 * key_leaf.c
 *		Whether a range of a B-tree is as it was: by the LSNs of its leaf pages.
 *
 * An entry can come into a range only on the leaves that cover it, and each change of a page that
 * matters is logged and gives it a new LSN: inserts, splits, deletions of a page or of its right
 * sibling.  So where the leaves from one that begins before the range to one that ends behind it
 * have the LSNs that they had, the range has the entries that it had.  Pages are told by the file
 * too: REINDEX, CLUSTER and TRUNCATE make a new one.  What is not logged, as in a transaction that
 * made the index under wal_level = minimal, is never noted.
 *
 * Inserts into the range itself are kept off by the caller's lock; others may go on meanwhile.
 */
#include "postgres.h"

#include "access/nbtree.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

#include "ingest/key_leaf.h"
#include "ingest/key_page.h"

/* What is to be known of a leaf. */
typedef struct Leaf
{
	XLogRecPtr lsn; /* invalid: the page is of no use */
	BlockNumber left;
	BlockNumber right;
	bool from_before; /* begins before the range */
	bool to_behind;	  /* ends behind it */
} Leaf;

/* Compares an entry with a key. */
static int
compare_entry(Relation index, Page page, OffsetNumber offset, const uint8 *key)
{
	IndexTuple entry = (IndexTuple) PageGetItem(page, PageGetItemId(page, offset));
	bool isnull;

	return memcmp(DatumGetPointer(index_getattr(entry, 1, RelationGetDescr(index), &isnull)), key,
				  KEY_BYTES);
}

static void
read_leaf(Relation index, BlockNumber block, const uint8 *low, const uint8 *high, Leaf *leaf)
{
	Buffer buffer = ReadBuffer(index, block);
	Page page = BufferGetPage(buffer);
	BTPageOpaque opaque;

	memset(leaf, 0, sizeof(*leaf));
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	opaque = BTPageGetOpaque(page);
	if (P_ISLEAF(opaque) && !P_IGNORE(opaque) &&
		PageGetMaxOffsetNumber(page) >= P_FIRSTDATAKEY(opaque))
	{
		leaf->lsn = BufferGetLSNAtomic(buffer);
		leaf->left = opaque->btpo_prev;
		leaf->right = opaque->btpo_next;
		leaf->from_before =
			P_LEFTMOST(opaque) || compare_entry(index, page, P_FIRSTDATAKEY(opaque), low) < 0;
		leaf->to_behind = P_RIGHTMOST(opaque) || compare_entry(index, page, P_HIKEY, high) > 0;
	}
	UnlockReleaseBuffer(buffer);
}

void
key_leaves_note(KeyLeaves *leaves, Relation index, BlockNumber first, const uint8 *low,
				const uint8 *high, XLogRecPtr before)
{
	BlockNumber block = first;
	Leaf leaf;

	leaves->count = 0;
	if (!RelationNeedsWAL(index))
		return;
	leaves->file = index->rd_rel->relfilenode;

	/* The range may begin on the leaf before. */
	read_leaf(index, block, low, high, &leaf);
	if (!XLogRecPtrIsInvalid(leaf.lsn) && !leaf.from_before)
	{
		block = leaf.left;
		read_leaf(index, block, low, high, &leaf);
	}
	if (!leaf.from_before)
		return;

	for (int i = 0; i < KEY_LEAVES_MAX; i++)
	{
		/* Changed since, it may have been split: then its right sibling is not what was read. */
		if (XLogRecPtrIsInvalid(leaf.lsn) || leaf.lsn > before)
			return;
		leaves->blocks[i] = block;
		leaves->lsns[i] = leaf.lsn;
		if (leaf.to_behind)
		{
			leaves->count = i + 1;
			return;
		}
		block = leaf.right;
		read_leaf(index, block, low, high, &leaf);
	}
}

bool
key_leaves_unchanged(const KeyLeaves *leaves, Relation index)
{
	if (leaves->count == 0 || leaves->file != index->rd_rel->relfilenode ||
		!RelationNeedsWAL(index))
		return false;
	for (int i = 0; i < leaves->count; i++)
	{
		Buffer buffer = ReadBuffer(index, leaves->blocks[i]);
		XLogRecPtr lsn = BufferGetLSNAtomic(buffer);

		ReleaseBuffer(buffer);
		if (lsn != leaves->lsns[i])
			return false;
	}
	return true;
}

/*
 * key_leaf.h
 *		Whether a range of a B-tree is as it was: by the LSNs of its leaf pages.
 *
 * Internal to event_key*.c.
 */
#ifndef BEHAVIOR_KEY_LEAF_H
#define BEHAVIOR_KEY_LEAF_H

#include "access/xlogdefs.h"
#include "storage/block.h"
#include "utils/relcache.h"

#define KEY_LEAVES_MAX 4

/* The leaf pages of a range, as they were when it was read. */
typedef struct KeyLeaves
{
	Oid file;  /* of the index */
	int count; /* 0: not known */
	BlockNumber blocks[KEY_LEAVES_MAX];
	XLogRecPtr lsns[KEY_LEAVES_MAX];
} KeyLeaves;

/*
 * Notes the leaves of what was just read: the uuids from low to high.  "first" is the leaf that the
 * first of them was on; "before" is where WAL ended before reading began.  Notes nothing when
 * the leaves cannot be told, are too many or have changed since.
 */
extern void key_leaves_note(KeyLeaves *leaves, Relation index, BlockNumber first, const uint8 *low,
							const uint8 *high, XLogRecPtr before);

/* Whether nothing has come into the range since. */
extern bool key_leaves_unchanged(const KeyLeaves *leaves, Relation index);

#endif

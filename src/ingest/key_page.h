/*
 * key_page.h
 *		How packed keys and their Bloom filter are laid out on disk.
 *
 * A row of behavior._key_page fills one heap page with keys in ascending order.  Its column
 * "keys", all little endian so that a dump means the same everywhere:
 *
 *		byte 0		version, 1
 *		byte 1		p: leading bytes that all keys of the page share
 *		byte 2		w: bytes of a batch delta
 *		byte 3		0
 *		4 bytes		n: number of keys
 *		8 bytes		smallest batch id
 *		p bytes		the shared leading bytes
 *		n * (16-p)	the rest of each key
 *		n * 8		fingerprints
 *		n * w		batch id minus the smallest
 *
 * Every part has a fixed stride, so a key is found by binary search and its batch without
 * decoding the ones before.  Batch ids in a page of hashed keys are spread evenly over the
 * generation's, where a varint would take one bit in eight more.
 *
 * The filter is a blocked Bloom filter (Putze, Sanders, Singler, "Cache-, Hash- and Space-
 * Efficient Bloom Filters", 2007): a key has KEY_FILTER_PROBES bits in one block of 64 bytes.
 * Keys are pseudorandom already, so their bytes are the hash: the leading eight choose the block
 * by scaling, in the order of the keys, so that a filter is written as a stream while merging
 * and a sorted probe walks through it; the trailing eight give the bits.  A row of
 * behavior._key_filter is a segment of KEY_FILTER_SEGMENT_BLOCKS blocks and alone in its heap
 * page: segment n is in heap block n.
 */
#ifndef BEHAVIOR_KEY_PAGE_H
#define BEHAVIOR_KEY_PAGE_H

#include "port/pg_bswap.h"

#define KEY_BYTES			  16
#define KEY_PAGE_HEADER_BYTES 16
/* What fits a heap page of 8 kB beside page header, line pointer, tuple header and the other
 * columns. */
#define KEY_PAGE_BYTES 8108

#define KEY_FILTER_BLOCK_BYTES	  64
#define KEY_FILTER_KEYS_PER_BLOCK 46 /* 11.1 bits a key: 0.6 % false */
#define KEY_FILTER_PROBES		  7	 /* of 9 bits each */
#define KEY_FILTER_SEGMENT_BLOCKS 126
#define KEY_FILTER_SEGMENT_BYTES  (KEY_FILTER_SEGMENT_BLOCKS * KEY_FILTER_BLOCK_BYTES)

/* The leading eight bytes of a key as a number of the same order. */
static inline uint64
key_leading(const uint8 *key)
{
	uint64 word;

	memcpy(&word, key, sizeof(word));
	return pg_ntoh64(word);
}

static inline uint64
key_trailing(const uint8 *key)
{
	uint64 word;

	memcpy(&word, key + 8, sizeof(word));
	return pg_ntoh64(word);
}

static inline int64
key_filter_block_count(int64 keys)
{
	return Max(1, (keys + KEY_FILTER_KEYS_PER_BLOCK - 1) / KEY_FILTER_KEYS_PER_BLOCK);
}

/* Which block of "blocks" (below 2^32) a key belongs to; never descends as keys ascend. */
static inline int64
key_filter_block(const uint8 *key, int64 blocks)
{
	return (int64) (((key_leading(key) >> 32) * (uint64) blocks) >> 32);
}

static inline void
key_filter_add(uint8 *block, const uint8 *key)
{
	uint64 bits = key_trailing(key);

	for (int i = 0; i < KEY_FILTER_PROBES; i++, bits >>= 9)
		block[(bits >> 3) & 63] |= (uint8) (1 << (bits & 7));
}

/*
 * Half of the bits of a block are set, so asking one after another is one guess in two wrong for
 * the processor: the first three, which let one key in ten pass, are asked together.
 */
static inline bool
key_filter_test(const uint8 *block, const uint8 *key)
{
	uint64 bits = key_trailing(key);
	uint32 all = (uint32) block[(bits >> 3) & 63] >> (bits & 7) &
				 (uint32) block[(bits >> 12) & 63] >> ((bits >> 9) & 7) &
				 (uint32) block[(bits >> 21) & 63] >> ((bits >> 18) & 7) & 1;

	if (all == 0)
		return false;
	bits >>= 27;
	for (int i = 3; i < KEY_FILTER_PROBES; i++, bits >>= 9)
	{
		if ((block[(bits >> 3) & 63] & (1 << (bits & 7))) == 0)
			return false;
	}
	return true;
}

/* A row's "keys", opened for reading; points into the row. */
typedef struct KeyPage
{
	int keys;
	int prefix_bytes;
	int delta_bytes;
	int64 first_batch_id;
	const uint8 *prefix;
	const uint8 *suffixes;
	const uint8 *fingerprints;
	const uint8 *deltas;
} KeyPage;

/* Opens a page; raises XX001 when it is not one. */
extern void key_page_open(KeyPage *page, const uint8 *data, size_t length);

/* Where a key is in the page, or -1.  Complexity: log2 of the keys in the page. */
extern int key_page_find(const KeyPage *page, const uint8 *key);

extern void key_page_key(const KeyPage *page, int index, uint8 *key);
extern int64 key_page_fingerprint(const KeyPage *page, int index);
extern int64 key_page_batch_id(const KeyPage *page, int index);

/* A key on its way from one generation into another. */
typedef struct PackedKey
{
	uint8 key[KEY_BYTES];
	int64 fingerprint;
	int64 batch_id;
} PackedKey;

#define KEY_PAGE_MAX_KEYS (KEY_PAGE_BYTES / 8)

/* A page being filled with ascending keys. */
typedef struct KeyPageBuilder
{
	int keys;
	int prefix_bytes;
	int64 min_batch_id;
	int64 max_batch_id;
	PackedKey entries[KEY_PAGE_MAX_KEYS];
} KeyPageBuilder;

/* Adds a key; false when the page is full without it. */
extern bool key_page_add(KeyPageBuilder *builder, const PackedKey *entry);

/* Writes the page to data[KEY_PAGE_BYTES] and empties the builder; returns its length. */
extern size_t key_page_finish(KeyPageBuilder *builder, uint8 *data);

#endif

/*
 * key_page.c
 *		Pages of packed keys: writing, opening, searching.  The layout is in key_page.h.
 */
#include "postgres.h"

#include "port/pg_bitutils.h"

#include "ingest/key_page.h"

StaticAssertDecl(BLCKSZ >= 8192, "a page of keys is made for heap pages of 8 kB");

#define GUESSES 4 /* before it is searched by halves */

static inline void
store_le(uint8 *to, uint64 value, int bytes)
{
	for (int i = 0; i < bytes; i++, value >>= 8)
		to[i] = (uint8) value;
}

static inline uint64
load_le(const uint8 *from, int bytes)
{
	uint64 value = 0;

	for (int i = bytes - 1; i >= 0; i--)
		value = value << 8 | from[i];
	return value;
}

static inline uint64
load_le64(const uint8 *from)
{
	uint64 value;

	memcpy(&value, from, sizeof(value));
#ifdef WORDS_BIGENDIAN
	value = pg_bswap64(value);
#endif
	return value;
}

static inline void
store_le64(uint8 *to, uint64 value)
{
#ifdef WORDS_BIGENDIAN
	value = pg_bswap64(value);
#endif
	memcpy(to, &value, sizeof(value));
}

static inline size_t
page_length(int keys, int prefix_bytes, int delta_bytes)
{
	return KEY_PAGE_HEADER_BYTES + prefix_bytes +
		   (size_t) keys * (KEY_BYTES - prefix_bytes + 8 + delta_bytes);
}

void
key_page_open(KeyPage *page, const uint8 *data, size_t length)
{
	if (length >= KEY_PAGE_HEADER_BYTES)
	{
		page->prefix_bytes = data[1];
		page->delta_bytes = data[2];
		page->keys = (int) load_le(data + 4, 4);
		page->first_batch_id = (int64) load_le(data + 8, 8);
	}
	if (length < KEY_PAGE_HEADER_BYTES || data[0] != 1 || page->prefix_bytes > KEY_BYTES ||
		page->delta_bytes > 8 || page->keys <= 0 || page->keys > KEY_PAGE_MAX_KEYS ||
		length != page_length(page->keys, page->prefix_bytes, page->delta_bytes))
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("a row of behavior._key_page does not hold a page of keys")));
	page->prefix = data + KEY_PAGE_HEADER_BYTES;
	page->suffixes = page->prefix + page->prefix_bytes;
	page->fingerprints = page->suffixes + page->keys * (KEY_BYTES - page->prefix_bytes);
	page->deltas = page->fingerprints + page->keys * 8;
}

/* Compares what a key has behind the shared leading bytes with a key of the page. */
static inline int
compare_suffix(const KeyPage *page, int index, const uint8 *suffix)
{
	int stride = KEY_BYTES - page->prefix_bytes;

	return memcmp(page->suffixes + index * stride, suffix, stride);
}

static inline uint64
leading_of(const KeyPage *page, int index)
{
	return key_leading(page->suffixes + index * (KEY_BYTES - page->prefix_bytes));
}

/*
 * Narrows down where a key can be by where it should be: keys are evenly spread, so a guess is off
 * by half the square root of their number at most.
 */
static void
interpolate(const KeyPage *page, const uint8 *suffix, int *low, int *high)
{
	uint64 target = key_leading(suffix);
	uint64 least = leading_of(page, *low);
	uint64 most = leading_of(page, *high);

	for (int i = 0; i<GUESSES && * high - *low> 2 && target > least && target < most; i++)
	{
		double share = (double) (target - least) / (double) (most - least);
		int guess = *low + 1 + (int) (share * (*high - *low - 1));
		uint64 leading;

		guess = Min(guess, *high - 1);
		leading = leading_of(page, guess);
		if (leading == target)
			return;
		if (leading < target)
		{
			*low = guess;
			least = leading;
		}
		else
		{
			*high = guess;
			most = leading;
		}
	}
}

int
key_page_find(const KeyPage *page, const uint8 *key)
{
	const uint8 *suffix = key + page->prefix_bytes;
	int low = 0;
	int high = page->keys - 1;

	if (memcmp(page->prefix, key, page->prefix_bytes) != 0)
		return -1;
	/* Keys that share more are few. */
	if (page->prefix_bytes <= KEY_BYTES - 8)
		interpolate(page, suffix, &low, &high);
	while (low <= high)
	{
		int middle = (low + high) / 2;
		int order = compare_suffix(page, middle, suffix);

		if (order == 0)
			return middle;
		if (order < 0)
			low = middle + 1;
		else
			high = middle - 1;
	}
	return -1;
}

/*
 * Copies the sixteen bytes that end where the key ends, then what they should begin with: before
 * the first key stand the shared bytes, so it never reads outside.  Merging does this for each key, and
 * copies of a length that is not known take ten times as long.
 */
void
key_page_key(const KeyPage *page, int index, uint8 *key)
{
	memcpy(key, page->suffixes + index * (KEY_BYTES - page->prefix_bytes) - page->prefix_bytes,
		   KEY_BYTES);
	for (int i = 0; i < page->prefix_bytes; i++)
		key[i] = page->prefix[i];
}

int64
key_page_fingerprint(const KeyPage *page, int index)
{
	return (int64) load_le64(page->fingerprints + index * 8);
}

int64
key_page_batch_id(const KeyPage *page, int index)
{
	return page->first_batch_id +
		   (int64) load_le(page->deltas + index * page->delta_bytes, page->delta_bytes);
}

static int
bytes_needed(uint64 value)
{
	return value == 0 ? 0 : pg_leftmost_one_pos64(value) / 8 + 1;
}

static int
shared_bytes(const uint8 *a, const uint8 *b)
{
	int n = 0;

	while (n < KEY_BYTES && a[n] == b[n])
		n++;
	return n;
}

bool
key_page_add(KeyPageBuilder *builder, const PackedKey *entry)
{
	int prefix_bytes = KEY_BYTES;
	int64 min_batch_id = entry->batch_id;
	int64 max_batch_id = entry->batch_id;

	if (builder->keys > 0)
	{
		/* Keys ascend, so what the first and the last share, all share. */
		prefix_bytes = shared_bytes(builder->entries[0].key, entry->key);
		min_batch_id = Min(builder->min_batch_id, min_batch_id);
		max_batch_id = Max(builder->max_batch_id, max_batch_id);
	}
	if (builder->keys == KEY_PAGE_MAX_KEYS ||
		page_length(builder->keys + 1, prefix_bytes,
					bytes_needed((uint64) max_batch_id - (uint64) min_batch_id)) > KEY_PAGE_BYTES)
		return false;

	builder->entries[builder->keys++] = *entry;
	builder->prefix_bytes = prefix_bytes;
	builder->min_batch_id = min_batch_id;
	builder->max_batch_id = max_batch_id;
	return true;
}

size_t
key_page_finish(KeyPageBuilder *builder, uint8 *data)
{
	int keys = builder->keys;
	int prefix = builder->prefix_bytes;
	int stride = KEY_BYTES - prefix;
	int width = bytes_needed((uint64) builder->max_batch_id - (uint64) builder->min_batch_id);
	uint8 *suffixes = data + KEY_PAGE_HEADER_BYTES + prefix;
	uint8 *fingerprints = suffixes + keys * stride;
	uint8 *deltas = fingerprints + keys * 8;

	data[0] = 1;
	data[1] = (uint8) prefix;
	data[2] = (uint8) width;
	data[3] = 0;
	store_le(data + 4, keys, 4);
	store_le(data + 8, (uint64) builder->min_batch_id, 8);
	memcpy(data + KEY_PAGE_HEADER_BYTES, builder->entries[0].key, prefix);
	for (int i = 0; i < keys; i++)
	{
		const PackedKey *entry = &builder->entries[i];

		/* Sixteen bytes at once: what is too much is overwritten by what follows. */
		memcpy(suffixes + i * stride, (const uint8 *) entry + prefix, KEY_BYTES);
	}
	for (int i = 0; i < keys; i++)
	{
		const PackedKey *entry = &builder->entries[i];

		store_le64(fingerprints + i * 8, (uint64) entry->fingerprint);
		store_le(deltas + i * width, (uint64) entry->batch_id - (uint64) builder->min_batch_id,
				 width);
	}
	builder->keys = 0;
	return page_length(keys, prefix, width);
}

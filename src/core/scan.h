/*
 * scan.h
 *		Finding bytes in text, sixteen at a time where the processor can; hexadecimal digits.
 */
#ifndef BEHAVIOR_SCAN_H
#define BEHAVIOR_SCAN_H

#ifdef __SSE2__
#include <emmintrin.h>

#define SCAN_WIDTH 16

/* A bit for each of the SCAN_WIDTH bytes at "at" that is the byte "c". */
static inline uint32
scan_block(const char *at, char c)
{
	return (uint32) _mm_movemask_epi8(
		_mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *) at), _mm_set1_epi8(c)));
}

/* The same for three bytes. */
static inline uint32
scan_block3(const char *at, char a, char b, char c)
{
	__m128i block = _mm_loadu_si128((const __m128i *) at);

	return (uint32) _mm_movemask_epi8(
		_mm_or_si128(_mm_cmpeq_epi8(block, _mm_set1_epi8(a)),
					 _mm_or_si128(_mm_cmpeq_epi8(block, _mm_set1_epi8(b)),
								  _mm_cmpeq_epi8(block, _mm_set1_epi8(c)))));
}

/*
 * A bit for each byte that ends the plain run of a JSON string.  *high: a bit for each byte that
 * is not ASCII.
 */
static inline uint32
scan_block_json(const char *at, uint32 *high)
{
	__m128i block = _mm_loadu_si128((const __m128i *) at);
	__m128i control = _mm_cmpeq_epi8(_mm_min_epu8(block, _mm_set1_epi8(0x1f)), block);

	*high = (uint32) _mm_movemask_epi8(block);
	return (uint32) _mm_movemask_epi8(
		_mm_or_si128(control, _mm_or_si128(_mm_cmpeq_epi8(block, _mm_set1_epi8('"')),
										   _mm_cmpeq_epi8(block, _mm_set1_epi8('\\')))));
}
#endif

/* The first of three bytes between from and end; end when there is none. */
static inline const char *
scan_for3(const char *from, const char *end, char a, char b, char c)
{
#ifdef SCAN_WIDTH
	while (end - from >= SCAN_WIDTH)
	{
		uint32 found = scan_block3(from, a, b, c);

		if (found != 0)
			return from + __builtin_ctz(found);
		from += SCAN_WIDTH;
	}
#endif
	while (from < end && *from != a && *from != b && *from != c)
		from++;
	return from;
}

/*
 * The end of a JSON string's plain run: the first quote, backslash or control character, or end.
 * Sets *high when the run has bytes that are not ASCII.
 */
static inline const char *
scan_json_run(const char *from, const char *end, bool *high)
{
#ifdef SCAN_WIDTH
	while (end - from >= SCAN_WIDTH)
	{
		uint32 not_ascii;
		uint32 found = scan_block_json(from, &not_ascii);

		if (found != 0)
		{
			int plain = __builtin_ctz(found);

			if ((not_ascii & ((1u << plain) - 1)) != 0)
				*high = true;
			return from + plain;
		}
		if (not_ascii != 0)
			*high = true;
		from += SCAN_WIDTH;
	}
#endif
	while (from < end && *from != '"' && *from != '\\' && (unsigned char) *from >= 0x20)
	{
		if (IS_HIGHBIT_SET(*from))
			*high = true;
		from++;
	}
	return from;
}

/* What a hexadecimal digit is worth; -1 when it is none. */
static inline int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

#endif

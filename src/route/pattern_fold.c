/*
 * pattern_fold.c
 *		Matching that ignores case, as EventBridge's matcher does it.
 *
 * Each character of the pattern accepts its lower case and its upper case, by Unicode's full
 * mappings without conditions or language.  So it is not symmetric: the pattern "ß" accepts
 * "ß" and "SS", the pattern "ss" does not accept "ß".  Only characters of the basic plane are
 * folded, and "ǅ", which is neither upper nor lower case, accepts the other two and not itself.
 *
 * PostgreSQL's lower() depends on the locale, so the mappings are a table of our own.  In it
 * no character's two forms begin or end with one another (scripts/fold-table checks that), so
 * matching has no choices to go back to.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "route/pattern_internal.h"

typedef struct FoldRange
{
	uint16 first;
	uint16 last;
	int step;
	int distance;
} FoldRange;

typedef struct FoldSpecial
{
	uint16 code;
	const char *lower;
	const char *upper;
} FoldSpecial;

#include "route/pattern_fold_table.h"

#define FOLD_CHAR_MAX 8 /* bytes of a character's upper or lower case */

static inline char
ascii_lower(char c)
{
	return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

/* How far away the other case is. */
static int
find_distance(const FoldRange *ranges, int count, pg_wchar code)
{
	int low = 0;
	int high = count - 1;

	while (low <= high)
	{
		int middle = (low + high) / 2;
		const FoldRange *range = &ranges[middle];

		if (code < range->first)
			high = middle - 1;
		else if (code > range->last)
			low = middle + 1;
		else
			return (code - range->first) % range->step == 0 ? range->distance : 0;
	}
	return 0;
}

static const FoldSpecial *
find_special(pg_wchar code)
{
	int low = 0;
	int high = lengthof(fold_specials) - 1;

	while (low <= high)
	{
		int middle = (low + high) / 2;

		if (code < fold_specials[middle].code)
			high = middle - 1;
		else if (code > fold_specials[middle].code)
			low = middle + 1;
		else
			return &fold_specials[middle];
	}
	return NULL;
}

/* Bytes of the character at "text", of which so many are left: never beyond them. */
static inline int
char_length(const char *text, int left)
{
	int length = pg_utf_mblen((const unsigned char *) text);

	return Min(length, left);
}

/* One case of the character at "text"; returns the bytes written to out, at most FOLD_CHAR_MAX. */
static int
fold_char(const char *text, int length, bool upper, char *out)
{
	const FoldSpecial *special;
	pg_wchar code;

	if (length == 1)
	{
		*out = ascii_lower(*text);
		if (upper && *out >= 'a' && *out <= 'z')
			*out ^= 0x20;
		return 1;
	}
	code = length <= 3 ? utf8_to_unicode((const unsigned char *) text) : 0x10000;
	if (code > 0xFFFF)
	{
		memcpy(out, text, length);
		return length;
	}
	special = find_special(code);
	if (special != NULL)
	{
		const char *form = upper ? special->upper : special->lower;
		int bytes = strlen(form);

		memcpy(out, form, bytes);
		return bytes;
	}
	code += upper ? find_distance(fold_upper, lengthof(fold_upper), code)
				  : find_distance(fold_lower, lengthof(fold_lower), code);
	unicode_to_utf8(code, (unsigned char *) out);
	return pg_utf_mblen((unsigned char *) out);
}

static Str
fold_copy(const char *text, int length, bool upper)
{
	char *out = palloc(FOLD_CHAR_MAX);

	return str_make(out, fold_char(text, length, upper, out));
}

void
fold_compile(Str text, FoldString *fold)
{
	char *lower = palloc(text.length + 1);
	char *key = palloc(text.length * FOLD_KEY_GROWTH + 1);

	fold->ascii = true;
	for (int i = 0; i < text.length; i++)
	{
		lower[i] = ascii_lower(text.data[i]);
		if (IS_HIGHBIT_SET(text.data[i]))
			fold->ascii = false;
	}
	fold->lower = str_make(lower, text.length);
	fold->key = str_make(key, fold_key(text, key));
	fold->chars = NULL;
	fold->count = 0;
	if (fold->ascii)
		return;
	fold->chars = palloc(text.length * sizeof(FoldChar));
	for (int i = 0; i < text.length;)
	{
		int length = char_length(text.data + i, text.length - i);
		FoldChar *c = &fold->chars[fold->count++];

		c->lower = fold_copy(text.data + i, length, false);
		c->upper = fold_copy(text.data + i, length, true);
		i += length;
	}
}

static inline bool
starts(Str value, Str with)
{
	return value.length >= with.length && memcmp(value.data, with.data, with.length) == 0;
}

static inline bool
ends(Str value, Str with)
{
	return value.length >= with.length &&
		   memcmp(value.data + value.length - with.length, with.data, with.length) == 0;
}

static bool
equal_ascii(const char *value, Str lower)
{
	for (int i = 0; i < lower.length; i++)
	{
		if (ascii_lower(value[i]) != lower.data[i])
			return false;
	}
	return true;
}

int
fold_match_start(const FoldString *fold, Str value)
{
	int length = value.length;

	if (fold->ascii)
	{
		if (length < fold->lower.length || !equal_ascii(value.data, fold->lower))
			return -1;
		return fold->lower.length;
	}
	for (int i = 0; i < fold->count; i++)
	{
		const FoldChar *c = &fold->chars[i];
		const Str *form;

		if (starts(value, c->lower))
			form = &c->lower;
		else if (starts(value, c->upper))
			form = &c->upper;
		else
			return -1;
		value = str_make(value.data + form->length, value.length - form->length);
	}
	return length - value.length;
}

int
fold_match_end(const FoldString *fold, Str value)
{
	int length = value.length;

	if (fold->ascii)
	{
		if (length < fold->lower.length ||
			!equal_ascii(value.data + length - fold->lower.length, fold->lower))
			return -1;
		return fold->lower.length;
	}
	for (int i = fold->count - 1; i >= 0; i--)
	{
		const FoldChar *c = &fold->chars[i];

		if (ends(value, c->lower))
			value.length -= c->lower.length;
		else if (ends(value, c->upper))
			value.length -= c->upper.length;
		else
			return -1;
	}
	return length - value.length;
}

/*
 * Lower case of the upper case of the lower case, character by character: the same for a
 * character's two forms (scripts/fold-table checks that), so whatever a pattern accepts has the
 * pattern's key.  Others may have it too.
 */
int
fold_key(Str text, char *out)
{
	char *start = out;

	for (int i = 0; i < text.length;)
	{
		char lower[FOLD_CHAR_MAX];
		char upper[FOLD_CHAR_MAX];
		int length;
		int lower_length;

		if (!IS_HIGHBIT_SET(text.data[i]))
		{
			*out++ = ascii_lower(text.data[i++]);
			continue;
		}
		length = char_length(text.data + i, text.length - i);
		lower_length = fold_char(text.data + i, length, false, lower);
		for (int j = 0; j < lower_length;)
		{
			int part = char_length(lower + j, lower_length - j);
			int upper_length = fold_char(lower + j, part, true, upper);

			for (int k = 0; k < upper_length;)
			{
				int piece = char_length(upper + k, upper_length - k);

				out += fold_char(upper + k, piece, false, out);
				k += piece;
			}
			j += part;
		}
		i += length;
	}
	return out - start;
}

/*
 * json_escape.c
 *		The escapes of a JSON string.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "core/json_escape.h"
#include "core/scan.h"

static const JsonFlaw flaw_null_character = {REASON_UNSTORABLE,
											 "\\u0000 cannot be kept in a text value"};
static const JsonFlaw flaw_surrogate = {
	REASON_UNSTORABLE, "a Unicode high surrogate must precede a low one, and nothing else"};

const char *
json_unescape(const char *from, const char *to, char *out, int *length, const JsonFlaw **flaw)
{
	const char *start = out;
	pg_wchar high = 0; /* a high surrogate that waits for its low one */

	while (from < to)
	{
		char c = *from++;

		if (c != '\\' || *from != 'u')
		{
			if (high != 0)
			{
				*flaw = &flaw_surrogate;
				high = 0;
			}
			if (c != '\\')
			{
				*out++ = c;
				continue;
			}
			switch (*from++)
			{
				case '"':
				case '\\':
				case '/':
					*out++ = from[-1];
					break;
				case 'b':
					*out++ = '\b';
					break;
				case 'f':
					*out++ = '\f';
					break;
				case 'n':
					*out++ = '\n';
					break;
				case 'r':
					*out++ = '\r';
					break;
				case 't':
					*out++ = '\t';
					break;
				default:
					return from - 2;
			}
		}
		else
		{
			pg_wchar code = 0;

			from++;
			if (to - from < 4)
				return from - 2;
			for (int i = 0; i < 4; i++)
			{
				int digit = hex_digit(from[i]);

				if (digit < 0)
					return from - 2;
				code = code * 16 + digit;
			}
			from += 4;

			if (is_utf16_surrogate_second(code))
			{
				if (high != 0)
					code = surrogate_pair_to_codepoint(high, code);
				else
				{
					*flaw = &flaw_surrogate;
					code = 0xFFFD;
				}
				high = 0;
			}
			else
			{
				if (high != 0)
					*flaw = &flaw_surrogate;
				high = 0;
				if (is_utf16_surrogate_first(code))
				{
					high = code;
					continue;
				}
				if (code == 0)
				{
					*flaw = &flaw_null_character;
					code = 0xFFFD;
				}
			}
			unicode_to_utf8(code, (unsigned char *) out);
			out += pg_utf_mblen((unsigned char *) out);
		}
	}
	if (high != 0)
		*flaw = &flaw_surrogate;
	*length = out - start;
	return NULL;
}

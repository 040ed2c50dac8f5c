/*
 * schema_regex_translate.c
 *		From the regular expressions of ECMA-262 to those of PCRE2.
 *
 * JSON Schema's patterns are ECMA-262's with flag u.  PCRE2 knows all of that and more, and means
 * other things by some of it, so that patterns are parsed and written anew: what ECMA-262 does not
 * have (recursion, callouts, verbs, POSIX classes, possessive quantifiers, \A, \Z, \Q …) is refused
 * or a plain character, as it would be there.  More is taken than by flag u where people rely on
 * it: "{" and "}" and "]" as themselves, and a backslash before any punctuation.
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "gate/schema_node.h"

/* White space and line ends of ECMA-262, and what is not. */
#define SPACE                                                                                      \
	"\\x{9}-\\x{d}\\x{20}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}"  \
	"\\x{3000}\\x{feff}"
#define NO_SPACE                                                                                   \
	"\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}"               \
	"\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}"                 \
	"\\x{3001}-\\x{fefe}\\x{ff00}-\\x{10ffff}"
#define NO_LINE_END "[^\\x{a}\\x{d}\\x{2028}\\x{2029}]"

typedef struct Translation
{
	const char *cur;
	const char *end;
	StringInfoData output;
	int groups; /* open ones */
	bool repeats;
	const char *message;
} Translation;

static const struct
{
	const char *name;
	const char *category;
} categories[] = {
	{"Cased_Letter", "L&"},
	{"Close_Punctuation", "Pe"},
	{"Connector_Punctuation", "Pc"},
	{"Control", "Cc"},
	{"Currency_Symbol", "Sc"},
	{"Dash_Punctuation", "Pd"},
	{"Decimal_Number", "Nd"},
	{"Enclosing_Mark", "Me"},
	{"Final_Punctuation", "Pf"},
	{"Format", "Cf"},
	{"Initial_Punctuation", "Pi"},
	{"LC", "L&"},
	{"Letter", "L"},
	{"Letter_Number", "Nl"},
	{"Line_Separator", "Zl"},
	{"Lowercase_Letter", "Ll"},
	{"Mark", "M"},
	{"Combining_Mark", "M"},
	{"Math_Symbol", "Sm"},
	{"Modifier_Letter", "Lm"},
	{"Modifier_Symbol", "Sk"},
	{"Nonspacing_Mark", "Mn"},
	{"Number", "N"},
	{"Open_Punctuation", "Ps"},
	{"Other", "C"},
	{"Other_Letter", "Lo"},
	{"Other_Number", "No"},
	{"Other_Punctuation", "Po"},
	{"Other_Symbol", "So"},
	{"Paragraph_Separator", "Zp"},
	{"Private_Use", "Co"},
	{"Punctuation", "P"},
	{"punct", "P"},
	{"Separator", "Z"},
	{"Space_Separator", "Zs"},
	{"Spacing_Mark", "Mc"},
	{"Surrogate", "Cs"},
	{"Symbol", "S"},
	{"Titlecase_Letter", "Lt"},
	{"Unassigned", "Cn"},
	{"Uppercase_Letter", "Lu"},
	{"cntrl", "Cc"},
	{"digit", "Nd"},
};

static inline bool
is_alphanumeric(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool
fail(Translation *translation, const char *message)
{
	if (translation->message == NULL)
		translation->message = message;
	return false;
}

/* Writes a character that stands for itself, inside of a class or not. */
static void
put_code(Translation *translation, uint32 code)
{
	appendStringInfo(&translation->output, "\\x{%x}", code);
}

/* Takes the code point at the cursor; the text is valid UTF-8. */
static uint32
take_character(Translation *translation)
{
	const unsigned char *cur = (const unsigned char *) translation->cur;
	int length = cur[0] < 0x80 ? 1 : cur[0] < 0xE0 ? 2 : cur[0] < 0xF0 ? 3 : 4;
	uint32 code = length == 1 ? cur[0] : cur[0] & (0x7F >> length);

	for (int i = 1; i < length && translation->cur + i < translation->end; i++)
		code = code << 6 | (cur[i] & 0x3F);
	translation->cur += Min(length, translation->end - translation->cur);
	return code;
}

/* Takes hexadecimal digits, exactly so many, or one to so many when at_least is 1. */
static bool
take_hex(Translation *translation, int at_least, int at_most, uint32 *code)
{
	int digits = 0;

	*code = 0;
	while (digits < at_most && translation->cur < translation->end)
	{
		char c = *translation->cur;

		if (c >= '0' && c <= '9')
			*code = *code << 4 | (c - '0');
		else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))
			*code = *code << 4 | ((c | 0x20) - 'a' + 10);
		else
			break;
		digits++;
		translation->cur++;
	}
	return digits >= at_least;
}

/* Behind \u: four hexadecimal digits, a pair of surrogates, or digits in braces. */
static bool
take_unicode(Translation *translation, uint32 *code)
{
	const char *behind;
	uint32 low;

	if (translation->cur < translation->end && *translation->cur == '{')
	{
		translation->cur++;
		if (!take_hex(translation, 1, 6, code) || *code > 0x10FFFF ||
			translation->cur == translation->end || *translation->cur++ != '}')
			return fail(translation, "\\u{…} must hold a code point");
		return true;
	}
	if (!take_hex(translation, 4, 4, code))
		return fail(translation, "\\u must have four hexadecimal digits");
	behind = translation->cur;
	if (*code >= 0xD800 && *code <= 0xDBFF && translation->end - behind >= 6 && behind[0] == '\\' &&
		behind[1] == 'u')
	{
		translation->cur += 2;
		if (take_hex(translation, 4, 4, &low) && low >= 0xDC00 && low <= 0xDFFF)
			*code = 0x10000 + ((*code - 0xD800) << 10) + (low - 0xDC00);
		else
			translation->cur = behind;
	}
	return true;
}

/* Behind \p or \P: {name} or {kind=name}, in PCRE2's words. */
static bool
take_property(Translation *translation, char escape)
{
	const char *name = translation->cur + 1;
	const char *close;
	const char *equals;
	const char *prefix = "";
	int length;

	if (translation->cur == translation->end || *translation->cur != '{' ||
		(close = memchr(name, '}', translation->end - name)) == NULL)
		return fail(translation, "\\p must be followed by {…}");
	translation->cur = close + 1;
	equals = memchr(name, '=', close - name);
	length = close - name;
	if (equals != NULL)
	{
		int kind = equals - name;

		if ((kind == 2 && memcmp(name, "sc", 2) == 0) ||
			(kind == 6 && memcmp(name, "Script", 6) == 0))
			prefix = "sc:";
		else if ((kind == 3 && memcmp(name, "scx", 3) == 0) ||
				 (kind == 17 && memcmp(name, "Script_Extensions", 17) == 0))
			prefix = "scx:";
		else if (!(kind == 2 && memcmp(name, "gc", 2) == 0) &&
				 !(kind == 16 && memcmp(name, "General_Category", 16) == 0))
			return fail(translation, "\\p{…=…} must name a category or a script");
		name = equals + 1;
		length = close - name;
	}
	for (int i = 0; i < length; i++)
	{
		if (!is_alphanumeric(name[i]) && name[i] != '_')
			return fail(translation, "\\p{…} must hold a name");
	}
	if (length == 0)
		return fail(translation, "\\p{…} must hold a name");
	for (int i = 0; prefix[0] == '\0' && i < lengthof(categories); i++)
	{
		if (strlen(categories[i].name) == length && memcmp(categories[i].name, name, length) == 0)
		{
			name = categories[i].category;
			length = strlen(name);
			break;
		}
	}
	appendStringInfo(&translation->output, "\\%c{%s%.*s}", escape, prefix, length, name);
	return true;
}

/* What an escape is. */
typedef enum Escape
{
	ESCAPE_ERROR,
	ESCAPE_CHARACTER, /* *code, not written yet */
	ESCAPE_CLASS,	  /* written */
	ESCAPE_ASSERTION  /* written */
} Escape;

/* Behind a backslash. */
static Escape
take_escape(Translation *translation, bool in_class, uint32 *code)
{
	StringInfo output = &translation->output;
	char c;

	if (translation->cur == translation->end)
	{
		fail(translation, "it ends with a backslash");
		return ESCAPE_ERROR;
	}
	if ((unsigned char) *translation->cur >= 0x80)
	{
		*code = take_character(translation);
		return ESCAPE_CHARACTER;
	}
	c = *translation->cur++;
	switch (c)
	{
		case 'd':
			appendStringInfoString(output, in_class ? "0-9" : "[0-9]");
			return ESCAPE_CLASS;
		case 'D':
			appendStringInfoString(output,
								   in_class ? "\\x{0}-\\x{2f}\\x{3a}-\\x{10ffff}" : "[^0-9]");
			return ESCAPE_CLASS;
		case 'w':
			appendStringInfoString(output, in_class ? "0-9A-Z_a-z" : "[0-9A-Z_a-z]");
			return ESCAPE_CLASS;
		case 'W':
			appendStringInfoString(output,
								   in_class ? "\\x{0}-\\x{2f}\\x{3a}-\\x{40}\\x{5b}-\\x{5e}\\x{60}"
											  "\\x{7b}-\\x{10ffff}"
											: "[^0-9A-Z_a-z]");
			return ESCAPE_CLASS;
		case 's':
			appendStringInfoString(output, in_class ? SPACE : "[" SPACE "]");
			return ESCAPE_CLASS;
		case 'S':
			appendStringInfoString(output, in_class ? NO_SPACE : "[^" SPACE "]");
			return ESCAPE_CLASS;
		case 'p':
		case 'P':
			return take_property(translation, c) ? ESCAPE_CLASS : ESCAPE_ERROR;
		case 't':
			*code = '\t';
			return ESCAPE_CHARACTER;
		case 'n':
			*code = '\n';
			return ESCAPE_CHARACTER;
		case 'v':
			*code = '\v';
			return ESCAPE_CHARACTER;
		case 'f':
			*code = '\f';
			return ESCAPE_CHARACTER;
		case 'r':
			*code = '\r';
			return ESCAPE_CHARACTER;
		case 'c':
			if (translation->cur == translation->end || !is_alphanumeric(*translation->cur) ||
				(*translation->cur >= '0' && *translation->cur <= '9'))
			{
				fail(translation, "\\c must be followed by a letter");
				return ESCAPE_ERROR;
			}
			*code = *translation->cur++ % 32;
			return ESCAPE_CHARACTER;
		case 'x':
			if (take_hex(translation, 2, 2, code))
				return ESCAPE_CHARACTER;
			fail(translation, "\\x must have two hexadecimal digits");
			return ESCAPE_ERROR;
		case 'u':
			return take_unicode(translation, code) ? ESCAPE_CHARACTER : ESCAPE_ERROR;
		case 'b':
			if (in_class)
			{
				*code = '\b';
				return ESCAPE_CHARACTER;
			}
			appendStringInfoString(output, "\\b");
			return ESCAPE_ASSERTION;
		case 'B':
			if (in_class)
				break;
			appendStringInfoString(output, "\\B");
			return ESCAPE_ASSERTION;
		case 'k':
			if (!in_class && translation->cur < translation->end && *translation->cur == '<')
			{
				const char *close =
					memchr(translation->cur, '>', translation->end - translation->cur);

				if (close != NULL)
				{
					translation->repeats = true;
					appendStringInfo(output, "\\k%.*s", (int) (close + 1 - translation->cur),
									 translation->cur);
					translation->cur = close + 1;
					return ESCAPE_CLASS;
				}
			}
			fail(translation, "\\k must be followed by <name>");
			return ESCAPE_ERROR;
		case '0':
			if (translation->cur < translation->end && *translation->cur >= '0' &&
				*translation->cur <= '9')
				break;
			*code = 0;
			return ESCAPE_CHARACTER;
		default:
			if (c >= '1' && c <= '9' && !in_class)
			{
				int group = c - '0';

				while (translation->cur < translation->end && *translation->cur >= '0' &&
					   *translation->cur <= '9' && group < 10000)
					group = group * 10 + (*translation->cur++ - '0');
				translation->repeats = true;
				appendStringInfo(output, "\\g{%d}", group);
				return ESCAPE_CLASS;
			}
			if (!is_alphanumeric(c))
			{
				*code = c;
				return ESCAPE_CHARACTER;
			}
			break;
	}
	fail(translation, "there is no such escape");
	return ESCAPE_ERROR;
}

/* One member of a class: a character in *code, or a class that is written already. */
static Escape
take_class_member(Translation *translation, uint32 *code)
{
	if (*translation->cur == '\\')
	{
		translation->cur++;
		return take_escape(translation, true, code);
	}
	*code = take_character(translation);
	return ESCAPE_CHARACTER;
}

/* Behind [: up to and with the ]. */
static bool
take_class(Translation *translation)
{
	StringInfo output = &translation->output;
	bool negated = translation->cur < translation->end && *translation->cur == '^';
	uint32 first;
	uint32 last;

	if (negated)
		translation->cur++;
	if (translation->cur < translation->end && *translation->cur == ']')
	{
		/* Nothing, or anything. */
		translation->cur++;
		appendStringInfoString(output, negated ? "[\\x{0}-\\x{10ffff}]" : "(?!)");
		return true;
	}
	appendStringInfoString(output, negated ? "[^" : "[");
	while (translation->cur < translation->end && *translation->cur != ']')
	{
		Escape kind = take_class_member(translation, &first);

		if (kind == ESCAPE_ERROR)
			return false;
		if (kind != ESCAPE_CHARACTER)
			continue;
		put_code(translation, first);
		if (translation->end - translation->cur >= 2 && translation->cur[0] == '-' &&
			translation->cur[1] != ']')
		{
			int written = output->len;

			translation->cur++;
			kind = take_class_member(translation, &last);
			if (kind == ESCAPE_ERROR)
				return false;
			if (kind != ESCAPE_CHARACTER)
			{
				/* [a-\d]: the hyphen is itself. */
				appendStringInfoString(output, "\\x{2d}");
				continue;
			}
			output->len = written;
			if (last < first)
				return fail(translation, "a range of a class runs backwards");
			appendStringInfoChar(output, '-');
			put_code(translation, last);
		}
	}
	if (translation->cur == translation->end)
		return fail(translation, "a class is not closed");
	translation->cur++;
	appendStringInfoChar(output, ']');
	return true;
}

/* Behind (: what kind of group it is. */
static bool
take_group_start(Translation *translation)
{
	static const char *const kinds[] = {"?:", "?=", "?!", "?<=", "?<!"};
	StringInfo output = &translation->output;
	int left = translation->end - translation->cur;

	translation->groups++;
	appendStringInfoChar(output, '(');
	if (left == 0 || *translation->cur != '?')
		return true;
	for (int i = 0; i < lengthof(kinds); i++)
	{
		int length = strlen(kinds[i]);

		if (left >= length && memcmp(translation->cur, kinds[i], length) == 0)
		{
			appendStringInfoString(output, kinds[i]);
			translation->cur += length;
			return true;
		}
	}
	if (left > 2 && translation->cur[1] == '<')
	{
		const char *close = memchr(translation->cur, '>', left);

		if (close != NULL)
		{
			appendBinaryStringInfo(output, translation->cur, close + 1 - translation->cur);
			translation->cur = close + 1;
			return true;
		}
	}
	return fail(translation, "there is no such kind of group");
}

/* A quantifier at the cursor, if there is one: {n}, {n,} or {n,m}. */
static int
braces_length(const Translation *translation)
{
	const char *cur = translation->cur + 1;
	const char *digits = cur;

	while (cur < translation->end && *cur >= '0' && *cur <= '9')
		cur++;
	if (cur == digits)
		return 0;
	if (cur < translation->end && *cur == ',')
	{
		cur++;
		while (cur < translation->end && *cur >= '0' && *cur <= '9')
			cur++;
	}
	return cur < translation->end && *cur == '}' ? cur + 1 - translation->cur : 0;
}

/* A quantifier behind something that may have one. */
static void
take_quantifier(Translation *translation)
{
	int length = 0;

	if (translation->cur == translation->end)
		return;
	if (strchr("*+?", *translation->cur) != NULL)
		length = 1;
	else if (*translation->cur == '{')
		length = braces_length(translation);
	if (length == 0)
		return;
	translation->repeats |= *translation->cur != '?';
	if (translation->cur + length < translation->end && translation->cur[length] == '?')
		length++;
	appendBinaryStringInfo(&translation->output, translation->cur, length);
	translation->cur += length;
}

/* One term; false having failed. */
static bool
take_term(Translation *translation)
{
	StringInfo output = &translation->output;
	char c = *translation->cur;
	uint32 code;

	switch (c)
	{
		case '^':
		case '$':
		case '|':
			translation->cur++;
			appendStringInfoChar(output, c);
			return true;
		case '(':
			translation->cur++;
			return take_group_start(translation);
		case ')':
			if (translation->groups-- == 0)
				return fail(translation, "a parenthesis is closed that was not opened");
			translation->cur++;
			appendStringInfoChar(output, c);
			break;
		case '.':
			translation->cur++;
			appendStringInfoString(output, NO_LINE_END);
			break;
		case '[':
			translation->cur++;
			if (!take_class(translation))
				return false;
			break;
		case '*':
		case '+':
		case '?':
			return fail(translation, "there is nothing to repeat");
		case '{':
			if (braces_length(translation) > 0)
				return fail(translation, "there is nothing to repeat");
			translation->cur++;
			put_code(translation, c);
			break;
		case '\\':
			translation->cur++;
			switch (take_escape(translation, false, &code))
			{
				case ESCAPE_ERROR:
					return false;
				case ESCAPE_ASSERTION:
					return true;
				case ESCAPE_CHARACTER:
					put_code(translation, code);
					break;
				default:
					break;
			}
			break;
		default:
			if (is_alphanumeric(c))
			{
				translation->cur++;
				appendStringInfoChar(output, c);
			}
			else
				put_code(translation, take_character(translation));
			break;
	}
	take_quantifier(translation);
	return true;
}

/* repeats: may a part of it, but for "?", match more of the text than it is long? */
char *
schema_regex_translate(const char *pattern, int length, bool *repeats, const char **message)
{
	Translation translation = {.cur = pattern, .end = pattern + length};

	initStringInfo(&translation.output);
	while (translation.cur < translation.end && take_term(&translation))
		;
	if (translation.message == NULL && translation.groups > 0)
		fail(&translation, "a parenthesis is not closed");
	if (translation.message != NULL)
	{
		*message = translation.message;
		pfree(translation.output.data);
		return NULL;
	}
	*repeats = translation.repeats;
	return translation.output.data;
}

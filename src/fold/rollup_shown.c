/*
 * rollup_shown.c
 *		Expressions of a rollup's query the way the caller might have written them.
 *
 * For messages only: casts of literals and parentheses that deparsing adds are left out.
 */
#include "postgres.h"

#include "utils/ruleutils.h"

#include "fold/rollup.h"

/* Leaves out the casts that deparsing adds to literals: 'day'::text is 'day' to the reader. */
static char *
without_literal_casts(const char *text)
{
	StringInfoData buf;
	bool quoted = false;

	initStringInfo(&buf);
	for (const char *p = text; *p != '\0'; p++)
	{
		appendStringInfoChar(&buf, *p);
		if (*p != '\'')
			continue;
		quoted = !quoted;
		if (!quoted && p[1] != '\'')
		{
			static const char *const casts[] = {"::text", "::interval", "::character varying"};

			for (int i = 0; i < lengthof(casts); i++)
			{
				if (strncmp(p + 1, casts[i], strlen(casts[i])) == 0 &&
					!isalnum((unsigned char) p[1 + strlen(casts[i])]) &&
					p[1 + strlen(casts[i])] != '[')
				{
					p += strlen(casts[i]);
					break;
				}
			}
		}
	}
	return buf.data;
}

/* The parenthesis that closes the one at "open"; quotes are skipped. */
static char *
closing(char *open)
{
	int depth = 0;
	char quote = '\0';

	for (char *p = open; *p != '\0'; p++)
	{
		if (quote != '\0')
			quote = *p == quote ? '\0' : quote;
		else if (*p == '\'' || *p == '"')
			quote = *p;
		else if (*p == '(')
			depth++;
		else if (*p == ')' && --depth == 0)
			return p;
	}
	return NULL;
}

/* Leaves out every second of two pairs of parentheses, and one around the whole. */
static char *
without_extra_parentheses(char *text)
{
	char *end;

	for (char *p = text; *p != '\0'; p++)
	{
		if (*p == '\'' || *p == '"')
		{
			char quote = *p++;

			while (*p != quote && *p != '\0')
				p++;
			if (*p == '\0')
				break;
			continue;
		}
		while (p[0] == '(' && p[1] == '(')
		{
			char *outer = closing(p);
			char *inner = closing(p + 1);

			if (outer == NULL || inner == NULL || inner + 1 != outer)
				break;
			memmove(outer, outer + 1, strlen(outer));
			memmove(p, p + 1, strlen(p));
		}
	}
	end = text[0] == '(' ? closing(text) : NULL;
	if (end != NULL && end[1] == '\0')
	{
		*end = '\0';
		text++;
	}
	return text;
}

char *
rollup_shown(Node *expression, List *dpcontext)
{
	return without_extra_parentheses(
		without_literal_casts(deparse_expression(expression, dpcontext, false, false)));
}

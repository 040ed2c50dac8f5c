/*
 * functions.c
 *		Casts that answer NULL where PostgreSQL's raise.
 *
 * A rollup whose query casts a property would otherwise set aside every event
 * with a bad one. Nothing here raises and nothing is caught, so the cost is
 * that of reading the text. From PostgreSQL 16 on, where input functions
 * can report errors softly, what is not read here goes to them: they accept
 * forms that 15 does not (hexadecimal, underscores).
 */
#include "postgres.h"

#include <ctype.h>

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "core/compat.h"
#include "core/decimal.h"
#include "core/instant.h"

PG_FUNCTION_INFO_V1(behavior_try_numeric);
PG_FUNCTION_INFO_V1(behavior_try_bigint);
PG_FUNCTION_INFO_V1(behavior_try_boolean);
PG_FUNCTION_INFO_V1(behavior_try_timestamptz);

typedef struct Slice
{
	const char *start;
	const char *end;
} Slice;

static inline bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static inline bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* The argument without the white space around it. */
static Slice
trimmed_argument(text *argument)
{
	Slice slice;

	slice.start = VARDATA_ANY(argument);
	slice.end = slice.start + VARSIZE_ANY_EXHDR(argument);
	while (slice.start < slice.end && is_space(*slice.start))
		slice.start++;
	while (slice.end > slice.start && is_space(slice.end[-1]))
		slice.end--;
	return slice;
}

/* A decimal literal in the form of decimal_parse(): what numeric_in takes besides it is tidied up.
 */
static bool
tidy_decimal(Slice slice, char **literal, int *length)
{
	const char *cur = slice.start;
	char *out;
	int digits = 0;

	out = *literal = palloc(slice.end - slice.start + 2);
	if (cur < slice.end && (*cur == '-' || *cur == '+'))
	{
		if (*cur == '-')
			*out++ = '-';
		cur++;
	}
	for (; cur < slice.end && is_digit(*cur); digits++)
		*out++ = *cur++;
	if (cur < slice.end && *cur == '.')
	{
		*out++ = *cur++;
		for (; cur < slice.end && is_digit(*cur); digits++)
			*out++ = *cur++;
	}
	if (digits == 0)
		return false;
	if (cur < slice.end && (*cur == 'e' || *cur == 'E'))
	{
		const char *exponent;

		*out++ = *cur++;
		if (cur < slice.end && (*cur == '-' || *cur == '+'))
			*out++ = *cur++;
		exponent = cur;
		while (cur < slice.end && is_digit(*cur))
			*out++ = *cur++;
		if (cur == exponent)
			return false;
	}
	*length = out - *literal;
	return cur == slice.end;
}

static bool
slice_equals(Slice slice, const char *word)
{
	size_t length = strlen(word);

	return slice.end - slice.start == length && pg_strncasecmp(slice.start, word, length) == 0;
}

/* What an input function makes of the argument, where it can tell an error without raising. */
static Datum
soft_input(FunctionCallInfo fcinfo, PGFunction input, Oid type)
{
#ifdef HAVE_SOFT_ERRORS
	ErrorSaveContext escontext = {T_ErrorSaveContext};
	Datum result;

	if (DirectInputFunctionCallSafe(input, text_to_cstring(PG_GETARG_TEXT_PP(0)), type, -1,
									(Node *) &escontext, &result))
		return result;
#endif
	PG_RETURN_NULL();
}

/* behavior.try_numeric(text): the number, or NULL where text::numeric would raise. */
Datum
behavior_try_numeric(PG_FUNCTION_ARGS)
{
	Slice slice = trimmed_argument(PG_GETARG_TEXT_PP(0));
	Decimal decimal;
	char *literal;
	char *result;
	int length;

	if (tidy_decimal(slice, &literal, &length))
	{
		decimal_parse(&decimal, literal, length);
		if (!decimal_storable(&decimal))
			PG_RETURN_NULL();
		result = palloc(decimal_write_bound(&decimal));
		decimal_write(&decimal, result);
		PG_RETURN_NUMERIC((Numeric) result);
	}

	/* The words; numeric_in cannot raise on them. */
	if (slice_equals(slice, "NaN") || slice_equals(slice, "inf") ||
		slice_equals(slice, "infinity") || slice_equals(slice, "+inf") ||
		slice_equals(slice, "+infinity") || slice_equals(slice, "-inf") ||
		slice_equals(slice, "-infinity"))
		return DirectFunctionCall3(numeric_in,
								   CStringGetDatum(text_to_cstring(PG_GETARG_TEXT_PP(0))),
								   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	return soft_input(fcinfo, numeric_in, InvalidOid);
}

/* behavior.try_bigint(text): the integer, or NULL where text::bigint would raise. */
Datum
behavior_try_bigint(PG_FUNCTION_ARGS)
{
	Slice slice = trimmed_argument(PG_GETARG_TEXT_PP(0));
	const char *cur = slice.start;
	bool signed_text = cur < slice.end && (*cur == '-' || *cur == '+');
	Decimal decimal = {0};
	int64 result;

	if (signed_text)
		cur++;
	decimal.digits = cur;
	decimal.negative = signed_text && *slice.start == '-';
	while (cur < slice.end && is_digit(*cur))
		cur++;
	decimal.int_digits = cur - decimal.digits;
	if (cur == slice.end && decimal.int_digits > 0)
	{
		if (decimal_to_int64(&decimal, &result))
			PG_RETURN_INT64(result);
		PG_RETURN_NULL();
	}
	return soft_input(fcinfo, int8in, InvalidOid);
}

/* behavior.try_boolean(text): the truth value, or NULL where text::boolean would raise. */
Datum
behavior_try_boolean(PG_FUNCTION_ARGS)
{
	Slice slice = trimmed_argument(PG_GETARG_TEXT_PP(0));
	bool result;

	if (parse_bool_with_len(slice.start, slice.end - slice.start, &result))
		PG_RETURN_BOOL(result);
	PG_RETURN_NULL();
}

/*
 * behavior.try_timestamptz(text): the instant that an RFC 3339 date and time names, else NULL.
 * Immutable, unlike the cast: see instant.h.
 */
Datum
behavior_try_timestamptz(PG_FUNCTION_ARGS)
{
	Slice slice = trimmed_argument(PG_GETARG_TEXT_PP(0));
	TimestampTz result;

	if (instant_parse(slice.start, slice.end - slice.start, &result))
		PG_RETURN_TIMESTAMPTZ(result);
	PG_RETURN_NULL();
}

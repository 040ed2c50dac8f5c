/*
 * decimal.c
 *		Decimal literals and numeric, with nothing that raises.
 *
 * numeric_in raises on a value out of range and is most of the cost of jsonb's
 * numbers.  Here the bytes of a numeric are written straight from the digits:
 * its format (utils/adt/numeric.c, "NumericData") is on disk everywhere and in
 * every jsonb, so it cannot change between versions; the tests compare it with
 * numeric_in's all the same.
 */
#include "postgres.h"

#include <limits.h>

#include "common/int.h"

#include "core/compat.h"
#include "core/decimal.h"

/* numeric's format: digits of base 10000, the first one worth 10000^weight. */
#define GROUP_DIGITS	  4
#define NUMERIC_NEGATIVE  0x4000
#define NUMERIC_SHORT	  0x8000
#define SHORT_NEGATIVE	  0x2000
#define SHORT_SCALE_SHIFT 7
#define SHORT_SCALE_MAX	  63
#define SHORT_WEIGHT_SIGN 0x0040
#define SHORT_WEIGHT_MASK 0x003F
#define SHORT_WEIGHT_MIN  (-64)
#define SHORT_WEIGHT_MAX  63
#define LONG_SCALE_MAX	  0x3FFF
#define LONG_WEIGHT_MAX	  PG_INT16_MAX

/* What is between the first and the last digit that is not zero. */
typedef struct Span
{
	int first;	   /* index of the digit */
	int last;	   /* first > last: the value is zero */
	int magnitude; /* power of ten of the first */
	int smallest;  /* power of ten of the last */
} Span;

static inline int
floor_div4(int value)
{
	return value >= 0 ? value / GROUP_DIGITS : -((-value + GROUP_DIGITS - 1) / GROUP_DIGITS);
}

static inline int
digit_at(const Decimal *decimal, int index)
{
	return decimal->digits[index + (index >= decimal->int_digits)] - '0';
}

static void
find_span(const Decimal *decimal, Span *span)
{
	int count = decimal->int_digits + decimal->frac_digits;

	span->first = 0;
	span->last = count - 1;
	while (span->first < count && digit_at(decimal, span->first) == 0)
		span->first++;
	while (span->last > span->first && digit_at(decimal, span->last) == 0)
		span->last--;
	span->magnitude = decimal->int_digits - 1 - span->first + decimal->exponent;
	span->smallest = decimal->int_digits - 1 - span->last + decimal->exponent;
}

/* Digits behind the point that numeric keeps and shows, trailing zeros among them. */
static inline int
decimal_scale(const Decimal *decimal)
{
	return Max(decimal->frac_digits - decimal->exponent, 0);
}

void
decimal_parse(Decimal *decimal, const char *text, int length)
{
	const char *end = text + length;

	decimal->negative = (*text == '-');
	if (decimal->negative)
		text++;
	decimal->digits = text;
	while (text < end && *text >= '0' && *text <= '9')
		text++;
	decimal->int_digits = text - decimal->digits;
	decimal->frac_digits = 0;
	if (text < end && *text == '.')
	{
		const char *point = text++;

		while (text < end && *text >= '0' && *text <= '9')
			text++;
		decimal->frac_digits = text - point - 1;
	}
	decimal->exponent = 0;
	if (text < end)
	{
		bool negative;
		int64 exponent = 0;

		text++; /* the e */
		negative = (*text == '-');
		if (*text == '-' || *text == '+')
			text++;
		for (; text < end; text++)
			exponent = Min(exponent * 10 + (*text - '0'), DECIMAL_MAX_EXPONENT);
		decimal->exponent = negative ? -exponent : exponent;
	}
}

bool
decimal_storable(const Decimal *decimal)
{
	Span span;

	/* What numeric_in refuses whatever the digits. */
	if (abs(decimal->exponent) >= DECIMAL_MAX_EXPONENT)
		return false;
	if (decimal_scale(decimal) > LONG_SCALE_MAX)
		return false;
	find_span(decimal, &span);
	return span.first > span.last || floor_div4(span.magnitude) <= LONG_WEIGHT_MAX;
}

int
decimal_write_bound(const Decimal *decimal)
{
	int digits = decimal->int_digits + decimal->frac_digits;

	return VARHDRSZ + 2 * sizeof(uint16) + (digits / GROUP_DIGITS + 2) * sizeof(int16);
}

int
decimal_write(const Decimal *decimal, char *target)
{
	Span span;
	int scale = decimal_scale(decimal);
	int weight = 0;
	bool negative = false;
	char *out = target + VARHDRSZ;
	uint16 header;

	find_span(decimal, &span);
	if (span.first <= span.last)
	{
		weight = floor_div4(span.magnitude);
		negative = decimal->negative;
	}

	if (scale <= SHORT_SCALE_MAX && weight >= SHORT_WEIGHT_MIN && weight <= SHORT_WEIGHT_MAX)
		header = NUMERIC_SHORT | (negative ? SHORT_NEGATIVE : 0) | (scale << SHORT_SCALE_SHIFT) |
				 (weight < 0 ? SHORT_WEIGHT_SIGN : 0) | (weight & SHORT_WEIGHT_MASK);
	else
		header = (negative ? NUMERIC_NEGATIVE : 0) | scale;
	memcpy(out, &header, sizeof(header));
	out += sizeof(header);
	if ((header & NUMERIC_SHORT) == 0)
	{
		int16 long_weight = weight;

		memcpy(out, &long_weight, sizeof(long_weight));
		out += sizeof(long_weight);
	}

	if (span.first <= span.last)
	{
		int left = span.magnitude - weight * GROUP_DIGITS + 1;
		int16 group = 0;

		for (int i = span.first; i <= span.last; i++)
		{
			group = group * 10 + digit_at(decimal, i);
			if (--left == 0)
			{
				memcpy(out, &group, sizeof(group));
				out += sizeof(group);
				group = 0;
				left = GROUP_DIGITS;
			}
		}
		if (left < GROUP_DIGITS)
		{
			while (left-- > 0)
				group *= 10;
			memcpy(out, &group, sizeof(group));
			out += sizeof(group);
		}
	}

	SET_VARSIZE(target, out - target);
	return out - target;
}

bool
decimal_to_int64(const Decimal *decimal, int64 *value)
{
	Span span;
	int64 result = 0;

	find_span(decimal, &span);
	if (span.first <= span.last)
	{
		if (span.smallest < 0 || span.magnitude > 18)
			return false;
		/* Down to the ones, zeros that the exponent stands for among them; negative, for INT64_MIN.
		 */
		for (int power = span.magnitude; power >= 0; power--)
		{
			int index = span.first + span.magnitude - power;
			int digit = index <= span.last ? digit_at(decimal, index) : 0;

			if (pg_mul_s64_overflow(result, 10, &result) ||
				pg_sub_s64_overflow(result, digit, &result))
				return false;
		}
		if (!decimal->negative)
		{
			if (result == PG_INT64_MIN)
				return false;
			result = -result;
		}
	}
	*value = result;
	return true;
}

int
decimal_to_text(const Decimal *decimal, char *target, int size)
{
	Span span;
	int scale = decimal_scale(decimal);
	int used = 0;
	int count = decimal->int_digits + decimal->frac_digits;
	int top;

	find_span(decimal, &span);
	if (decimal->negative && span.first <= span.last && used < size)
		target[used++] = '-';
	/* From the first digit, or the ones, down to the last place of the scale. */
	top = span.first <= span.last ? Max(span.magnitude, 0) : 0;
	for (int power = top; power >= -scale && used < size; power--)
	{
		int index = decimal->int_digits - 1 + decimal->exponent - power;

		if (power == -1)
		{
			target[used++] = '.';
			if (used == size)
				break;
		}
		target[used++] = index >= 0 && index < count ? '0' + digit_at(decimal, index) : '0';
	}
	return used;
}

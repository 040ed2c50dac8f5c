/*
 * pattern_number.c
 *		Numbers as numeric keeps them: compared exactly, without conversion.
 *
 * The format of a numeric (utils/adt/numeric.c, "NumericData") is on disk everywhere and in every
 * jsonb, so it cannot change between versions; core/decimal.c writes it, this reads it.
 */
#include "postgres.h"

#include <math.h>

#include "common/shortest_dec.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "core/compat.h"
#include "route/pattern_internal.h"

#define KIND_MASK		  0xC000
#define KIND_NEGATIVE	  0x4000
#define KIND_SHORT		  0x8000
#define KIND_SPECIAL	  0xC000
#define SHORT_NEGATIVE	  0x2000
#define SHORT_WEIGHT_SIGN 0x0040
#define SHORT_WEIGHT_MASK 0x003F

static inline int16
digit(const int16 *digits, int index)
{
	int16 value;

	memcpy(&value, digits + index, sizeof(value));
	return value;
}

bool
number_read(Numeric value, Number *number)
{
	const char *data = VARDATA_ANY(value);
	int length = VARSIZE_ANY_EXHDR(value);
	uint16 header;
	int16 weight;

	memcpy(&header, data, sizeof(header));
	if ((header & KIND_MASK) == KIND_SPECIAL)
		return false;
	if ((header & KIND_MASK) == KIND_SHORT)
	{
		number->negative = (header & SHORT_NEGATIVE) != 0;
		weight = header & SHORT_WEIGHT_MASK;
		if (header & SHORT_WEIGHT_SIGN)
			weight |= ~SHORT_WEIGHT_MASK;
		data += 2;
		length -= 2;
	}
	else
	{
		number->negative = (header & KIND_MASK) == KIND_NEGATIVE;
		memcpy(&weight, data + 2, sizeof(weight));
		data += 4;
		length -= 4;
	}
	number->digits = (const int16 *) data;
	number->count = length / (int) sizeof(int16);
	number->exponent = weight + 1;
	while (number->count > 0 && digit(number->digits, 0) == 0)
	{
		number->digits++;
		number->count--;
		number->exponent--;
	}
	while (number->count > 0 && digit(number->digits, number->count - 1) == 0)
		number->count--;
	if (number->count == 0)
	{
		number->negative = false;
		number->exponent = 0;
	}
	return true;
}

static int
compare_magnitudes(const Number *a, const Number *b)
{
	int count = Min(a->count, b->count);

	if (a->count == 0 || b->count == 0)
		return (a->count > 0) - (b->count > 0);
	if (a->exponent != b->exponent)
		return a->exponent < b->exponent ? -1 : 1;
	for (int i = 0; i < count; i++)
	{
		int difference = digit(a->digits, i) - digit(b->digits, i);

		if (difference != 0)
			return difference;
	}
	return a->count - b->count;
}

int
number_compare(const Number *a, const Number *b)
{
	if (a->negative != b->negative)
		return a->negative ? -1 : 1;
	return a->negative ? compare_magnitudes(b, a) : compare_magnitudes(a, b);
}

uint64
number_hash(const Number *number, uint64 seed)
{
	seed = hash_step(seed, (uint64) number->exponent * 2 + number->negative);
	return hash_text(seed, (const char *) number->digits, number->count * sizeof(int16));
}

/* Is it what the shortest decimal of its double says?  Then other matchers can compare it too. */
bool
number_survives_binary64(Numeric value)
{
	char *text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value)));
	double binary = strtod(text, NULL);
	char shortest[DOUBLE_SHORTEST_DECIMAL_LEN];
	Numeric back;
	Number a;
	Number b;

	if (isnan(binary) || isinf(binary))
		return false;
	double_to_shortest_decimal_buf(binary, shortest);
	back = DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(shortest),
											   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	return number_read(value, &a) && number_read(back, &b) && number_compare(&a, &b) == 0;
}

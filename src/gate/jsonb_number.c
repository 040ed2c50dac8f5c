/*
 * jsonb_number.c
 *		Exact comparison of the numbers in a jsonb, without allocating.
 *
 * numeric's own functions take and return Datums and allocate.  Here the bytes are read as they
 * lie: the format (utils/adt/numeric.c, "NumericData") is on disk everywhere, see core/decimal.c.
 * jsonb has no NaN and no infinities.
 */
#include "postgres.h"

#include <limits.h>

#include "common/hashfn.h"
#include "fmgr.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "core/compat.h"
#include "gate/jsonb_number.h"

#define GROUP			  10000
#define NUMERIC_SIGN_MASK 0xC000
#define NUMERIC_NEGATIVE  0x4000
#define NUMERIC_SHORT	  0x8000
#define SHORT_NEGATIVE	  0x2000
#define SHORT_WEIGHT_SIGN 0x0040
#define SHORT_WEIGHT_MASK 0x003F

/* digits[0] is worth 10000^weight; no zeros at either end, none at all: the value is zero. */
typedef struct NumberView
{
	const int16 *digits;
	int count;
	int weight;
	bool negative;
} NumberView;

static inline void
view_number(NumberView *view, const char *number)
{
	const char *data = VARDATA_ANY(number);
	int size = VARSIZE_ANY_EXHDR(number);
	uint16 header = *(const uint16 *) data;

	if (header & NUMERIC_SHORT)
	{
		view->negative = (header & SHORT_NEGATIVE) != 0;
		view->weight = header & SHORT_WEIGHT_MASK;
		if (header & SHORT_WEIGHT_SIGN)
			view->weight |= ~SHORT_WEIGHT_MASK;
		view->digits = (const int16 *) (data + sizeof(uint16));
		view->count = (size - sizeof(uint16)) / sizeof(int16);
	}
	else
	{
		view->negative = (header & NUMERIC_SIGN_MASK) == NUMERIC_NEGATIVE;
		view->weight = *(const int16 *) (data + sizeof(uint16));
		view->digits = (const int16 *) (data + 2 * sizeof(uint16));
		view->count = (size - 2 * sizeof(uint16)) / sizeof(int16);
	}
	while (view->count > 0 && view->digits[0] == 0)
	{
		view->digits++;
		view->count--;
		view->weight--;
	}
	while (view->count > 0 && view->digits[view->count - 1] == 0)
		view->count--;
	if (view->count == 0)
	{
		view->negative = false;
		view->weight = 0;
	}
}

static int
compare_magnitudes(const NumberView *a, const NumberView *b)
{
	int count = Min(a->count, b->count);

	if (a->count == 0 || b->count == 0)
		return (a->count > 0) - (b->count > 0);
	if (a->weight != b->weight)
		return a->weight < b->weight ? -1 : 1;
	for (int i = 0; i < count; i++)
	{
		if (a->digits[i] != b->digits[i])
			return a->digits[i] < b->digits[i] ? -1 : 1;
	}
	return (a->count > b->count) - (a->count < b->count);
}

int
json_number_compare(const char *a, const char *b)
{
	NumberView left;
	NumberView right;

	view_number(&left, a);
	view_number(&right, b);
	if (left.negative != right.negative)
		return left.negative ? -1 : 1;
	return left.negative ? compare_magnitudes(&right, &left) : compare_magnitudes(&left, &right);
}

bool
json_number_is_integer(const char *number)
{
	NumberView view;

	view_number(&view, number);
	return view.count <= view.weight + 1 || view.count == 0;
}

bool
json_number_is_positive(const char *number)
{
	NumberView view;

	view_number(&view, number);
	return !view.negative && view.count > 0;
}

uint64
json_number_hash(const char *number)
{
	NumberView view;

	view_number(&view, number);
	return hash_bytes_extended((const unsigned char *) view.digits, view.count * sizeof(int16),
							   (uint64) view.weight * 2 + view.negative);
}

int
json_number_to_int(const char *number)
{
	NumberView view;
	int64 value = 0;

	view_number(&view, number);
	if (view.count == 0 || view.weight < 0)
		return 0;
	if (view.weight > 2)
		return view.negative ? INT_MIN : INT_MAX;
	for (int i = 0; i <= view.weight; i++)
		value = value * GROUP + (i < view.count ? view.digits[i] : 0);
	if (view.negative)
		value = -value;
	return (int) Max(Min(value, INT_MAX), INT_MIN);
}

#ifdef HAVE_INT128
/* The magnitude in units of 10000^lowest; the caller knows that it fits. */
static int128
scaled_magnitude(const NumberView *view, int lowest)
{
	int128 value = 0;

	for (int power = view->weight, i = 0; power >= lowest; power--, i++)
		value = value * GROUP + (i < view->count ? view->digits[i] : 0);
	return value;
}
#endif

bool
json_number_is_multiple(const char *number, const char *of, int64 limit, int64 *work)
{
	NumberView value;
	NumberView divisor;
	NumberView rest;
	Numeric remainder;
	bool result;
	int lowest;

	*work = 1;
	view_number(&value, number);
	view_number(&divisor, of);
	if (value.count == 0)
		return true;
	if (divisor.count == 0)
		return false;
	lowest = Min(value.weight - value.count, divisor.weight - divisor.count) + 1;
#ifdef HAVE_INT128
	if (value.weight - lowest < 9 && divisor.weight - lowest < 9)
		return scaled_magnitude(&value, lowest) % scaled_magnitude(&divisor, lowest) == 0;
#endif
	/* The last digit of a multiple is worth no less than the divisor's. */
	if (value.weight - value.count < divisor.weight - divisor.count)
		return false;
	if (value.weight < divisor.weight)
		return false;

	*work = 100 + (int64) (value.weight - divisor.weight + 1) * divisor.count;
	if (*work > limit)
		return false;
	remainder = DatumGetNumeric(
		DirectFunctionCall2(numeric_mod, PointerGetDatum(number), PointerGetDatum(of)));
	view_number(&rest, (const char *) remainder);
	result = rest.count == 0;
	pfree(remainder);
	return result;
}

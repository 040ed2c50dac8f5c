/*
 * decimal.h
 *		Decimal literals and numeric, with nothing that raises.
 */
#ifndef BEHAVIOR_DECIMAL_H
#define BEHAVIOR_DECIMAL_H

/*
 * A literal [-]digits[.digits][e[+-]digits], taken apart.  The digits stand
 * in the text one after the other, but for the point behind the first
 * int_digits of them.
 */
typedef struct Decimal
{
	const char *digits;
	int int_digits;
	int frac_digits;
	int exponent; /* at most DECIMAL_MAX_EXPONENT either way: beyond that, that */
	bool negative;
} Decimal;

#define DECIMAL_MAX_EXPONENT (INT_MAX / 2)

/* Takes apart a literal that is known to be well-formed. */
extern void decimal_parse(Decimal *decimal, const char *text, int length);

/* Whether numeric can hold the value; what follows needs that. */
extern bool decimal_storable(const Decimal *decimal);

/* Writes it as a numeric, the same bytes as numeric_in's; returns their number. */
extern int decimal_write(const Decimal *decimal, char *target);

/* Bytes that decimal_write() may write. */
extern int decimal_write_bound(const Decimal *decimal);

/* The value where it is an integer of 64 bits. */
extern bool decimal_to_int64(const Decimal *decimal, int64 *value);

/*
 * The value as numeric_out shows it, at most size bytes of it, not terminated; returns the bytes
 * written.  So a number reads the same whether jsonb has been at it or not.
 */
extern int decimal_to_text(const Decimal *decimal, char *target, int size);

#endif

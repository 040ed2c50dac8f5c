/*
 * instant.c
 *		Points in time as JSON writes them, with nothing that raises.
 *
 * timestamptz_in takes far more (words, other orders of fields, the session's
 * TimeZone and DateStyle) and raises on the rest.  What is taken here depends on
 * nothing but the text.
 */
#include "postgres.h"

#include <math.h>

#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "core/instant.h"

#define MAX_FRACTION_DIGITS 30 /* more make no difference to the rounding */
#define EPOCH_MILLISECONDS	INT64CONST(100000000000)
#define EPOCH_SHIFT_SECONDS ((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (int64) SECS_PER_DAY)
#define FIRST_YEAR			1
#define LAST_YEAR			9999

/* Reads exactly count digits. */
static bool
take_digits(const char **cur, const char *end, int count, int *value)
{
	int result = 0;

	if (end - *cur < count)
		return false;
	for (int i = 0; i < count; i++)
	{
		char c = *(*cur)++;

		if (c < '0' || c > '9')
			return false;
		result = result * 10 + (c - '0');
	}
	*value = result;
	return true;
}

static bool
take_char(const char **cur, const char *end, char expected)
{
	if (*cur >= end || **cur != expected)
		return false;
	(*cur)++;
	return true;
}

/* Reads the digits behind the point as microseconds, up to 1000000 when it rounds up. */
static bool
take_fraction(const char **cur, const char *end, int *microseconds)
{
	char digits[MAX_FRACTION_DIGITS + 3] = "0.";
	int count = 0;
	int value = 0;

	for (; *cur < end && **cur >= '0' && **cur <= '9'; (*cur)++, count++)
	{
		if (count < 6)
			value = value * 10 + (**cur - '0');
		if (count < MAX_FRACTION_DIGITS)
			digits[count + 2] = **cur;
	}
	if (count == 0)
		return false;
	if (count > 6)
	{
		/* The arithmetic of timestamptz_in, so that both doors agree on every digit. */
		digits[Min(count, MAX_FRACTION_DIGITS) + 2] = '\0';
		value = (int) rint(strtod(digits, NULL) * 1000000);
	}
	else
	{
		for (; count < 6; count++)
			value *= 10;
	}
	*microseconds = value;
	return true;
}

/* Reads Z or ±HH[[:]MM], as seconds east of UTC; nothing there is UTC. */
static bool
take_offset(const char **cur, const char *end, int *seconds)
{
	int hours;
	int minutes = 0;
	bool west;

	*seconds = 0;
	if (*cur >= end)
		return true;
	if (take_char(cur, end, 'Z') || take_char(cur, end, 'z'))
		return true;
	west = **cur == '-';
	if (!west && **cur != '+')
		return false;
	(*cur)++;
	if (!take_digits(cur, end, 2, &hours))
		return false;
	if (*cur < end)
	{
		(void) take_char(cur, end, ':');
		if (!take_digits(cur, end, 2, &minutes))
			return false;
	}
	if (hours > MAX_TZDISP_HOUR || minutes >= MINS_PER_HOUR)
		return false;
	*seconds = (hours * MINS_PER_HOUR + minutes) * SECS_PER_MINUTE;
	if (west)
		*seconds = -*seconds;
	return true;
}

bool
instant_parse(const char *text, int length, TimestampTz *result)
{
	const char *cur = text;
	const char *end = text + length;
	int year;
	int month;
	int day;
	int hour = 0;
	int minute = 0;
	int second = 0;
	int microseconds = 0;
	int offset = 0;
	int64 seconds;

	if (!take_digits(&cur, end, 4, &year) || !take_char(&cur, end, '-') ||
		!take_digits(&cur, end, 2, &month) || !take_char(&cur, end, '-') ||
		!take_digits(&cur, end, 2, &day))
		return false;
	if (cur < end)
	{
		if (!take_char(&cur, end, 'T') && !take_char(&cur, end, 't') && !take_char(&cur, end, ' '))
			return false;
		if (!take_digits(&cur, end, 2, &hour) || !take_char(&cur, end, ':') ||
			!take_digits(&cur, end, 2, &minute))
			return false;
		if (take_char(&cur, end, ':'))
		{
			if (!take_digits(&cur, end, 2, &second))
				return false;
			if (take_char(&cur, end, '.') && !take_fraction(&cur, end, &microseconds))
				return false;
		}
		(void) take_char(&cur, end, ' ');
		if (!take_offset(&cur, end, &offset) || cur != end)
			return false;
	}

	if (year < FIRST_YEAR || month < 1 || month > MONTHS_PER_YEAR || day < 1 ||
		day > day_tab[isleap(year)][month - 1])
		return false;
	/* 24:00:00 is the end of the day, as PostgreSQL has it. */
	if (hour > HOURS_PER_DAY || minute >= MINS_PER_HOUR || second > SECS_PER_MINUTE ||
		(hour == HOURS_PER_DAY && (minute > 0 || second > 0 || microseconds > 0)))
		return false;

	seconds = (int64) (date2j(year, month, day) - POSTGRES_EPOCH_JDATE) * SECS_PER_DAY +
			  (hour * MINS_PER_HOUR + minute) * SECS_PER_MINUTE + second - offset;
	*result = seconds * USECS_PER_SEC + microseconds;
	return true;
}

bool
instant_from_epoch(int64 value, TimestampTz *result)
{
	int64 first = (int64) (date2j(FIRST_YEAR, 1, 1) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY;
	int64 last = (int64) (date2j(LAST_YEAR + 1, 1, 1) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY;

	if (value >= EPOCH_MILLISECONDS)
	{
		if (value > PG_INT64_MAX / 1000)
			return false;
		*result = value * 1000 - EPOCH_SHIFT_SECONDS * USECS_PER_SEC;
	}
	else
	{
		if (value < -EPOCH_MILLISECONDS)
			return false;
		*result = (value - EPOCH_SHIFT_SECONDS) * USECS_PER_SEC;
	}
	return *result >= first && *result < last;
}

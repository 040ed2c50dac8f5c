/*
 * time_bucket.c
 *		The start of the bucket that a point in time belongs to.
 *
 * Buckets of days and less are counted from Monday 2000-01-03, so that those
 * of a week start on Mondays; buckets of months from January 2000, so
 * that those of a quarter or a year start where calendars have them.
 *
 * With a time zone the buckets are those of its wall clock.  The result is an
 * instant again, and where a clock is put forward or back there is none, or
 * are two, of that local time.  For whole days and months it is the
 * first instant of the local day, so that such a bucket has 23 or 25 hours; for
 * shorter ones it is the last such instant that is not after "at", so that the
 * hour that is there twice is two buckets.
 */
#include "postgres.h"

#include <limits.h>

#include "common/int.h"
#include "fmgr.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "core/compat.h"

PG_FUNCTION_INFO_V1(behavior_time_bucket);
PG_FUNCTION_INFO_V1(behavior_time_bucket_zone);

#define ORIGIN_YEAR			2000
#define ORIGIN				(2 * USECS_PER_DAY) /* 2000-01-03; PostgreSQL's own is 2000-01-01 */
#define EPOCH_SHIFT_SECONDS ((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (int64) SECS_PER_DAY)

typedef struct Width
{
	int months; /* > 0: calendar months; else a number of microseconds */
	int64 microseconds;
} Width;

/* How a zone's clock stood for a while: from "from" up to but not including "until". */
typedef struct Regime
{
	pg_time_t from;
	pg_time_t until;
	int64 offset; /* seconds east of UTC */
} Regime;

#define FOR_EVER PG_INT64_MAX

static inline int64
floor_div(int64 value, int64 divisor)
{
	return value / divisor - (value % divisor < 0);
}

static void
raise_out_of_range(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
}

static void
check_width(const Interval *interval, Width *width)
{
	int64 days;

	if (INTERVAL_NOT_FINITE(interval))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("width of a bucket must be finite")));
	if (interval->month != 0 && (interval->day != 0 || interval->time != 0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("width of a bucket must not mix months with days or time"),
						errdetail("Months have no fixed length."),
						errhint("Use either months and years, or weeks, days and time.")));
	width->months = interval->month;
	if (pg_mul_s64_overflow(interval->day, USECS_PER_DAY, &days) ||
		pg_add_s64_overflow(days, interval->time, &width->microseconds))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("width of a bucket is out of range")));
	if (width->months < 0 || (width->months == 0 && width->microseconds <= 0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("width of a bucket must be greater than zero")));
}

/* The start of the bucket on a time line without a zone. */
static Timestamp
bucket_start(const Width *width, Timestamp at)
{
	Timestamp result;

	if (width->months > 0)
	{
		struct pg_tm tm;
		fsec_t fsec;
		int64 month;

		if (timestamp2tm(at, NULL, &tm, &fsec, NULL, NULL) != 0)
			raise_out_of_range();
		month = (int64) (tm.tm_year - ORIGIN_YEAR) * MONTHS_PER_YEAR + tm.tm_mon - 1;
		month = floor_div(month, width->months) * width->months;
		if (month < -(int64) INT_MAX / 2)
			raise_out_of_range();
		memset(&tm, 0, sizeof(tm));
		tm.tm_year = ORIGIN_YEAR + floor_div(month, MONTHS_PER_YEAR);
		tm.tm_mon = month - floor_div(month, MONTHS_PER_YEAR) * MONTHS_PER_YEAR + 1;
		tm.tm_mday = 1;
		if (!IS_VALID_JULIAN(tm.tm_year, tm.tm_mon, tm.tm_mday) ||
			tm2timestamp(&tm, 0, NULL, &result) != 0)
			raise_out_of_range();
	}
	else
	{
		int64 buckets = floor_div(at - ORIGIN, width->microseconds);

		if (pg_mul_s64_overflow(buckets, width->microseconds, &result) ||
			pg_add_s64_overflow(result, ORIGIN, &result) || !IS_VALID_TIMESTAMP(result))
			raise_out_of_range();
	}
	return result;
}

/*
 * behavior.time_bucket(width interval, at timestamptz): buckets of UTC.
 */
Datum
behavior_time_bucket(PG_FUNCTION_ARGS)
{
	TimestampTz at = PG_GETARG_TIMESTAMPTZ(1);
	Width width;

	check_width(PG_GETARG_INTERVAL_P(0), &width);
	if (TIMESTAMP_NOT_FINITE(at))
		PG_RETURN_TIMESTAMPTZ(at);
	PG_RETURN_TIMESTAMPTZ(bucket_start(&width, at));
}

/* How the clock of a zone stands at an instant, and until when at least it does. */
static Regime
find_regime(pg_tz *tz, pg_time_t at)
{
	/* The answer for the zone that was asked last: folds ask for one zone at one time of the year.
	 */
	static pg_tz *cached_tz = NULL;
	static Regime cached;
	long before;
	long after;
	int before_isdst;
	int after_isdst;
	pg_time_t boundary;
	int found;

	if (tz == cached_tz && at >= cached.from && at < cached.until)
		return cached;
	found = pg_next_dst_boundary(&at, &before, &before_isdst, &boundary, &after, &after_isdst, tz);
	if (found < 0)
		raise_out_of_range();

	if (found == 0)
		boundary = FOR_EVER;
	if (tz == cached_tz && boundary == cached.until && cached.offset == before)
		cached.from = Min(cached.from, at);
	else
	{
		cached_tz = tz;
		cached.from = at;
		cached.until = boundary;
		cached.offset = before;
	}
	return cached;
}

/*
 * The instant (seconds since 1970) at which the clock of a zone shows "local": the first one, or
 * the last one that is not after not_after; where it shows it never, the moment at
 * which it is put forward over it.
 */
static pg_time_t
local_to_instant(pg_tz *tz, int64 local, bool first, pg_time_t not_after)
{
	/* No clock is a day off, so that only this span can show the time. */
	pg_time_t at = local - SECS_PER_DAY;
	pg_time_t end = local + SECS_PER_DAY;
	pg_time_t result = 0;
	bool found = false;

	while (at <= end)
	{
		Regime regime = find_regime(tz, at);
		pg_time_t candidate = local - regime.offset;

		if (candidate < at)
		{
			/* Put forward over it when this began. */
			if (!found)
				return at;
		}
		else if (candidate < regime.until && (!found || candidate <= not_after))
		{
			if (first)
				return candidate;
			result = candidate;
			found = true;
		}
		if (regime.until == FOR_EVER)
			break;
		at = regime.until;
	}
	return result;
}

/*
 * behavior.time_bucket(width interval, at timestamptz, zone text): buckets of a zone's wall clock.
 */
Datum
behavior_time_bucket_zone(PG_FUNCTION_ARGS)
{
	TimestampTz at = PG_GETARG_TIMESTAMPTZ(1);
	text *zone = PG_GETARG_TEXT_PP(2);
	char name[TZ_STRLEN_MAX + 1];
	Width width;
	pg_tz *tz;
	bool whole_days;
	pg_time_t at_seconds;
	Timestamp local;
	int64 start;
	int64 fraction;
	TimestampTz result;

	check_width(PG_GETARG_INTERVAL_P(0), &width);
	text_to_cstring_buffer(zone, name, sizeof(name));
	tz = VARSIZE_ANY_EXHDR(zone) <= TZ_STRLEN_MAX ? pg_tzset(name) : NULL;
	if (tz == NULL || !pg_tz_acceptable(tz))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("time zone \"%s\" not recognized", name),
						errhint("See the names in pg_timezone_names.")));
	if (TIMESTAMP_NOT_FINITE(at))
		PG_RETURN_TIMESTAMPTZ(at);

	whole_days = width.months > 0 || width.microseconds % USECS_PER_DAY == 0;
	at_seconds = floor_div(at, USECS_PER_SEC) + EPOCH_SHIFT_SECONDS;
	local = at + find_regime(tz, at_seconds).offset * USECS_PER_SEC;
	if (!IS_VALID_TIMESTAMP(local))
		raise_out_of_range();

	local = bucket_start(&width, local);
	start = floor_div(local, USECS_PER_SEC);
	fraction = local - start * USECS_PER_SEC;
	start = local_to_instant(tz, start + EPOCH_SHIFT_SECONDS, whole_days,
							 floor_div(at - fraction, USECS_PER_SEC) + EPOCH_SHIFT_SECONDS);
	result = (start - EPOCH_SHIFT_SECONDS) * USECS_PER_SEC + fraction;
	if (!IS_VALID_TIMESTAMP(result))
		raise_out_of_range();
	PG_RETURN_TIMESTAMPTZ(result);
}

/*
 * schema_format.c
 *		The formats of JSON Schema, where they are asserted.
 *
 * date-time, date and time by RFC 3339 (a leap second where one may be: 23:59:60 UTC), duration by
 * RFC 3339 appendix A, email by RFC 5321's Mailbox, hostname by RFC 1123, ipv4 by RFC 2673, ipv6
 * by RFC 4291, uri by RFC 3986, uuid by RFC 4122, json-pointer by RFC 6901, regex by ECMA-262 as
 * far as schema_regex_translate.c reads it.  Other formats are remarks.
 */
#include "postgres.h"

#include "gate/schema_node.h"

static const struct
{
	const char *name;
	SchemaFormat format;
} formats[] = {
	{"date-time", SCHEMA_FORMAT_DATE_TIME},
	{"date", SCHEMA_FORMAT_DATE},
	{"time", SCHEMA_FORMAT_TIME},
	{"duration", SCHEMA_FORMAT_DURATION},
	{"email", SCHEMA_FORMAT_EMAIL},
	{"hostname", SCHEMA_FORMAT_HOSTNAME},
	{"ipv4", SCHEMA_FORMAT_IPV4},
	{"ipv6", SCHEMA_FORMAT_IPV6},
	{"uri", SCHEMA_FORMAT_URI},
	{"uuid", SCHEMA_FORMAT_UUID},
	{"json-pointer", SCHEMA_FORMAT_JSON_POINTER},
	{"regex", SCHEMA_FORMAT_REGEX},
};

SchemaFormat
schema_format_by_name(const char *name, int length)
{
	for (int i = 0; i < lengthof(formats); i++)
	{
		if (strlen(formats[i].name) == length && memcmp(formats[i].name, name, length) == 0)
			return formats[i].format;
	}
	return SCHEMA_FORMAT_NONE;
}

const char *
schema_format_name(SchemaFormat format)
{
	for (int i = 0; i < lengthof(formats); i++)
	{
		if (formats[i].format == format)
			return formats[i].name;
	}
	return "?";
}

static inline bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static inline bool
is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static inline bool
is_hex(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Takes a number of exactly so many digits; -1 when it is none. */
static int
take_digits(const char **cur, const char *end, int digits)
{
	int value = 0;

	if (end - *cur < digits)
		return -1;
	for (int i = 0; i < digits; i++, (*cur)++)
	{
		if (!is_digit(**cur))
			return -1;
		value = value * 10 + (**cur - '0');
	}
	return value;
}

static bool
take(const char **cur, const char *end, char c)
{
	if (*cur == end || **cur != c)
		return false;
	(*cur)++;
	return true;
}

static bool
take_date(const char **cur, const char *end)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int year = take_digits(cur, end, 4);
	int month;
	int day;
	bool leap;

	if (year < 0 || !take(cur, end, '-'))
		return false;
	month = take_digits(cur, end, 2);
	if (month < 1 || month > 12 || !take(cur, end, '-'))
		return false;
	day = take_digits(cur, end, 2);
	leap = month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
	return day >= 1 && day <= days[month - 1] + leap;
}

static bool
take_time(const char **cur, const char *end)
{
	int hour = take_digits(cur, end, 2);
	int minute;
	int second;
	int offset = 0;

	if (hour < 0 || hour > 23 || !take(cur, end, ':'))
		return false;
	minute = take_digits(cur, end, 2);
	if (minute < 0 || minute > 59 || !take(cur, end, ':'))
		return false;
	second = take_digits(cur, end, 2);
	if (second < 0 || second > 60)
		return false;
	if (take(cur, end, '.'))
	{
		const char *fraction = *cur;

		while (*cur < end && is_digit(**cur))
			(*cur)++;
		if (*cur == fraction)
			return false;
	}
	if (*cur < end && (**cur == '+' || **cur == '-'))
	{
		int sign = *(*cur)++ == '+' ? 1 : -1;
		int hours = take_digits(cur, end, 2);
		int minutes;

		if (hours < 0 || hours > 23 || !take(cur, end, ':'))
			return false;
		minutes = take_digits(cur, end, 2);
		if (minutes < 0 || minutes > 59)
			return false;
		offset = sign * (hours * 60 + minutes);
	}
	else if (!take(cur, end, 'Z') && !take(cur, end, 'z'))
		return false;
	/* Leap seconds end a day of UTC. */
	return second < 60 || (hour * 60 + minute - offset + 2 * 1440) % 1440 == 1439;
}

static bool
is_date(const char *cur, const char *end)
{
	return take_date(&cur, end) && cur == end;
}

static bool
is_time(const char *cur, const char *end)
{
	return take_time(&cur, end) && cur == end;
}

static bool
is_date_time(const char *cur, const char *end)
{
	return take_date(&cur, end) && (take(&cur, end, 'T') || take(&cur, end, 't')) &&
		   is_time(cur, end);
}

/* Takes numbers, each followed by one of the units, in the order of these and without a gap. */
static bool
take_units(const char **cur, const char *end, const char *units, int *count)
{
	const char *unit = NULL;

	*count = 0;
	while (*cur < end && is_digit(**cur))
	{
		const char *next;

		while (*cur < end && is_digit(**cur))
			(*cur)++;
		if (*cur == end || (next = strchr(units, **cur)) == NULL || *next == '\0' ||
			(unit != NULL && next != unit + 1))
			return false;
		unit = next;
		(*cur)++;
		(*count)++;
	}
	return true;
}

static bool
is_duration(const char *cur, const char *end)
{
	int dates;
	int times;

	if (!take(&cur, end, 'P'))
		return false;
	if (end - cur > 1 && end[-1] == 'W')
		return take_units(&cur, end, "W", &dates) && dates == 1 && cur == end;
	if (!take_units(&cur, end, "YMD", &dates))
		return false;
	if (!take(&cur, end, 'T'))
		return dates > 0 && cur == end;
	return take_units(&cur, end, "HMS", &times) && times > 0 && cur == end;
}

static bool
is_hostname(const char *cur, const char *end)
{
	const char *label = cur;

	if (cur == end || end - cur > 253)
		return false;
	for (;; cur++)
	{
		if (cur == end || *cur == '.')
		{
			if (cur == label || cur - label > 63 || *label == '-' || cur[-1] == '-')
				return false;
			if (cur == end)
				return true;
			label = cur + 1;
		}
		else if (!is_letter(*cur) && !is_digit(*cur) && *cur != '-')
			return false;
	}
}

static bool
is_ipv4(const char *cur, const char *end)
{
	for (int i = 0; i < 4; i++)
	{
		const char *start = cur;
		int value = 0;

		if (i > 0 && !take(&cur, end, '.'))
			return false;
		start = cur;
		while (cur < end && is_digit(*cur) && cur - start < 3)
			value = value * 10 + (*cur++ - '0');
		if (cur == start || value > 255 || (*start == '0' && cur - start > 1))
			return false;
	}
	return cur == end;
}

static bool
is_ipv6(const char *cur, const char *end)
{
	int groups = 0;
	bool gap = false;

	if (end - cur >= 2 && cur[0] == ':' && cur[1] == ':')
	{
		gap = true;
		cur += 2;
	}
	while (cur < end)
	{
		const char *start = cur;

		while (cur < end && is_hex(*cur) && cur - start < 5)
			cur++;
		if (cur < end && *cur == '.')
		{
			groups += 2;
			return (gap ? groups < 8 : groups == 8) && is_ipv4(start, end);
		}
		if (cur == start || cur - start > 4)
			return false;
		groups++;
		if (cur == end)
			break;
		if (!take(&cur, end, ':') || cur == end)
			return false;
		if (*cur == ':')
		{
			if (gap)
				return false;
			gap = true;
			cur++;
		}
	}
	return gap ? groups < 8 : groups == 8;
}

/* RFC 5321: dot-string or quoted string, @, domain or address literal. */
static bool
is_email(const char *cur, const char *end)
{
	const char *start = cur;

	if (take(&cur, end, '"'))
	{
		while (cur < end && *cur != '"')
		{
			if (*cur == '\\' && ++cur == end)
				return false;
			if (*cur < ' ' || *cur > '~')
				return false;
			cur++;
		}
		if (!take(&cur, end, '"'))
			return false;
	}
	else
	{
		while (cur < end && *cur != '@')
		{
			if (*cur == '.')
			{
				if (cur == start || cur + 1 == end || cur[1] == '.' || cur[1] == '@')
					return false;
			}
			else if (!is_letter(*cur) && !is_digit(*cur) &&
					 (*cur == '\0' || strchr("!#$%&'*+-/=?^_`{|}~", *cur) == NULL))
				return false;
			cur++;
		}
	}
	if (cur == start || cur - start > 64 || !take(&cur, end, '@'))
		return false;
	if (end - cur > 2 && *cur == '[' && end[-1] == ']')
	{
		cur++;
		end--;
		if (end - cur > 5 && pg_strncasecmp(cur, "IPv6:", 5) == 0)
			return is_ipv6(cur + 5, end);
		return is_ipv4(cur, end);
	}
	return is_hostname(cur, end);
}

/* Characters of a part of a URI: unreserved, sub-delims, percent-encoded, and those given. */
static bool
is_uri_text(const char *cur, const char *end, const char *more)
{
	for (; cur < end; cur++)
	{
		if (is_letter(*cur) || is_digit(*cur))
			continue;
		if (*cur == '%')
		{
			if (end - cur < 3 || !is_hex(cur[1]) || !is_hex(cur[2]))
				return false;
			cur += 2;
		}
		else if (*cur == '\0' ||
				 (strchr("-._~!$&'()*+,;=", *cur) == NULL && strchr(more, *cur) == NULL))
			return false;
	}
	return true;
}

static const char *
find_any(const char *cur, const char *end, const char *stops)
{
	while (cur < end && (*cur == '\0' || strchr(stops, *cur) == NULL))
		cur++;
	return cur;
}

/* userinfo, host and port. */
static bool
is_authority(const char *cur, const char *end)
{
	const char *at = find_any(cur, end, "@");
	const char *port;

	if (at < end)
	{
		if (!is_uri_text(cur, at, ":"))
			return false;
		cur = at + 1;
	}
	if (cur < end && *cur == '[')
	{
		const char *close = find_any(cur, end, "]");

		if (close == end)
			return false;
		if (cur + 1 < close && (cur[1] == 'v' || cur[1] == 'V'))
		{
			const char *dot = find_any(cur, close, ".");

			if (dot == close || dot == cur + 2 || dot + 1 == close ||
				!is_uri_text(dot + 1, close, ":"))
				return false;
		}
		else if (!is_ipv6(cur + 1, close))
			return false;
		port = close + 1;
		if (port < end && *port != ':')
			return false;
	}
	else
	{
		port = find_any(cur, end, ":");
		if (!is_uri_text(cur, port, ""))
			return false;
	}
	for (port++; port < end; port++)
	{
		if (!is_digit(*port))
			return false;
	}
	return true;
}

static bool
is_uri(const char *cur, const char *end)
{
	const char *stop = find_any(cur, end, ":/?#");

	if (stop == end || *stop != ':' || stop == cur || !is_letter(*cur))
		return false;
	for (; cur < stop; cur++)
	{
		if (!is_letter(*cur) && !is_digit(*cur) && *cur != '+' && *cur != '-' && *cur != '.')
			return false;
	}
	cur++;
	if (end - cur >= 2 && cur[0] == '/' && cur[1] == '/')
	{
		stop = find_any(cur + 2, end, "/?#");
		if (!is_authority(cur + 2, stop))
			return false;
		cur = stop;
	}
	stop = find_any(cur, end, "?#");
	if (!is_uri_text(cur, stop, ":@/"))
		return false;
	if (stop < end && *stop == '?')
	{
		cur = stop + 1;
		stop = find_any(cur, end, "#");
		if (!is_uri_text(cur, stop, ":@/?"))
			return false;
	}
	return stop == end || is_uri_text(stop + 1, end, ":@/?");
}

static bool
is_uuid(const char *cur, const char *end)
{
	if (end - cur != 36)
		return false;
	for (int i = 0; i < 36; i++)
	{
		bool hyphen = i == 8 || i == 13 || i == 18 || i == 23;

		if (hyphen ? cur[i] != '-' : !is_hex(cur[i]))
			return false;
	}
	return true;
}

static bool
is_json_pointer(const char *cur, const char *end)
{
	if (cur < end && *cur != '/')
		return false;
	for (; cur < end; cur++)
	{
		if (*cur == '~' && (cur + 1 == end || (cur[1] != '0' && cur[1] != '1')))
			return false;
	}
	return true;
}

static bool
is_regex(const char *text, int length)
{
	const char *message;
	bool repeats;
	char *translated = schema_regex_translate(text, length, &repeats, &message);

	if (translated == NULL)
		return false;
	pfree(translated);
	return true;
}

bool
schema_format_matches(SchemaFormat format, const char *text, int length)
{
	const char *end = text + length;

	switch (format)
	{
		case SCHEMA_FORMAT_DATE_TIME:
			return is_date_time(text, end);
		case SCHEMA_FORMAT_DATE:
			return is_date(text, end);
		case SCHEMA_FORMAT_TIME:
			return is_time(text, end);
		case SCHEMA_FORMAT_DURATION:
			return is_duration(text, end);
		case SCHEMA_FORMAT_EMAIL:
			return is_email(text, end);
		case SCHEMA_FORMAT_HOSTNAME:
			return is_hostname(text, end);
		case SCHEMA_FORMAT_IPV4:
			return is_ipv4(text, end);
		case SCHEMA_FORMAT_IPV6:
			return is_ipv6(text, end);
		case SCHEMA_FORMAT_URI:
			return is_uri(text, end);
		case SCHEMA_FORMAT_UUID:
			return is_uuid(text, end);
		case SCHEMA_FORMAT_JSON_POINTER:
			return is_json_pointer(text, end);
		case SCHEMA_FORMAT_REGEX:
			return is_regex(text, length);
		default:
			return true;
	}
}

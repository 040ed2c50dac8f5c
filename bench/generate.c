/*
 * generate.c
 *		Writes events to measure with: the same arguments always give the same bytes.
 *
 *	generate --count N [--first N] [--seed N] [--rate N] [--start SECONDS] [--order time|random]
 *			 [--duplicates PERCENT] [--ids random|time] [--format FORMAT] > FILE
 *
 * count		rows to write
 * first		number of the first event; files of other ranges hold other events of the same visitors
 * seed			another seed, other events
 * rate			events a second of occurred_at
 * start		occurred_at of event number 0, in seconds since 1970
 * order		of the rows: by time, or random
 * duplicates	percent of the rows that repeat an earlier event byte for byte, half of them one of
 *				the last thousand; count - count * duplicates / 100 different events are left
 * ids			random uuids (version 4), or such that begin with the time (version 7)
 * format		csv: for COPY (event_id, source, type, user_id, anonymous_id, occurred_at, properties)
 *				binary: the same for COPY ... (FORMAT binary), event_id a uuid
 *				binary-text: the same, event_id a text
 *				ndjson: the same as a JSON object a line
 *				binary-json: those lines as one column of type text
 *
 * Every event is a function of seed and number, nothing is remembered from one to the next, so any
 * range can be made alone and a duplicate is just made again.  What they look like:
 *
 * A site that gets `rate` events a second has about rate * PAUSE visits going on at a time.  Each
 * of those has a slot.  In each round every slot gets one event, in an order that differs from
 * round to round, so that pauses inside of a visit are between nothing and twice PAUSE.  With each
 * event of a slot a new visit begins by a chance of one in VISIT, whence visits have VISIT events
 * on average and many have one.  A visit belongs to one of VISITORS devices, which uses one
 * application (source); of some the person logs in during the visit, and has a user_id from then
 * on.  Pages and items follow Zipf's law: the first of n has one in ln(n).  An event has 5 to 10
 * properties of text, numbers, booleans and null, and about 190 bytes, of which about half are
 * properties.
 */
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PAUSE	   45
#define VISIT	   8
#define VISITORS   500000
#define PAGES	   10000
#define ITEMS	   2000
#define ZIPF_STEPS 65536
#define TIME_SIZE  80
#define EPOCH_2000 INT64_C(946684800)

typedef enum Format
{
	FORMAT_CSV,
	FORMAT_BINARY,
	FORMAT_BINARY_TEXT,
	FORMAT_NDJSON,
	FORMAT_BINARY_JSON
} Format;

typedef struct Event
{
	char id[37];
	uint8_t uuid[16];
	char source[8];
	char type[12];
	char user[16]; /* empty: not logged in */
	char device[24];
	int64_t time; /* microseconds since 1970 */
	char properties[512];
} Event;

/* Arguments. */
static uint64_t count, first, seed = 1, rate = 579, duplicates;
static int64_t start = INT64_C(1767571200);
static bool random_order, time_ids;
static Format format = FORMAT_CSV;

static uint64_t slots;
static uint32_t zipf_pages[ZIPF_STEPS], zipf_items[ZIPF_STEPS];

/* A number that looks random: of the seed, of what it is for, and of two numbers. */
static uint64_t
hash(uint64_t purpose, uint64_t a, uint64_t b)
{
	uint64_t h = seed * UINT64_C(0x9e3779b97f4a7c15) + purpose;

	for (int i = 0; i < 3; i++)
	{
		h ^= i == 0 ? a : b;
		h = (h ^ (h >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
		h = (h ^ (h >> 27)) * UINT64_C(0x94d049bb133111eb);
		h ^= h >> 31;
	}
	return h;
}

/* A permutation of the numbers below n: a Feistel network on the next power of four, walked until
 * inside. */
static uint64_t
shuffle(uint64_t purpose, uint64_t n, uint64_t i)
{
	int half = 1;

	while ((UINT64_C(1) << (2 * half)) < n)
		half++;
	do
	{
		uint64_t mask = (UINT64_C(1) << half) - 1;
		uint64_t left = i >> half;
		uint64_t right = i & mask;

		for (int round = 0; round < 3; round++)
		{
			uint64_t next = left ^ (hash(purpose + round, right, n) & mask);

			left = right;
			right = next;
		}
		i = left << half | right;
	} while (i >= n);
	return i;
}

static void
fill_zipf(uint32_t *table, double n)
{
	for (int i = 0; i < ZIPF_STEPS; i++)
		table[i] = (uint32_t) exp(log(n) * (i + 0.5) / ZIPF_STEPS) - 1;
}

static void
fill_id(Event *event, uint64_t number)
{
	static const char digits[] = "0123456789abcdef";
	uint64_t high = hash(1, number, 1);
	uint64_t low = hash(1, number, 2);
	char *out = event->id;

	if (time_ids)
		high = (uint64_t) (event->time / 1000) << 16 | UINT64_C(0x7000) | (high & 0xfff);
	else
		high = (high & ~UINT64_C(0xf000)) | UINT64_C(0x4000);
	low = (low & ~(UINT64_C(3) << 62)) | UINT64_C(2) << 62;
	for (int i = 0; i < 8; i++)
	{
		event->uuid[i] = (uint8_t) (high >> (56 - 8 * i));
		event->uuid[8 + i] = (uint8_t) (low >> (56 - 8 * i));
	}
	for (int i = 0; i < 16; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*out++ = '-';
		*out++ = digits[event->uuid[i] >> 4];
		*out++ = digits[event->uuid[i] & 15];
	}
	*out = '\0';
}

/* Property keys and values; the JSON is written as jsonb shows it, but in our order of keys. */
static void
fill_properties(Event *event, uint64_t number, uint64_t visit)
{
	static const char *const campaigns[] = {"spring", "brand", "newsletter", "none"};
	static const char *const referrers[] = {"search", "mail", "direct", "social", "partner"};
	static const char *const queries[] = {"shoes", "red dress",	  "gift",
										  "lamp",  "caf\303\251", "bag"};
	static const char *const elements[] = {"buy", "menu", "photo", "more", "size"};
	uint64_t r = hash(7, number, 0);
	uint32_t page = zipf_pages[r % ZIPF_STEPS];
	uint32_t item = zipf_items[(r >> 16) % ZIPF_STEPS];
	unsigned kind = (r >> 32) % 100;
	const char *campaign = campaigns[visit % 4];
	const char *referrer = referrers[visit / 4 % 5];
	bool mobile = visit / 20 % 2;
	unsigned small = (r >> 40) % 1000;
	char *out = event->properties;
	size_t size = sizeof(event->properties);

	if (kind < 60)
	{
		strcpy(event->type, "PageView");
		snprintf(out, size,
				 "{\"page\": \"/p/%" PRIu32 "\", \"ms\": %u, \"mobile\": %s, \"referrer\": \"%s\", "
				 "\"campaign\": \"%s\"%s}",
				 page, 20 + small, mobile ? "true" : "false", referrer, campaign,
				 small % 4 == 0 ? ", \"test\": \"B\"" : "");
	}
	else if (kind < 85)
	{
		strcpy(event->type, "Click");
		snprintf(out, size,
				 "{\"page\": \"/p/%" PRIu32
				 "\", \"element\": \"%s\", \"x\": %u, \"y\": %u, \"mobile\": %s, "
				 "\"campaign\": \"%s\"}",
				 page, elements[small % 5], small, 2 * small % 777, mobile ? "true" : "false",
				 campaign);
	}
	else if (kind < 95)
	{
		strcpy(event->type, "Search");
		snprintf(
			out, size,
			"{\"page\": \"/search\", \"query\": \"%s\", \"results\": %u, \"took\": %u.%u, \"mobile\": %s, "
			"\"filter\": null}",
			queries[small % 6], small % 70, small % 9, small % 10, mobile ? "true" : "false");
	}
	else
	{
		strcpy(event->type, "Purchase");
		snprintf(
			out, size,
			"{\"page\": \"/buy\", \"item\": \"i-%" PRIu32 "\", \"price\": %" PRIu32
			".%02u, \"quantity\": %u, "
			"\"currency\": \"EUR\", \"mobile\": %s, \"campaign\": \"%s\", \"referrer\": \"%s\", \"gift\": %s, "
			"\"coupon\": null}",
			item, 5 + item % 95, small % 100, 1 + small % 3, mobile ? "true" : "false", campaign,
			referrer, small % 10 ? "false" : "true");
	}
}

static void
fill_event(Event *event, uint64_t number)
{
	static const char *const sources[] = {"web", "web", "web", "app", "shop"};
	uint64_t round = number / slots;
	uint64_t slot = shuffle(16 + 8 * round, slots, number % slots);
	uint64_t begin = round;
	uint64_t visitor;
	uint64_t visit;

	/* The visit's first round; each event begins one by chance. */
	while (begin > 0 && hash(2, slot, begin) % VISIT != 0)
		begin--;
	visit = hash(3, slot, begin);
	visitor = visit % VISITORS;

	event->time = start * 1000000 + (int64_t) (number * 1000000 / rate);
	fill_id(event, number);
	strcpy(event->source, sources[visitor % 5]);
	snprintf(event->device, sizeof(event->device), "device-%" PRIu64, visitor);
	/* Three in ten have an account and log in with one of the visit's first three events. */
	if (visitor / 5 % 10 < 3 && round - begin >= visit / VISITORS % 3)
		snprintf(event->user, sizeof(event->user), "user-%" PRIu64, visitor);
	else
		event->user[0] = '\0';
	fill_properties(event, number, visit / 7);
}

/* The event that row number `row` shows: most are new, some one that was shown before. */
static uint64_t
event_of_row(uint64_t row)
{
	uint64_t before = row - row * duplicates / 100;
	uint64_t total = count - count * duplicates / 100;
	uint64_t number = before;

	if ((row + 1) * duplicates / 100 > row * duplicates / 100)
	{
		uint64_t r = hash(4, row, first);
		uint64_t near = before < 1000 ? before : 1000;

		number = r & 1 ? before - 1 - (r >> 1) % near : (r >> 1) % before;
	}
	return first + (random_order ? shuffle(1000, total, number) : number);
}

/* 2026-01-05T10:00:00.123456Z; neighbours often share the second. */
static void
format_time(char *out, int64_t time)
{
	static char text[64];
	static time_t last = -1;
	time_t seconds = (time_t) (time / 1000000);

	if (seconds != last)
	{
		struct tm tm;

		gmtime_r(&seconds, &tm);
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
		last = seconds;
	}
	snprintf(out, TIME_SIZE, "%s.%06dZ", text, (int) (time % 1000000));
}

static size_t
event_as_json(const Event *event, char *out, size_t size)
{
	char time[TIME_SIZE];
	char user[32] = "";

	format_time(time, event->time);
	if (event->user[0])
		snprintf(user, sizeof(user), "\"user_id\":\"%s\",", event->user);
	return (size_t) snprintf(
		out, size,
		"{\"event_id\":\"%s\",\"source\":\"%s\",\"type\":\"%s\",%s\"anonymous_id\":\"%s\","
		"\"occurred_at\":\"%s\",\"properties\":%s}",
		event->id, event->source, event->type, user, event->device, time, event->properties);
}

static void
put(const void *bytes, size_t length)
{
	if (fwrite(bytes, 1, length, stdout) != length)
	{
		perror("generate");
		exit(1);
	}
}

static void
put_int(uint64_t value, int length)
{
	uint8_t bytes[8];

	for (int i = 0; i < length; i++)
		bytes[i] = (uint8_t) (value >> (8 * (length - 1 - i)));
	put(bytes, (size_t) length);
}

/* A field of COPY's binary format; an empty text is NULL. */
static void
put_field(const char *text)
{
	size_t length = strlen(text);

	put_int(length ? length : UINT32_MAX, 4);
	put(text, length);
}

static void
put_csv(const Event *event)
{
	char time[TIME_SIZE];
	char line[1024];
	char *out = line;

	format_time(time, event->time);
	out += snprintf(line, sizeof(line), "%s,%s,%s,%s,%s,%s,\"", event->id, event->source,
					event->type, event->user, event->device, time);
	for (const char *in = event->properties; *in; in++)
	{
		if (*in == '"')
			*out++ = '"';
		*out++ = *in;
	}
	*out++ = '"';
	*out++ = '\n';
	put(line, (size_t) (out - line));
}

static void
put_binary(const Event *event)
{
	size_t length = strlen(event->properties);

	put_int(7, 2);
	if (format == FORMAT_BINARY)
	{
		put_int(16, 4);
		put(event->uuid, 16);
	}
	else
		put_field(event->id);
	put_field(event->source);
	put_field(event->type);
	put_field(event->user);
	put_field(event->device);
	put_int(8, 4);
	put_int((uint64_t) (event->time - EPOCH_2000 * 1000000), 8);
	put_int(length + 1, 4);
	put_int(1, 1); /* version of jsonb's */
	put(event->properties, length);
}

static void
put_event(const Event *event)
{
	char line[1024];
	size_t length;

	switch (format)
	{
		case FORMAT_CSV:
			put_csv(event);
			break;
		case FORMAT_BINARY:
		case FORMAT_BINARY_TEXT:
			put_binary(event);
			break;
		case FORMAT_NDJSON:
			length = event_as_json(event, line, sizeof(line));
			line[length++] = '\n';
			put(line, length);
			break;
		case FORMAT_BINARY_JSON:
			event_as_json(event, line, sizeof(line));
			put_int(1, 2);
			put_field(line);
			break;
	}
}

static void
usage(const char *what)
{
	fprintf(stderr, "generate: %s\n", what);
	exit(2);
}

static bool
choose(const char *value, const char *one, const char *other)
{
	if (strcmp(value, one) != 0 && strcmp(value, other) != 0)
		usage(value);
	return strcmp(value, one) == 0;
}

static void
parse_format(const char *value)
{
	static const char *const names[] = {"csv", "binary", "binary-text", "ndjson", "binary-json"};

	for (int i = 0; i < 5; i++)
	{
		if (strcmp(value, names[i]) == 0)
		{
			format = (Format) i;
			return;
		}
	}
	usage(value);
}

static void
parse(int argc, char **argv)
{
	for (int i = 1; i < argc; i += 2)
	{
		const char *name = argv[i];
		const char *value = i + 1 < argc ? argv[i + 1] : "";
		char *end;
		uint64_t number = strtoull(value, &end, 10);
		bool is_number = *value && !*end;

		if (strcmp(name, "--order") == 0)
			random_order = choose(value, "random", "time");
		else if (strcmp(name, "--ids") == 0)
			time_ids = choose(value, "time", "random");
		else if (strcmp(name, "--format") == 0)
			parse_format(value);
		else if (!is_number)
			usage(name);
		else if (strcmp(name, "--count") == 0)
			count = number;
		else if (strcmp(name, "--first") == 0)
			first = number;
		else if (strcmp(name, "--seed") == 0)
			seed = number;
		else if (strcmp(name, "--rate") == 0)
			rate = number;
		else if (strcmp(name, "--start") == 0)
			start = (int64_t) number;
		else if (strcmp(name, "--duplicates") == 0)
			duplicates = number;
		else
			usage(name);
	}
	if (rate == 0 || duplicates >= 100)
		usage("rate is 1 or more, duplicates are less than 100");
}

int
main(int argc, char **argv)
{
	bool binary;
	Event event;

	parse(argc, argv);
	slots = rate * PAUSE;
	fill_zipf(zipf_pages, PAGES);
	fill_zipf(zipf_items, ITEMS);
	setvbuf(stdout, NULL, _IOFBF, 1 << 20);

	binary =
		format == FORMAT_BINARY || format == FORMAT_BINARY_TEXT || format == FORMAT_BINARY_JSON;
	if (binary)
	{
		put("PGCOPY\n\377\r\n", 11); /* with the final zero byte */
		put_int(0, 8);
	}
	for (uint64_t row = 0; row < count; row++)
	{
		fill_event(&event, event_of_row(row));
		put_event(&event);
	}
	if (binary)
		put_int(UINT16_MAX, 2);
	if (fflush(stdout) != 0)
	{
		perror("generate");
		return 1;
	}
	return 0;
}

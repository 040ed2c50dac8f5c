/*
 * session_pack.c
 *		What it takes to merge a session, in one value: column "merge" of behavior._session.
 *
 * The counts of types, and the order keys of the events that the row's values come from.  Only
 * the fold reads them, and whoever asks for type_counts, so they are packed.
 *
 * First, how many types, and of each its name and its count, in the order of their bytes.  A name
 * is 0: the session's entry_type, 1: its exit_type, or its length + 2 and its bytes.
 *
 * Then a byte with a flag for each of entry_page, properties, exit_page and user, from the lowest
 * bit: its event has a key of its own.  Else there is no such value, or it is the first event's
 * (entry_page, properties) or the last one's (exit_page, user).  Behind them one for the last
 *event:
 * it is another than the first.
 *
 * Then the key of the first event, and those flagged: the last one's, then the others, each behind
 * its distance in time from the first or the last.  A key is its form * 2, + 1 if there is a
 * sequence, the sequence, and the event id: form 0 is a uuid as it is mostly written, in 16 bytes,
 * others are the length + 1.
 *
 * Numbers take seven bits a byte, least significant first, the eighth says that more follow;
 * signed ones are folded onto unsigned ones (0, -1, 1, -2, ...).  Equal runs are packed into
 * equal bytes: a rebuild compares rows.
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

#include "core/compat.h"
#include "core/json.h"
#include "fold/session.h"
#include "fold/session_row.h"

#define UUID_TEXT_LEN 36
#define NUMBER_BYTES  10 /* the most that a number takes */
#define COUNT_DIGITS  20
#define OPTIONAL_KEYS 4 /* entry_page, properties, exit_page, user */
#define FIRST_KEYS	  2 /* of these, what falls back on the first event */
#define LAST_KEY	  (1 << OPTIONAL_KEYS)

/* Each of eight bytes has this value. */
#define BYTES(value) (UINT64CONST(0x0101010101010101) * (value))

enum
{
	NAME_ENTRY_TYPE,
	NAME_EXIT_TYPE,
	NAME_LENGTH /* added to the length */
};

/* Where a packed value is read. */
typedef struct Unpacker
{
	const char *at;
	const char *end;
	char *ids; /* room for event ids that were uuids */
} Unpacker;

PG_FUNCTION_INFO_V1(behavior_session_type_counts);

/* Eight characters as a number, the first one lowest, and back. */
static inline uint64
load_eight(const char *first_four, const char *last_four)
{
	uint64 eight;

	memcpy(&eight, first_four, 4);
	memcpy((char *) &eight + 4, last_four, 4);
#ifdef WORDS_BIGENDIAN
	eight = pg_bswap64(eight);
#endif
	return eight;
}

static inline void
store_eight(char *first_four, char *last_four, uint64 eight)
{
#ifdef WORDS_BIGENDIAN
	eight = pg_bswap64(eight);
#endif
	memcpy(first_four, &eight, 4);
	memcpy(last_four, (char *) &eight + 4, 4);
}

/* Eight values of half a byte as lower-case hexadecimal digits, all at once. */
static inline uint64
digits_of_nibbles(uint64 nibbles)
{
	uint64 letters = (nibbles + BYTES(6)) >> 4 & BYTES(1);

	return nibbles + BYTES('0') + letters * ('a' - '0' - 10);
}

static inline uint64
digits_of_bytes(const uint8 *bytes)
{
	uint64 high = 0;
	uint64 low = 0;

	for (int i = 0; i < 4; i++)
	{
		high |= (uint64) (bytes[i] >> 4) << (16 * i);
		low |= (uint64) (bytes[i] & 15) << (16 * i + 8);
	}
	return digits_of_nibbles(high | low);
}

/* The bytes that eight lower-case digits say; false when they are none. */
static inline bool
bytes_of_digits(uint64 digits, uint8 *bytes)
{
	uint64 nibbles = ((digits & BYTES(15)) + (digits >> 6 & BYTES(1)) * 9) & BYTES(15);

	for (int i = 0; i < 4; i++)
		bytes[i] = (uint8) (nibbles >> (16 * i) << 4 | (nibbles >> (16 * i + 8) & 15));
	return digits_of_nibbles(nibbles) == digits;
}

static void
uuid_to_text(const uint8 *uuid, char *text)
{
	text[8] = text[13] = text[18] = text[23] = '-';
	store_eight(text, text + 4, digits_of_bytes(uuid));
	store_eight(text + 9, text + 14, digits_of_bytes(uuid + 4));
	store_eight(text + 19, text + 24, digits_of_bytes(uuid + 8));
	store_eight(text + 28, text + 32, digits_of_bytes(uuid + 12));
}

/* Is this a uuid just as uuid_to_text() writes it? */
static bool
uuid_from_text(Bytes bytes, uint8 *uuid)
{
	const char *text = bytes.data;

	return bytes.length == UUID_TEXT_LEN && text[8] == '-' && text[13] == '-' && text[18] == '-' &&
		   text[23] == '-' && bytes_of_digits(load_eight(text, text + 4), uuid) &&
		   bytes_of_digits(load_eight(text + 9, text + 14), uuid + 4) &&
		   bytes_of_digits(load_eight(text + 19, text + 24), uuid + 8) &&
		   bytes_of_digits(load_eight(text + 28, text + 32), uuid + 12);
}

static inline char *
put_number(char *to, uint64 number)
{
	while (number >= 0x80)
	{
		*to++ = (char) (number | 0x80);
		number >>= 7;
	}
	*to++ = (char) number;
	return to;
}

static inline char *
put_data(char *to, const void *data, int length)
{
	memcpy(to, data, length);
	return to + length;
}

static char *
put_key(char *to, const OrderKey *key)
{
	uint8 uuid[UUID_LEN];
	bool is_uuid = uuid_from_text(key->event_id, uuid);
	uint64 form = is_uuid ? 0 : (uint64) key->event_id.length + 1;

	to = put_number(to, form << 1 | (key->has_sequence ? 1 : 0));
	if (key->has_sequence)
		to = put_number(to, (uint64) key->sequence << 1 ^ (uint64) (key->sequence >> 63));
	if (is_uuid)
		return put_data(to, uuid, UUID_LEN);
	return put_data(to, key->event_id.data, key->event_id.length);
}

static char *
put_types(char *to, SessionRun *run)
{
	session_run_sum_types(run);
	/* In order already if they are many. */
	for (int i = 1; i < run->ntypes; i++)
	{
		TypeCount type = run->types[i];
		int j = i;

		for (; j > 0 && bytes_compare(run->types[j - 1].type, type.type) > 0; j--)
			run->types[j] = run->types[j - 1];
		run->types[j] = type;
	}

	to = put_number(to, run->ntypes);
	for (int i = 0; i < run->ntypes; i++)
	{
		const TypeCount *type = &run->types[i];

		if (bytes_equal(type->type, run->entry_type))
			to = put_number(to, NAME_ENTRY_TYPE);
		else if (bytes_equal(type->type, run->exit_type))
			to = put_number(to, NAME_EXIT_TYPE);
		else
		{
			to = put_number(to, (uint64) type->type.length + NAME_LENGTH);
			to = put_data(to, type->type.data, type->type.length);
		}
		to = put_number(to, type->count);
	}
	return to;
}

/* The most that session_pack() may take. */
Size
session_pack_bound(const SessionRun *run)
{
	Size size = NUMBER_BYTES + 1 + 6 * 3 * NUMBER_BYTES + run->first.event_id.length +
				run->last.event_id.length + run->entry_page_key.event_id.length +
				run->exit_page_key.event_id.length + run->properties_key.event_id.length +
				run->user_key.event_id.length;

	for (int i = 0; i < run->ntypes; i++)
		size += 2 * NUMBER_BYTES + run->types[i].type.length;
	return size;
}

/* Packs what it takes to merge a run; returns the end. */
char *
session_pack(char *to, SessionRun *run)
{
	const struct
	{
		bool has_value;
		const OrderKey *key;
		const OrderKey *fallback;
	} keys[OPTIONAL_KEYS] = {
		{run->entry_page.data != NULL, &run->entry_page_key, &run->first},
		{run->properties != NULL, &run->properties_key, &run->first},
		{run->exit_page.data != NULL, &run->exit_page_key, &run->last},
		{run->user_id.data != NULL, &run->user_key, &run->last},
	};
	char *flags;

	to = put_types(to, run);
	flags = to++;
	*flags = 0;
	to = put_key(to, &run->first);
	if (order_key_compare(&run->first, &run->last) != 0)
	{
		*flags |= LAST_KEY;
		to = put_key(to, &run->last);
	}
	for (int i = 0; i < OPTIONAL_KEYS; i++)
	{
		const OrderKey *key = keys[i].key;

		if (!keys[i].has_value || order_key_compare(key, keys[i].fallback) == 0)
			continue;
		*flags |= 1 << i;
		/* Unsigned, so that it is right also where it overflows. */
		to = put_number(to, i < FIRST_KEYS ? (uint64) key->at - (uint64) run->first.at
										   : (uint64) run->last.at - (uint64) key->at);
		to = put_key(to, key);
	}
	return to;
}

pg_noreturn static void
corrupted(void)
{
	ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
					errmsg("what it takes to merge a session cannot be read")));
}

static inline uint64
get_number(Unpacker *unpacker)
{
	uint64 number = 0;

	for (int shift = 0; shift < 64; shift += 7)
	{
		uint8 byte;

		if (unpacker->at == unpacker->end)
			break;
		byte = (uint8) *unpacker->at++;
		number |= (uint64) (byte & 0x7f) << shift;
		if (byte < 0x80)
			return number;
	}
	corrupted();
}

static inline Bytes
get_data(Unpacker *unpacker, uint64 length)
{
	Bytes bytes;

	if (length > (uint64) (unpacker->end - unpacker->at))
		corrupted();
	bytes.data = unpacker->at;
	bytes.length = (int) length;
	unpacker->at += length;
	return bytes;
}

/* How many types there are; each takes two bytes or more. */
static int
get_type_number(Unpacker *unpacker)
{
	uint64 number = get_number(unpacker);

	if (number > (uint64) (unpacker->end - unpacker->at) / 2)
		corrupted();
	return (int) number;
}

/* A type; *literal: its name stands in the packed value. */
static TypeCount
get_type(Unpacker *unpacker, Bytes entry_type, Bytes exit_type, bool *literal)
{
	uint64 name = get_number(unpacker);
	TypeCount type;

	*literal = name >= NAME_LENGTH;
	if (name == NAME_ENTRY_TYPE)
		type.type = entry_type;
	else if (name == NAME_EXIT_TYPE)
		type.type = exit_type;
	else
		type.type = get_data(unpacker, name - NAME_LENGTH);
	type.count = (int64) get_number(unpacker);
	return type;
}

static void
get_key(Unpacker *unpacker, OrderKey *key, TimestampTz at)
{
	uint64 form = get_number(unpacker);

	key->at = at;
	key->has_sequence = (form & 1) != 0;
	key->sequence = 0;
	if (key->has_sequence)
	{
		uint64 folded = get_number(unpacker);

		key->sequence = (int64) (folded >> 1 ^ (0 - (folded & 1)));
	}
	if (form >> 1 != 0)
	{
		key->event_id = get_data(unpacker, (form >> 1) - 1);
		return;
	}
	if (unpacker->ids == NULL)
		unpacker->ids = palloc(6 * UUID_TEXT_LEN);
	uuid_to_text((const uint8 *) get_data(unpacker, UUID_LEN).data, unpacker->ids);
	key->event_id.data = unpacker->ids;
	key->event_id.length = UUID_TEXT_LEN;
	unpacker->ids += UUID_TEXT_LEN;
}

/*
 * Completes a run that has what other columns say: times of its first and last event, entry and
 * exit type.  It points into the packed value and into the current context.
 */
void
session_unpack(SessionRun *run, Bytes packed)
{
	OrderKey *const keys[OPTIONAL_KEYS] = {&run->entry_page_key, &run->properties_key,
										   &run->exit_page_key, &run->user_key};
	Unpacker unpacker = {packed.data, packed.data + packed.length, NULL};
	int flags;

	run->ntypes = get_type_number(&unpacker);
	run->max_types = run->ntypes + 1;
	run->types = palloc_extended(sizeof(TypeCount) * run->max_types, MCXT_ALLOC_HUGE);
	for (int i = 0; i < run->ntypes; i++)
	{
		bool literal;

		run->types[i] = get_type(&unpacker, run->entry_type, run->exit_type, &literal);
	}

	flags = *get_data(&unpacker, 1).data;
	get_key(&unpacker, &run->first, run->first.at);
	if (flags & LAST_KEY)
		get_key(&unpacker, &run->last, run->last.at);
	else
		run->last = run->first;
	for (int i = 0; i < OPTIONAL_KEYS; i++)
	{
		uint64 distance;

		*keys[i] = i < FIRST_KEYS ? run->first : run->last;
		if ((flags & 1 << i) == 0)
			continue;
		distance = get_number(&unpacker);
		get_key(&unpacker, keys[i],
				(TimestampTz) (i < FIRST_KEYS ? (uint64) run->first.at + distance
											  : (uint64) run->last.at - distance));
	}
	if (unpacker.at != unpacker.end)
		corrupted();
}

static Bytes
bytes_argument(void *value)
{
	Bytes bytes = {VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)};

	return bytes;
}

/*
 * behavior._session_type_counts(merge bytea, entry_type text, exit_type text) returns jsonb
 *
 * Anybody may call it with anything, so nothing is believed.
 */
Datum
behavior_session_type_counts(PG_FUNCTION_ARGS)
{
	Bytes packed = bytes_argument(PG_GETARG_BYTEA_PP(0));
	Bytes entry_type = bytes_argument(PG_GETARG_TEXT_PP(1));
	Bytes exit_type = bytes_argument(PG_GETARG_TEXT_PP(2));
	Unpacker unpacker = {packed.data, packed.data + packed.length, NULL};
	int number = get_type_number(&unpacker);
	JsonNode *nodes = palloc0(sizeof(JsonNode) * Max(number, 1));
	JsonNode **members = palloc(sizeof(JsonNode *) * Max(number, 1));
	char *digits = palloc((Size) COUNT_DIGITS * Max(number, 1));
	Jsonb *counts;

	for (int i = 0; i < number; i++)
	{
		bool literal;
		TypeCount type = get_type(&unpacker, entry_type, exit_type, &literal);

		if (type.count < 0)
			corrupted();
		if (literal)
			(void) pg_verify_mbstr(PG_UTF8, type.type.data, type.type.length, false);
		nodes[i].kind = JSON_NUMBER;
		nodes[i].text = digits;
		nodes[i].length = nodes[i].end = pg_ulltoa_n((uint64) type.count, digits);
		nodes[i].key = type.type.data;
		nodes[i].key_length = type.type.length;
		members[i] = &nodes[i];
		digits += COUNT_DIGITS;
	}
	counts = json_members_to_jsonb(members, number);
	if (counts == NULL)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("the types of a session are too many for jsonb")));
	PG_RETURN_JSONB_P(counts);
}

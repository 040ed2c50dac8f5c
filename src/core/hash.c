/*
 * hash.c
 *		SipHash-2-4 with 64 and 128 bits of output, fed in pieces.
 *
 * Own source after the paper; the 128-bit variant is that of the authors'
 * reference implementation.  Everything is little endian by definition, so a
 * key is the same on every machine.
 */
#include "postgres.h"

#include "fmgr.h"
#include "port/pg_bswap.h"

#include "core/compat.h"
#include "core/hash.h"

#define SIP_SEED_BYTES 16

PG_FUNCTION_INFO_V1(behavior__siphash);

#define ROTL64(x, b) (((x) << (b)) | ((x) >> (64 - (b))))

#define SIP_ROUND(v0, v1, v2, v3)                                                                  \
	do                                                                                             \
	{                                                                                              \
		v0 += v1;                                                                                  \
		v1 = ROTL64(v1, 13);                                                                       \
		v1 ^= v0;                                                                                  \
		v0 = ROTL64(v0, 32);                                                                       \
		v2 += v3;                                                                                  \
		v3 = ROTL64(v3, 16);                                                                       \
		v3 ^= v2;                                                                                  \
		v0 += v3;                                                                                  \
		v3 = ROTL64(v3, 21);                                                                       \
		v3 ^= v0;                                                                                  \
		v2 += v1;                                                                                  \
		v1 = ROTL64(v1, 17);                                                                       \
		v1 ^= v2;                                                                                  \
		v2 = ROTL64(v2, 32);                                                                       \
	} while (0)

static inline uint64
load_le64(const uint8 *bytes)
{
	uint64 word;

	memcpy(&word, bytes, sizeof(word));
#ifdef WORDS_BIGENDIAN
	word = pg_bswap64(word);
#endif
	return word;
}

static inline void
store_le64(uint8 *bytes, uint64 word)
{
#ifdef WORDS_BIGENDIAN
	word = pg_bswap64(word);
#endif
	memcpy(bytes, &word, sizeof(word));
}

/* Starts a hash under a seed of 16 bytes. */
void
sip_init(SipState *state, const uint8 *seed, bool wide)
{
	uint64 k0 = load_le64(seed);
	uint64 k1 = load_le64(seed + 8);

	state->v0 = k0 ^ UINT64CONST(0x736f6d6570736575);
	state->v1 = k1 ^ UINT64CONST(0x646f72616e646f6d);
	state->v2 = k0 ^ UINT64CONST(0x6c7967656e657261);
	state->v3 = k1 ^ UINT64CONST(0x7465646279746573);
	if (wide)
		state->v1 ^= 0xee;
	state->tail = 0;
	state->length = 0;
	state->wide = wide;
}

/* Takes more bytes; how they are cut into calls makes no difference. */
void
sip_update(SipState *state, const void *data, size_t length)
{
	const uint8 *bytes = data;
	int held = (int) (state->length & 7);
	uint64 v0 = state->v0;
	uint64 v1 = state->v1;
	uint64 v2 = state->v2;
	uint64 v3 = state->v3;
	uint64 tail = state->tail;

	state->length += length;

	if (held > 0)
	{
		while (held < 8 && length > 0)
		{
			tail |= (uint64) *bytes++ << (8 * held++);
			length--;
		}
		if (held < 8)
		{
			state->tail = tail;
			return;
		}
		v3 ^= tail;
		SIP_ROUND(v0, v1, v2, v3);
		SIP_ROUND(v0, v1, v2, v3);
		v0 ^= tail;
	}

	while (length >= 8)
	{
		uint64 word = load_le64(bytes);

		v3 ^= word;
		SIP_ROUND(v0, v1, v2, v3);
		SIP_ROUND(v0, v1, v2, v3);
		v0 ^= word;
		bytes += 8;
		length -= 8;
	}

	tail = 0;
	for (size_t i = 0; i < length; i++)
		tail |= (uint64) bytes[i] << (8 * i);

	state->v0 = v0;
	state->v1 = v1;
	state->v2 = v2;
	state->v3 = v3;
	state->tail = tail;
}

/* Takes the last word (tail and length), and makes the first half of the output. */
static uint64
sip_finish(SipState *state)
{
	uint64 last = state->tail | (state->length << 56);

	state->v3 ^= last;
	SIP_ROUND(state->v0, state->v1, state->v2, state->v3);
	SIP_ROUND(state->v0, state->v1, state->v2, state->v3);
	state->v0 ^= last;

	state->v2 ^= state->wide ? 0xee : 0xff;
	for (int i = 0; i < 4; i++)
		SIP_ROUND(state->v0, state->v1, state->v2, state->v3);
	return state->v0 ^ state->v1 ^ state->v2 ^ state->v3;
}

/* The 64-bit hash of all that was taken.  The state must not be used again. */
uint64
sip_final64(SipState *state)
{
	Assert(!state->wide);
	return sip_finish(state);
}

/* The 128-bit hash of all that was taken, 16 bytes.  The state must not be used again. */
void
sip_final128(SipState *state, uint8 *digest)
{
	Assert(state->wide);
	store_le64(digest, sip_finish(state));
	state->v1 ^= 0xdd;
	for (int i = 0; i < 4; i++)
		SIP_ROUND(state->v0, state->v1, state->v2, state->v3);
	store_le64(digest + 8, state->v0 ^ state->v1 ^ state->v2 ^ state->v3);
}

/*
 * behavior._siphash(data bytea, seed bytea, wide boolean): the hash as the bytes that the
 * published vectors give; the tests' way to this file.  Feeds the data in uneven
 * pieces, so that the vectors check those too.
 */
Datum
behavior__siphash(PG_FUNCTION_ARGS)
{
	bytea *data = PG_GETARG_BYTEA_PP(0);
	bytea *seed = PG_GETARG_BYTEA_PP(1);
	bool wide = PG_GETARG_BOOL(2);
	int digest_bytes = wide ? 16 : 8;
	const uint8 *bytes = (const uint8 *) VARDATA_ANY(data);
	size_t left = VARSIZE_ANY_EXHDR(data);
	bytea *result;
	SipState state;

	if (VARSIZE_ANY_EXHDR(seed) != SIP_SEED_BYTES)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("seed must be 16 bytes"),
						errdetail("It has %d.", (int) VARSIZE_ANY_EXHDR(seed))));

	sip_init(&state, (const uint8 *) VARDATA_ANY(seed), wide);
	for (size_t piece = 1; left > 0; piece = piece % 19 + 4)
	{
		size_t take = Min(piece, left);

		sip_update(&state, bytes, take);
		bytes += take;
		left -= take;
	}

	result = palloc(VARHDRSZ + digest_bytes);
	SET_VARSIZE(result, VARHDRSZ + digest_bytes);
	if (wide)
		sip_final128(&state, (uint8 *) VARDATA(result));
	else
		store_le64((uint8 *) VARDATA(result), sip_final64(&state));
	PG_RETURN_BYTEA_P(result);
}

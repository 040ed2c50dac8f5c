/*
 * hash.h
 *		SipHash-2-4 with 64 and 128 bits of output.
 *
 * Follows Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012), and
 * the authors' 128-bit variant.  Checked against the published vectors.
 */
#ifndef BEHAVIOR_HASH_H
#define BEHAVIOR_HASH_H

typedef struct SipState
{
	uint64 v0, v1, v2, v3;
	uint64 tail;   /* bytes not yet compressed, little endian */
	uint64 length; /* bytes taken so far */
	bool wide;	   /* 128 bits of output */
} SipState;

extern void sip_init(SipState *state, const uint8 *seed, bool wide);
extern void sip_update(SipState *state, const void *data, size_t length);
extern uint64 sip_final64(SipState *state);
extern void sip_final128(SipState *state, uint8 *digest); /* 16 bytes */

#endif

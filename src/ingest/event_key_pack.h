/*
 * event_key_pack.h
 *		Merges generations of keys into one packed one.
 */
#ifndef BEHAVIOR_EVENT_KEY_PACK_H
#define BEHAVIOR_EVENT_KEY_PACK_H

#include "ingest/key_generation.h"

/*
 * Writes all keys of the inputs, sealed or packed, into new tables of result->generation,
 * and sets result->keys and ->filter_blocks.  Makes no table when there is no
 * key.  The list stays as it is.  The caller sees to it that no open
 * transaction has keys in the inputs and that nobody drops them.
 *
 * Time n log n in the keys of sealed inputs and linear in the packed ones.  Memory:
 * maintenance_work_mem.
 */
extern void key_pack(const KeyGeneration *inputs, int count, KeyGeneration *result);

#endif

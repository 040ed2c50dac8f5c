/*
 * key_hash_index.h
 *		A short look into a hot generation's index before it is scanned.
 */
#ifndef BEHAVIOR_KEY_HASH_INDEX_H
#define BEHAVIOR_KEY_HASH_INDEX_H

#include "utils/relcache.h"

/* False: the key is not in the index.  True: a scan may find it. */
extern bool key_hash_index_may_hold(Relation index, const uint8 *key);

#endif

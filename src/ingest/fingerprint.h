/*
 * fingerprint.h
 *		64 bits of an event's payload: what tells a conflict from a duplicate.
 */
#ifndef BEHAVIOR_FINGERPRINT_H
#define BEHAVIOR_FINGERPRINT_H

#include "ingest/frame.h"

/*
 * Of type, user_id, anonymous_id, sequence, properties (NULL: the empty object) and, when the
 * sender gave one, occurred_at.  Equal for equal values whatever the door; jsonb by jsonb
 * equality.  '' and NULL are the same user_id and anonymous_id.
 */
extern int64 event_fingerprint(const Event *event);

#endif

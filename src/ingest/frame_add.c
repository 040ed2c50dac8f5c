/*
 * frame_add.c
 *		Takes one event into a frame: defaults, checks, a packed copy.
 *
 * An event that passes lies in the frame's arena as its row of behavior.log (frame_row.c).  One
 * that does not pass becomes a dead letter at once (frame_refuse.c).
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "core/guc.h"
#include "gate/event_type.h"
#include "ingest/fingerprint.h"
#include "ingest/frame_internal.h"

#define FIRST_CHUNK		2048 /* a single-row statement fits the context's first block */
#define LARGEST_CHUNK	(512 * 1024)
#define FIRST_PENDING	8
#define INDEXED_SOURCES 16 /* from here on sources are looked up by hash */
#define UUID_TEXT		36
#define UUID_BYTES		16
#define UUIDS_BUFFERED	64
#define SHOWN			60 /* bytes of a value in a message */

typedef struct Problem
{
	Reason reason;
	char message[256];
} Problem;

typedef struct SourceEntry
{
	char source[EVENT_TEXT_MAX + 1]; /* hash key, zero padded */
	int index;
} SourceEntry;

/* Memory until the next flush. */
void *
frame_alloc(Frame *frame, size_t size)
{
	ArenaChunk *chunk = frame->arena;
	void *result;

	size = MAXALIGN(size);
	if (chunk == NULL || chunk->size - chunk->used < size)
	{
		size_t usable = chunk == NULL ? FIRST_CHUNK : Min(chunk->size * 4, LARGEST_CHUNK);

		usable = Max(usable, size);
		if (frame->spare != NULL && usable <= LARGEST_CHUNK)
		{
			chunk = frame->spare;
			frame->spare = chunk->next;
		}
		else
		{
			chunk = MemoryContextAllocHuge(frame->context, MAXALIGN(sizeof(ArenaChunk)) + usable);
			chunk->size = usable;
		}
		chunk->next = frame->arena;
		chunk->used = 0;
		frame->arena = chunk;
	}
	result = (char *) chunk + MAXALIGN(sizeof(ArenaChunk)) + chunk->used;
	chunk->used += size;
	return result;
}

/* Takes back what lies behind "end" of the piece that was given out last. */
void
frame_give_back(Frame *frame, const char *end)
{
	ArenaChunk *chunk = frame->arena;

	chunk->used = MAXALIGN(end - ((char *) chunk + MAXALIGN(sizeof(ArenaChunk))));
}

/*
 * Takes all of it back.  Chunks of the largest usual size are kept for what comes next: freed,
 * they went back to the system, and each flush paid 600 page faults to have them again.
 */
void
frame_reset_arena(Frame *frame)
{
	ArenaChunk *chunk = frame->arena;

	frame->arena = NULL;
	while (chunk != NULL)
	{
		ArenaChunk *next = chunk->next;

		chunk->used = 0;
		if (chunk->size == LARGEST_CHUNK)
		{
			chunk->next = frame->spare;
			frame->spare = chunk;
		}
		else
			pfree(chunk);
		chunk = next;
	}
}

/* A random (version 4) UUID as text; the random bytes are fetched many at a time. */
static void
random_id(char *text)
{
	static uint8 buffer[UUIDS_BUFFERED * UUID_BYTES];
	static int left = 0;
	static const char hex[] = "0123456789abcdef";
	uint8 *bytes;

	if (left == 0)
	{
		if (!pg_strong_random(buffer, sizeof(buffer)))
			ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
							errmsg("could not generate random event ids")));
		left = UUIDS_BUFFERED;
	}
	bytes = buffer + --left * UUID_BYTES;
	bytes[6] = (bytes[6] & 0x0f) | 0x40;
	bytes[8] = (bytes[8] & 0x3f) | 0x80;
	for (int i = 0; i < UUID_BYTES; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*text++ = '-';
		*text++ = hex[bytes[i] >> 4];
		*text++ = hex[bytes[i] & 15];
	}
}

static int
add_source(Frame *frame, const TextField *source)
{
	SourceCounts *entry;
	char *copy;

	if (frame->nsources == frame->max_sources)
	{
		frame->max_sources = Max(4, frame->max_sources * 2);
		if (frame->sources == NULL)
			frame->sources =
				MemoryContextAlloc(frame->context, frame->max_sources * sizeof(SourceCounts));
		else
			frame->sources =
				repalloc_huge(frame->sources, frame->max_sources * sizeof(SourceCounts));
	}
	copy = MemoryContextAlloc(frame->context, source->length);
	memcpy(copy, source->data, source->length);
	entry = &frame->sources[frame->nsources];
	memset(entry, 0, sizeof(*entry));
	entry->source.data = copy;
	entry->source.length = source->length;
	return frame->nsources++;
}

static void
index_source(Frame *frame, int index)
{
	const TextField *source = &frame->sources[index].source;
	char key[EVENT_TEXT_MAX + 1] = {0};
	SourceEntry *entry;
	bool found;

	memcpy(key, source->data, source->length);
	entry = hash_search(frame->source_index, key, HASH_ENTER, &found);
	entry->index = index;
}

/* The place of a source (at most EVENT_TEXT_MAX bytes) among the frame's. */
static int
find_source(Frame *frame, const TextField *source)
{
	int index;

	if (frame->nsources > 0)
	{
		const TextField *last = &frame->sources[frame->last_source].source;

		if (last->length == source->length && memcmp(last->data, source->data, last->length) == 0)
			return frame->last_source;
	}

	if (frame->source_index != NULL)
	{
		char key[EVENT_TEXT_MAX + 1] = {0};
		SourceEntry *entry;

		memcpy(key, source->data, source->length);
		entry = hash_search(frame->source_index, key, HASH_FIND, NULL);
		if (entry != NULL)
			return frame->last_source = entry->index;
	}
	else
	{
		for (int i = 0; i < frame->nsources; i++)
		{
			const TextField *other = &frame->sources[i].source;

			if (other->length == source->length &&
				memcmp(other->data, source->data, source->length) == 0)
				return frame->last_source = i;
		}
	}

	index = add_source(frame, source);
	if (frame->source_index != NULL)
		index_source(frame, index);
	else if (frame->nsources > INDEXED_SOURCES)
	{
		HASHCTL ctl = {0};

		ctl.keysize = EVENT_TEXT_MAX + 1;
		ctl.entrysize = sizeof(SourceEntry);
		ctl.hcxt = frame->context;
		frame->source_index = hash_create("behavior sources of a frame", 256, &ctl,
										  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		for (int i = 0; i < frame->nsources; i++)
			index_source(frame, i);
	}
	return frame->last_source = index;
}

/* Counts one more row that was sent, of this source or, where it is unusable, of the default one.
 */
static int
count_received(Frame *frame, const Event *event, TimestampTz now)
{
	TextField counted = event->source;
	int index;

	if (event->origin != NULL && counted.length == 0)
		counted = event->origin->source;
	if (counted.data == NULL || counted.length == 0 || counted.length > EVENT_TEXT_MAX)
	{
		counted.data = behavior_default_source;
		counted.length = strlen(behavior_default_source);
	}
	index = find_source(frame, &counted);
	if (frame->counts.received++ == 0)
		frame->received_at = now;
	frame->sources[index].counts.received++;
	return index;
}

/* A new receipt, or -1 when none are kept. */
static int
add_receipt(Frame *frame, const TextField *event_id)
{
	Receipt *receipt;

	if (frame->receipts_context == NULL)
		return -1;
	if (frame->nreceipts == frame->max_receipts)
	{
		frame->max_receipts = Max(16, frame->max_receipts * 2);
		if (frame->receipts == NULL)
			frame->receipts =
				MemoryContextAlloc(frame->receipts_context, frame->max_receipts * sizeof(Receipt));
		else
			frame->receipts = repalloc_huge(frame->receipts, frame->max_receipts * sizeof(Receipt));
	}
	receipt = &frame->receipts[frame->nreceipts];
	memset(receipt, 0, sizeof(*receipt));
	if (event_id->data != NULL)
	{
		int length = pg_mbcliplen(event_id->data, event_id->length, EVENT_TEXT_MAX);

		receipt->event_id = MemoryContextAlloc(frame->receipts_context, length + 1);
		memcpy(receipt->event_id, event_id->data, length);
		receipt->event_id[length] = '\0';
	}
	return frame->nreceipts++;
}

static bool
text_too_long(const char *column, const TextField *field, Problem *problem)
{
	if (field->length <= EVENT_TEXT_MAX)
		return false;
	problem->reason = REASON_TOO_LARGE;
	snprintf(problem->message, sizeof(problem->message), "%s \"%.*s...\" has %d bytes", column,
			 pg_mbcliplen(field->data, field->length, SHOWN), field->data, field->length);
	return true;
}

static bool
not_an_object(const char *column, const Jsonb *jsonb, Problem *problem)
{
	if (jsonb == NULL || JB_ROOT_IS_OBJECT(jsonb))
		return false;
	problem->reason = REASON_NOT_AN_OBJECT;
	snprintf(problem->message, sizeof(problem->message), "%s is not a JSON object but %s", column,
			 JB_ROOT_IS_SCALAR(jsonb) ? "a single value" : "an array");
	return true;
}

static bool
time_refused(const Event *event, TimestampTz now, Problem *problem)
{
	const char *what;

	if (!event->has_occurred_at)
		return false;
	if (TIMESTAMP_NOT_FINITE(event->occurred_at))
	{
		problem->reason = REASON_INVALID_TIMESTAMP;
		what = "is not a time";
	}
	else if (behavior_max_future >= 0 &&
			 event->occurred_at > now + behavior_max_future * USECS_PER_SEC)
	{
		problem->reason = REASON_IN_FUTURE;
		what = "is too far in the future";
	}
	else if (behavior_max_past >= 0 && event->occurred_at < now - behavior_max_past * USECS_PER_SEC)
	{
		problem->reason = REASON_TOO_OLD;
		what = "is too long ago";
	}
	else
		return false;
	snprintf(problem->message, sizeof(problem->message), "occurred_at %s %s",
			 timestamptz_to_str(event->occurred_at), what);
	return true;
}

/* Whether anything is wrong with the event; the first thing found, in the order of the columns. */
static bool
event_refused(const Event *event, TimestampTz now, Problem *problem)
{
	int64 size;

	if (frame_hops > behavior_max_hops)
	{
		problem->reason = REASON_LOOP;
		snprintf(
			problem->message, sizeof(problem->message),
			"%d handlers one after another led to this event, more than behavior.max_hops (%d)",
			frame_hops, behavior_max_hops);
		return true;
	}
	if (event->event_id.data != NULL && event->event_id.length == 0)
	{
		problem->reason = REASON_MISSING_FIELD;
		strlcpy(problem->message, "event_id is empty", sizeof(problem->message));
		return true;
	}
	if (text_too_long("event_id", &event->event_id, problem) ||
		text_too_long("source", &event->source, problem))
		return true;
	if (event->type.data == NULL || event->type.length == 0)
	{
		problem->reason = REASON_MISSING_FIELD;
		strlcpy(problem->message, event->type.data == NULL ? "type is missing" : "type is empty",
				sizeof(problem->message));
		return true;
	}
	if (text_too_long("type", &event->type, problem) ||
		text_too_long("user_id", &event->user_id, problem) ||
		text_too_long("anonymous_id", &event->anonymous_id, problem) ||
		time_refused(event, now, problem) ||
		not_an_object("properties", event->properties, problem) ||
		not_an_object("context", event->context, problem))
		return true;

	size = (int64) event->event_id.length + event->source.length + event->type.length +
		   event->user_id.length + event->anonymous_id.length +
		   (event->properties ? VARSIZE(event->properties) : 0) +
		   (event->context ? VARSIZE(event->context) : 0);
	if (size > behavior_max_event_size)
	{
		problem->reason = REASON_TOO_LARGE;
		snprintf(problem->message, sizeof(problem->message),
				 "the event has %lld bytes, more than behavior.max_event_size (%d)",
				 (long long) size, behavior_max_event_size);
		return true;
	}
	return false;
}

/*
 * Refuses an event that its declared type does not take; false: it takes it, or nothing is
 * declared.
 */
static bool
type_refused(Frame *frame, const Event *event, int source)
{
	const TextField *name = &frame->sources[source].source;
	MemoryContext old = MemoryContextSwitchTo(frame_scratch(frame));
	EventTypeVerdict verdict;
	bool accepted = event_type_accepts(name->data, name->length, event->type.data,
									   event->type.length, event->properties, &verdict);

	MemoryContextSwitchTo(old);
	if (accepted)
		return false;
	frame_refuse(frame, verdict.reason, verdict.message, verdict.errors, event, source,
				 add_receipt(frame, &event->event_id));
	MemoryContextReset(frame->scratch);
	return true;
}

/* What else came with an event, copied behind it; neighbours mostly share it. */
static TextField
keep_sent_with(Frame *frame, const TextField *sent_with)
{
	if (frame->sent_with.length != sent_with->length ||
		memcmp(frame->sent_with.data, sent_with->data, sent_with->length) != 0)
	{
		char *copy = frame_alloc(frame, sent_with->length);

		memcpy(copy, sent_with->data, sent_with->length);
		frame->sent_with.data = copy;
		frame->sent_with.length = sent_with->length;
		frame->pending_bytes += sent_with->length;
	}
	return frame->sent_with;
}

/* Room for one more event. */
static void
grow_pending(Frame *frame)
{
	int max = Min(Max(FIRST_PENDING, frame->max_pending * 8), FRAME_FLUSH_EVENTS);

	if (frame->rows == NULL)
	{
		frame->rows = MemoryContextAlloc(frame->context, max * sizeof(LogRow));
		frame->keys = MemoryContextAlloc(frame->context, max * sizeof(EventKey));
		frame->pending = MemoryContextAlloc(frame->context, max * sizeof(PendingEvent));
		frame->parts = MemoryContextAlloc(frame->context, max * sizeof(LogPartition));
	}
	else
	{
		frame->rows = repalloc(frame->rows, max * sizeof(LogRow));
		frame->keys = repalloc(frame->keys, max * sizeof(EventKey));
		frame->pending = repalloc(frame->pending, max * sizeof(PendingEvent));
		frame->parts = repalloc(frame->parts, max * sizeof(LogPartition));
	}
	frame->max_pending = max;
}

/* Copies a checked event behind those that wait for the flush. */
static LogRow *
append_event(Frame *frame, const Event *event, int source, TimestampTz now)
{
	PendingEvent *pending;
	EventKey *key;
	LogRow *row;
	TextField source_text = frame->sources[source].source;
	char id[UUID_TEXT];
	TextField event_id = event->event_id;
	size_t payload = event->payload.data != NULL ? event->payload.length : 0;

	if (frame->npending == frame->max_pending)
		grow_pending(frame);
	row = &frame->rows[frame->npending];
	key = &frame->keys[frame->npending];
	pending = &frame->pending[frame->npending];

	if (event_id.data == NULL)
	{
		random_id(id);
		event_id.data = id;
		event_id.length = UUID_TEXT;
		frame->counts.generated_ids++;
		frame->sources[source].counts.generated_ids++;
	}

	frame_form_row(frame, event, &event_id, &source_text, now, row);
	event_key_hash(source_text.data, source_text.length, event_id.data, event_id.length, key->key);
	key->fingerprint = event_fingerprint(event);
	key->ordinal = frame->npending;

	pending->source = source;
	pending->given_source = event->source.data != NULL && event->source.length > 0;
	pending->given_occurred_at = event->has_occurred_at;
	pending->given_properties = event->properties != NULL;
	pending->payload.data = NULL;
	pending->payload.length = 0;
	if (event->payload.data != NULL)
	{
		char *copy = frame_alloc(frame, payload);

		memcpy(copy, event->payload.data, payload);
		pending->payload.data = copy;
		pending->payload.length = event->payload.length;
	}
	pending->sent_with =
		event->sent_with.data != NULL ? keep_sent_with(frame, &event->sent_with) : event->sent_with;
	pending->origin = event->origin;
	pending->receipt = add_receipt(frame, &event_id);

	frame->pending_bytes += payload + (event->properties ? VARSIZE(event->properties) : 0) +
							(event->context ? VARSIZE(event->context) : 0) + sizeof(LogRow);
	frame->npending++;
	return row;
}

const LogRow *
frame_add(Frame *frame, const Event *event, TextField *event_id, TimestampTz *received_at)
{
	TimestampTz now = GetCurrentTimestamp();
	Problem problem;
	int source;
	LogRow *row;

	/* Before the event and not behind it: the caller may use its row until the next one. */
	if (frame->npending >= FRAME_FLUSH_EVENTS || frame->pending_bytes >= FRAME_FLUSH_BYTES)
		frame_flush(frame);

	source = count_received(frame, event, now);
	if (received_at != NULL)
		*received_at = now;

	if (event_refused(event, now, &problem))
	{
		if (event_id != NULL)
			*event_id = event->event_id;
		frame_refuse(frame, problem.reason, problem.message, NULL, event, source,
					 add_receipt(frame, &event->event_id));
		return NULL;
	}
	if (event_type_gate() && type_refused(frame, event, source))
	{
		if (event_id != NULL)
			*event_id = event->event_id;
		return NULL;
	}

	row = append_event(frame, event, source, now);
	if (event_id != NULL)
	{
		event_id->data = VARDATA_ANY(DatumGetPointer(row->values[LOG_EVENT_ID - 1]));
		event_id->length = VARSIZE_ANY_EXHDR(DatumGetPointer(row->values[LOG_EVENT_ID - 1]));
	}
	return row;
}

void
frame_add_event(Frame *frame, const Event *event, TextField *event_id, TimestampTz *received_at)
{
	(void) frame_add(frame, event, event_id, received_at);
}

void
frame_add_invalid(Frame *frame, Reason reason, const char *detail, const Event *known)
{
	int source = count_received(frame, known, GetCurrentTimestamp());

	frame_refuse(frame, reason, detail, NULL, known, source, add_receipt(frame, &known->event_id));
}

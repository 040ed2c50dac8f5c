/*
 * session_chunk.c
 *		Events collected by visitor until they take CHUNK_BYTES or are CHUNK_EVENTS.
 *
 * Rows of the log are gone when the next one comes, so what matters of an event is copied, in
 * one piece, into memory that is taken in blocks and used again by the next chunk.  Of
 * types and sources, of which there are few, one copy serves many events.  Session properties are
 * copied only where they can count: not when an event before this one, in the same session, has
 * any.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "common/int.h"
#include "utils/memutils.h"

#include "core/compat.h"
#include "fold/session.h"

#define CHUNK_BYTES	 (128 * 1024 * 1024)
#define CHUNK_EVENTS 500000
#define BLOCK_BYTES	 (1024 * 1024)
#define CACHED_NAMES 256 /* a power of two */

/* Visitors with the same hash; sessions of different ones are told apart by their texts. */
typedef struct VisitorEntry
{
	int64 hash;
	ChunkVisitor *first;
	char status;
} VisitorEntry;

#define SH_PREFIX			 visitors
#define SH_ELEMENT_TYPE		 VisitorEntry
#define SH_KEY_TYPE			 int64
#define SH_KEY				 hash
#define SH_HASH_KEY(tb, key) ((uint32) (key) ^ (uint32) ((key) >> 32))
#define SH_EQUAL(tb, a, b)	 ((a) == (b))
#define SH_SCOPE			 static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* Ascending by hash: in the order of the index by which rows are found. */
#define ST_SORT			 sort_visitors
#define ST_ELEMENT_TYPE	 VisitorEntry
#define ST_COMPARE(a, b) ((a)->hash < (b)->hash ? -1 : (a)->hash > (b)->hash)
#define ST_SCOPE		 static
#define ST_DEFINE
#include "lib/sort_template.h"

struct SessionChunk
{
	SessionEventReader reader;
	visitors_hash *visitors;
	int nvisitors;
	int nevents;
	Bytes names[CACHED_NAMES];

	/* Memory: blocks up to "used" are full but for the rest of the last one. */
	MemoryContext context;
	MemoryContext large; /* what is too large for a block */
	int nblocks;
	int used;
	char *blocks[CHUNK_BYTES / BLOCK_BYTES];
	char *free;
	char *free_end;
};

/* Aligned memory that lasts until the chunk is reset. */
static void *
chunk_alloc(SessionChunk *chunk, Size size)
{
	void *result;

	size = MAXALIGN(size);
	if (size > (Size) (chunk->free_end - chunk->free))
	{
		if (size > BLOCK_BYTES / 8 || chunk->used == lengthof(chunk->blocks))
			return MemoryContextAllocHuge(chunk->large, size);
		if (chunk->used == chunk->nblocks)
			chunk->blocks[chunk->nblocks++] = MemoryContextAlloc(chunk->context, BLOCK_BYTES);
		chunk->free = chunk->blocks[chunk->used++];
		chunk->free_end = chunk->free + BLOCK_BYTES;
	}
	result = chunk->free;
	chunk->free += size;
	return result;
}

/* A chunk in the current context. */
SessionChunk *
session_chunk_create(const SessionSettings *settings)
{
	SessionChunk *chunk = palloc0(sizeof(SessionChunk));

	chunk->context = CurrentMemoryContext;
	chunk->large = AllocSetContextCreate(chunk->context, "behavior sessions: large values",
										 ALLOCSET_DEFAULT_SIZES);
	chunk->reader.settings = settings;
	chunk->reader.scratch =
		AllocSetContextCreate(chunk->context, "behavior sessions: event", ALLOCSET_DEFAULT_SIZES);
	chunk->visitors = visitors_create(chunk->context, 1024, NULL);
	return chunk;
}

void
session_chunk_reset(SessionChunk *chunk)
{
	visitors_reset(chunk->visitors);
	memset(chunk->names, 0, sizeof(chunk->names));
	MemoryContextReset(chunk->large);
	chunk->nvisitors = 0;
	chunk->nevents = 0;
	chunk->used = 0;
	chunk->free = chunk->free_end = NULL;
}

bool
session_chunk_empty(const SessionChunk *chunk)
{
	return chunk->nevents == 0;
}

bool
session_chunk_full(const SessionChunk *chunk)
{
	return chunk->nevents >= CHUNK_EVENTS || chunk->used == lengthof(chunk->blocks) ||
		   MemoryContextMemAllocated(chunk->large, false) > CHUNK_BYTES;
}

/* A copy that others of the same name share, if they meet it in the cache. */
static Bytes
share_name(SessionChunk *chunk, Bytes name)
{
	uint32 hash = hash_bytes((const unsigned char *) name.data, name.length);
	Bytes *cached = &chunk->names[hash & (CACHED_NAMES - 1)];

	if (cached->data == NULL || !bytes_equal(*cached, name))
	{
		cached->data = memcpy(chunk_alloc(chunk, name.length), name.data, name.length);
		cached->length = name.length;
	}
	return *cached;
}

static ChunkVisitor *
find_visitor(SessionChunk *chunk, SessionVisitor *visitor)
{
	VisitorEntry *entry;
	ChunkVisitor *found;
	bool known;

	visitor->hash = session_visitor_hash(visitor->source, visitor->visitor);
	entry = visitors_insert(chunk->visitors, visitor->hash, &known);
	if (!known)
		entry->first = NULL;
	for (found = entry->first; found != NULL; found = found->same_hash)
	{
		if (bytes_equal(found->visitor.visitor, visitor->visitor) &&
			bytes_equal(found->visitor.source, visitor->source))
			return found;
	}

	found = chunk_alloc(chunk, sizeof(ChunkVisitor) + visitor->visitor.length);
	memset(found, 0, sizeof(ChunkVisitor));
	found->visitor = *visitor;
	found->visitor.source = share_name(chunk, visitor->source);
	found->visitor.visitor.data = memcpy(found + 1, visitor->visitor.data, visitor->visitor.length);
	found->in_order = true;
	found->same_hash = entry->first;
	entry->first = found;
	chunk->nvisitors++;
	return found;
}

/* Appends the bytes at *to, and moves it. */
static void
copy_bytes(Bytes *bytes, char **to)
{
	if (bytes->data == NULL)
		return;
	bytes->data = memcpy(*to, bytes->data, bytes->length);
	*to += bytes->length;
}

/* An event in memory of the chunk's. */
static SessionEvent *
copy_event(SessionChunk *chunk, const SessionEvent *event)
{
	Size properties = event->properties == NULL ? 0 : MAXALIGN(VARSIZE(event->properties));
	SessionEvent *copy =
		chunk_alloc(chunk, sizeof(SessionEvent) + properties + event->key.event_id.length +
							   event->user_id.length + event->page.length);
	char *to = (char *) (copy + 1);

	*copy = *event;
	copy->type = share_name(chunk, event->type);
	if (properties > 0)
		copy->properties = memcpy(to, event->properties, VARSIZE(event->properties));
	to += properties;
	copy_bytes(&copy->key.event_id, &to);
	copy_bytes(&copy->user_id, &to);
	copy_bytes(&copy->page, &to);
	return copy;
}

/*
 * Notes where an event stands among those of its visitor.  As long as they come in order, one
 * that is no more than the timeout behind the last is in the same session, and its properties
 * count only when no other's do.
 */
static bool
properties_matter(const SessionChunk *chunk, ChunkVisitor *visitor, const OrderKey *key)
{
	int64 pause;

	if (visitor->nevents == 0)
		return true;
	if (key->at < visitor->last_at ||
		(key->at == visitor->last_at &&
		 order_key_compare(&visitor->events[visitor->nevents - 1]->key, key) >= 0))
	{
		visitor->in_order = false;
		visitor->has_properties = false;
	}
	else if (pg_sub_s64_overflow(key->at, visitor->last_at, &pause) ||
			 pause > chunk->reader.settings->timeout)
		visitor->has_properties = false;
	return !visitor->has_properties;
}

/* Collects a row of behavior.log, if it belongs to a session. */
void
session_chunk_add(SessionChunk *chunk, TupleTableSlot *slot)
{
	SessionEventReader *reader = &chunk->reader;
	ChunkVisitor *visitor;

	if (!session_event_read(reader, slot))
		return;
	visitor = find_visitor(chunk, &reader->visitor);
	if (properties_matter(chunk, visitor, &reader->event.key))
	{
		session_event_read_properties(reader);
		visitor->has_properties = reader->event.properties != NULL;
	}

	if (visitor->nevents == visitor->max_events)
	{
		int max = Max(4, visitor->max_events * 2);
		SessionEvent **events = chunk_alloc(chunk, sizeof(SessionEvent *) * max);

		if (visitor->nevents > 0)
			memcpy(events, visitor->events, sizeof(SessionEvent *) * visitor->nevents);
		visitor->events = events;
		visitor->max_events = max;
	}
	visitor->events[visitor->nevents++] = copy_event(chunk, &reader->event);
	visitor->last_at = reader->event.key.at;
	chunk->nevents++;
}

/* The visitors in the order of their hashes, in the current context. */
ChunkVisitor **
session_chunk_visitors(SessionChunk *chunk, int *count)
{
	VisitorEntry *entries =
		palloc_extended(sizeof(VisitorEntry) * (chunk->visitors->members + 1), MCXT_ALLOC_HUGE);
	ChunkVisitor **visitors =
		palloc_extended(sizeof(ChunkVisitor *) * (chunk->nvisitors + 1), MCXT_ALLOC_HUGE);
	visitors_iterator it;
	VisitorEntry *entry;
	int nentries = 0;

	visitors_start_iterate(chunk->visitors, &it);
	while ((entry = visitors_iterate(chunk->visitors, &it)) != NULL)
		entries[nentries++] = *entry;
	sort_visitors(entries, nentries);
	*count = 0;
	for (int i = 0; i < nentries; i++)
	{
		for (ChunkVisitor *visitor = entries[i].first; visitor != NULL;
			 visitor = visitor->same_hash)
			visitors[(*count)++] = visitor;
	}
	pfree(entries);
	return visitors;
}

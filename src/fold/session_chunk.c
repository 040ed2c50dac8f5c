/*
 * session_chunk.c
 *		Events collected by visitor, as runs, until these take CHUNK_BYTES.
 *
 * An event is added to its visitor's run as it comes, so what takes memory is runs, not events:
 * most events leave nothing behind but what a run knows of its last one.  One that no run of
 * the visitor's reaches begins another.  In whatever order events come, runs that touch are merged
 * when the chunk is; only a few are tried here.
 *
 * What a run points to lies in the rows, as long as these are kept ("lasting"); else it is
 * copied, and copies of what later events have replaced stay until the chunk is reset.
 * Names of types and sources, of which there are few, are copied once for many.
 *
 * A backend that folds keeps the memory of one chunk, up to KEPT_BYTES of it, for the next:
 * getting fresh memory from the system costs more than filling it.
 */
#include "postgres.h"

#include "common/int.h"
#include "utils/memutils.h"

#include "core/compat.h"
#include "fold/session.h"

#define CHUNK_BYTES	  (128 * 1024 * 1024)
#define KEPT_BYTES	  (16 * 1024 * 1024)
#define BLOCK_BYTES	  (1024 * 1024)
#define SCRATCH_BYTES (1024 * 1024) /* of detoasted values, before events are added */
#define CACHED_NAMES  256			/* a power of two */
#define RUNS_TRIED	  4				/* of a visitor, for an event */
#define HASHED_BYTES  256			/* of names that are hashed fast */
#define TABLE_SIZE	  1024
#define TABLE_TIMES	  64 /* a table so many times larger than needed is made anew */
#define CACHE_LINE	  64

/* What adding an event to the visitor's only run changes, more or less. */
#define PREFETCHED_BYTES (sizeof(ChunkVisitor) + 5 * CACHE_LINE)

/* Visitors with the same hash; they are told apart by their texts. */
typedef struct VisitorEntry
{
	ChunkVisitor *first;
	uint32 hash;
	char status;
} VisitorEntry;

#define SH_PREFIX			 visitors
#define SH_ELEMENT_TYPE		 VisitorEntry
#define SH_KEY_TYPE			 uint32
#define SH_KEY				 hash
#define SH_HASH_KEY(tb, key) (key)
#define SH_EQUAL(tb, a, b)	 ((a) == (b))
#define SH_SCOPE			 static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef struct HashedVisitor
{
	int64 hash;
	ChunkVisitor *visitor;
} HashedVisitor;

/* Ascending by hash: in the order of the index by which rows are found. */
#define ST_SORT			 sort_visitors
#define ST_ELEMENT_TYPE	 HashedVisitor
#define ST_COMPARE(a, b) ((a)->hash < (b)->hash ? -1 : (a)->hash > (b)->hash)
#define ST_SCOPE		 static
#define ST_DEFINE
#include "lib/sort_template.h"

/* An event on its way into a run. */
typedef struct Collected
{
	SessionEventReader reader;
	uint32 hash; /* of its visitor */
} Collected;

struct SessionChunk
{
	const SessionSettings *settings;
	MemoryContext scratch;
	Collected collected[CHUNK_EVENTS_AT_ONCE];
	Bytes lasting; /* where what the event points to need not be copied */
	visitors_hash *visitors;
	int nsorted;
	int max_sorted;
	HashedVisitor *sorted; /* once they are */
	Bytes names[CACHED_NAMES];

	/* Memory: blocks up to "used" are full but for the rest of the last one. */
	MemoryContext context;
	MemoryContext large; /* what is too large for a block, or grows */
	int nblocks;
	int used;
	char *blocks[CHUNK_BYTES / BLOCK_BYTES];
	char *free;
	char *free_end;
};

/* The one whose memory is used again; NULL: none, or in use. */
static SessionChunk *kept = NULL;

/* Aligned memory that lasts until the chunk is reset. */
static inline void *
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

static SessionChunk *
create_chunk(void)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "behavior sessions: events",
												  ALLOCSET_DEFAULT_SIZES);
	SessionChunk *chunk = MemoryContextAllocZero(context, sizeof(SessionChunk));

	chunk->context = context;
	chunk->large =
		AllocSetContextCreate(context, "behavior sessions: large values", ALLOCSET_DEFAULT_SIZES);
	chunk->scratch =
		AllocSetContextCreate(context, "behavior sessions: event", ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < CHUNK_EVENTS_AT_ONCE; i++)
		chunk->collected[i].reader.scratch = chunk->scratch;
	chunk->visitors = visitors_create(context, TABLE_SIZE, NULL);
	chunk->max_sorted = TABLE_SIZE;
	chunk->sorted = MemoryContextAlloc(context, sizeof(HashedVisitor) * chunk->max_sorted);
	return chunk;
}

/*
 * An empty chunk, below the current context: with that it goes when there is an error.
 */
SessionChunk *
session_chunk_begin(const SessionSettings *settings)
{
	SessionChunk *chunk = kept;

	if (chunk == NULL)
		chunk = create_chunk();
	else
		MemoryContextSetParent(chunk->context, CurrentMemoryContext);
	kept = NULL;
	chunk->settings = settings;
	for (int i = 0; i < CHUNK_EVENTS_AT_ONCE; i++)
		chunk->collected[i].reader.settings = settings;
	return chunk;
}

void
session_chunk_reset(SessionChunk *chunk)
{
	uint64 members = chunk->visitors->members;

	/* Emptying a table takes as long as it is large. */
	if (members > 0 && chunk->visitors->size / TABLE_TIMES > Max(members, TABLE_SIZE))
	{
		visitors_destroy(chunk->visitors);
		chunk->visitors = visitors_create(chunk->context, TABLE_SIZE, NULL);
	}
	else if (members > 0)
		visitors_reset(chunk->visitors);
	memset(chunk->names, 0, sizeof(chunk->names));
	MemoryContextReset(chunk->large);
	chunk->nsorted = 0;
	chunk->used = 0;
	chunk->free = chunk->free_end = NULL;
}

/* Gives a chunk back; what is in it is gone. */
void
session_chunk_end(SessionChunk *chunk)
{
	Size others =
		chunk->visitors->size * sizeof(VisitorEntry) + chunk->max_sorted * sizeof(HashedVisitor);

	if (kept != NULL || others > KEPT_BYTES)
	{
		MemoryContextDelete(chunk->context);
		return;
	}
	session_chunk_reset(chunk);
	MemoryContextReset(chunk->scratch);
	while (chunk->nblocks * (Size) BLOCK_BYTES > KEPT_BYTES - others)
		pfree(chunk->blocks[--chunk->nblocks]);
	MemoryContextSetParent(chunk->context, TopMemoryContext);
	kept = chunk;
}

bool
session_chunk_empty(const SessionChunk *chunk)
{
	return chunk->nsorted == 0;
}

bool
session_chunk_full(const SessionChunk *chunk)
{
	return chunk->used == lengthof(chunk->blocks) ||
		   MemoryContextMemAllocated(chunk->large, false) > CHUNK_BYTES;
}

/* A copy that others of the same name share, if they meet it in the cache. */
static inline Bytes
share_name(SessionChunk *chunk, Bytes name)
{
	uint32 slot = name.length;
	Bytes *cached;

	if (name.length > 0)
		slot = slot * 37 + (uint8) name.data[0] * 5 + (uint8) name.data[name.length - 1];
	cached = &chunk->names[slot & (CACHED_NAMES - 1)];
	if (cached->data == NULL || !bytes_equal(*cached, name))
	{
		cached->data = memcpy(chunk_alloc(chunk, name.length + 1), name.data, name.length);
		cached->length = name.length;
	}
	return *cached;
}

/*
 * Sums up words of a text, each times a random number (Lemire and Kaser, "Strongly universal
 * string hashing is fast", 2014).  Of its upper half nobody can say which texts share it who
 * does not know the numbers.
 */
static inline uint64
hash_words(uint64 sum, const uint64 *keys, Bytes bytes)
{
	const char *data = bytes.data;
	uint32 word;

	for (; bytes.length >= (int) sizeof(word); bytes.length -= sizeof(word))
	{
		memcpy(&word, data, sizeof(word));
		sum += *keys++ * word;
		data += sizeof(word);
	}
	word = 0;
	for (int i = 0; i < bytes.length; i++)
		word = word << 8 | (uint8) data[i];
	return sum + *keys * word;
}

/* What a visitor is found by in a chunk: cheaper than the hash that is stored. */
static uint32
quick_hash(const SessionVisitor *visitor)
{
	static uint64 keys[2 * (HASHED_BYTES / sizeof(uint32) + 1) + 2];
	static bool have_keys = false;
	const int half = HASHED_BYTES / sizeof(uint32) + 1;
	uint64 sum;

	if (visitor->source.length > HASHED_BYTES || visitor->visitor.length > HASHED_BYTES)
		return (uint32) session_visitor_hash(visitor->source, visitor->visitor);
	if (unlikely(!have_keys))
	{
		if (!pg_strong_random(keys, sizeof(keys)))
			ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
							errmsg("could not generate random numbers for hashing")));
		have_keys = true;
	}
	sum = keys[2 * half] +
		  keys[2 * half + 1] * (uint32) (visitor->source.length << 16 | visitor->visitor.length);
	sum = hash_words(sum, keys, visitor->source);
	return hash_words(sum, keys + half, visitor->visitor) >> 32;
}

static ChunkVisitor *
add_visitor(SessionChunk *chunk, const SessionVisitor *visitor)
{
	ChunkVisitor *added = chunk_alloc(chunk, sizeof(ChunkVisitor) + visitor->visitor.length);

	added->visitor.hash = session_visitor_hash(visitor->source, visitor->visitor);
	added->visitor.source = share_name(chunk, visitor->source);
	added->visitor.visitor.data = memcpy(added + 1, visitor->visitor.data, visitor->visitor.length);
	added->visitor.visitor.length = visitor->visitor.length;
	added->runs = NULL;
	if (chunk->nsorted == chunk->max_sorted)
	{
		chunk->max_sorted *= 2;
		chunk->sorted = repalloc_huge(chunk->sorted, sizeof(HashedVisitor) * chunk->max_sorted);
	}
	chunk->sorted[chunk->nsorted].hash = added->visitor.hash;
	chunk->sorted[chunk->nsorted++].visitor = added;
	return added;
}

static inline ChunkVisitor *
find_visitor(SessionChunk *chunk, const SessionVisitor *visitor, uint32 hash)
{
	VisitorEntry *entry;
	ChunkVisitor *found;
	bool known;

	entry = visitors_insert(chunk->visitors, hash, &known);
	if (!known)
		entry->first = NULL;
	for (found = entry->first; found != NULL; found = found->same_hash)
	{
		if (bytes_equal(found->visitor.visitor, visitor->visitor) &&
			bytes_equal(found->visitor.source, visitor->source))
			return found;
	}
	found = add_visitor(chunk, visitor);
	found->same_hash = entry->first;
	entry->first = found;
	return found;
}

/* How much memory bytes take that do not last. */
static inline Size
fleeting_size(const SessionChunk *chunk, Bytes bytes)
{
	uintptr_t at = (uintptr_t) bytes.data;
	uintptr_t lasting = (uintptr_t) chunk->lasting.data;

	return bytes.data == NULL || at - lasting < (uintptr_t) chunk->lasting.length
			   ? 0
			   : bytes.length + 1;
}

static void
copy_fleeting(const SessionChunk *chunk, Bytes *bytes, char **to)
{
	if (fleeting_size(chunk, *bytes) > 0)
	{
		bytes->data = memcpy(*to, bytes->data, bytes->length);
		*to += bytes->length;
	}
}

/* Makes an event's texts last until the chunk is reset, but for its properties. */
static inline void
keep_texts(SessionChunk *chunk, SessionEvent *event)
{
	Size size = fleeting_size(chunk, event->key.event_id) + fleeting_size(chunk, event->user_id) +
				fleeting_size(chunk, event->page);

	event->type = share_name(chunk, event->type);
	if (size > 0)
	{
		char *to = chunk_alloc(chunk, size);

		copy_fleeting(chunk, &event->key.event_id, &to);
		copy_fleeting(chunk, &event->user_id, &to);
		copy_fleeting(chunk, &event->page, &to);
	}
}

/* Reads session properties where they count: none of the run's are an earlier event's. */
static inline void
keep_properties(SessionChunk *chunk, SessionEventReader *reader, const SessionRun *run)
{
	SessionEvent *event = &reader->event;

	if (run != NULL && run->properties != NULL &&
		order_key_compare(&event->key, &run->properties_key) > 0)
		return;
	session_event_read_properties(reader);
	if (event->properties != NULL)
		event->properties = memcpy(chunk_alloc(chunk, VARSIZE(event->properties)),
								   event->properties, VARSIZE(event->properties));
}

/* Would an event at "at" be in one session with the run? */
static inline bool
reaches(const SessionRun *run, TimestampTz at, int64 timeout)
{
	int64 pause;

	if (at > run->last.at)
		return !pg_sub_s64_overflow(at, run->last.at, &pause) && pause <= timeout;
	if (at < run->first.at)
		return !pg_sub_s64_overflow(run->first.at, at, &pause) && pause <= timeout;
	return true;
}

static inline ChunkRun *
find_run(const SessionChunk *chunk, const ChunkVisitor *visitor, TimestampTz at)
{
	int64 timeout = chunk->settings->timeout;
	ChunkRun *run = visitor->runs;

	for (int i = 0; i < RUNS_TRIED && run != NULL; i++)
	{
		if (reaches(&run->run, at, timeout))
			return run;
		run = run->older;
	}
	return NULL;
}

/* Reads an event, and says which memory comes next; false when it belongs to no session. */
static inline bool
read_event(SessionChunk *chunk, Collected *collected, TupleTableSlot *slot)
{
	if (!session_event_read(&collected->reader, slot))
		return false;
	collected->hash = quick_hash(&collected->reader.visitor);
	prefetch_memory(&chunk->visitors->data[collected->hash & chunk->visitors->sizemask]);
	return true;
}

/* A guess: who is there first is most often the visitor. */
static inline void
prefetch_visitor(const SessionChunk *chunk, uint32 hash)
{
	const VisitorEntry *entry = &chunk->visitors->data[hash & chunk->visitors->sizemask];

	if (entry->hash == hash)
	{
		for (Size at = 0; at < PREFETCHED_BYTES; at += CACHE_LINE)
			prefetch_memory((const char *) entry->first + at);
	}
}

static inline void
add_event(SessionChunk *chunk, Collected *collected)
{
	SessionEvent *event = &collected->reader.event;
	ChunkVisitor *visitor = find_visitor(chunk, &collected->reader.visitor, collected->hash);
	ChunkRun *run = find_run(chunk, visitor, event->key.at);

	keep_texts(chunk, event);
	keep_properties(chunk, &collected->reader, run == NULL ? NULL : &run->run);
	if (run == NULL)
	{
		run = chunk_alloc(chunk, sizeof(ChunkRun));
		session_run_start(&run->run, event, run->types, CHUNK_RUN_TYPES);
		run->older = visitor->runs;
		visitor->runs = run;
	}
	else
		session_run_add(&run->run, event);
}

/* Where a row lies that is not the slot's own. */
static inline Bytes
row_bytes(TupleTableSlot *slot)
{
	Bytes bytes = {NULL, 0};

	if (TTS_IS_MINIMALTUPLE(slot) && !TTS_SHOULDFREE(slot))
	{
		MinimalTuple tuple = ((MinimalTupleTableSlot *) slot)->mintuple;

		bytes.data = (const char *) tuple;
		bytes.length = tuple->t_len;
	}
	return bytes;
}

/*
 * Collects rows of behavior.log, CHUNK_EVENTS_AT_ONCE at most, those that belong to a session. With
 * "lasting", rows that are not the slots' own stay where they are until the chunk is reset.
 *
 * Visitors lie wherever they came, so all events are read before the first is added.
 */
void
session_chunk_add(SessionChunk *chunk, TupleTableSlot *const *slots, int count, bool lasting)
{
	int i = 0;

	while (i < count)
	{
		int n = 0;
		MemoryContext old;

		MemoryContextReset(chunk->scratch);
		while (i < count && MemoryContextMemAllocated(chunk->scratch, false) < SCRATCH_BYTES)
		{
			if (read_event(chunk, &chunk->collected[n], slots[i++]))
				n++;
		}
		for (int j = 0; j < n; j++)
			prefetch_visitor(chunk, chunk->collected[j].hash);
		old = MemoryContextSwitchTo(chunk->large);
		for (int j = 0; j < n; j++)
		{
			if (lasting)
				chunk->lasting = row_bytes(chunk->collected[j].reader.slot);
			add_event(chunk, &chunk->collected[j]);
		}
		chunk->lasting.length = 0;
		MemoryContextSwitchTo(old);
	}
}

/* Puts the visitors in the order of their hashes, and counts them. */
int
session_chunk_sort(SessionChunk *chunk)
{
	sort_visitors(chunk->sorted, chunk->nsorted);
	return chunk->nsorted;
}

ChunkVisitor *
session_chunk_visitor(const SessionChunk *chunk, int i)
{
	return chunk->sorted[i].visitor;
}

/*
 * session.h
 *		Sessions: a visitor's runs of events, as values that merge in any order.
 *
 * Private to session*.c.  A SessionRun is what is known of some events of one visitor that
 * belong to one session.  Each of its values comes with the order key of the event that it
 * came from, so that merging two runs is taking minima, maxima and sums: any
 * order and any split of the events gives the same run.  Where two events have equal keys (an
 * event_id that came back after the idempotency window), the value decides.
 *
 * The flow of a fold: session_event.c says what an event's part in a session is,
 * session_chunk.c adds it to a run of its visitor's, as session_run.c does that, session_fold.c
 * merges runs with the rows that session_store.c finds, and writes them back through it;
 * session_row.c turns rows into runs and back, session_pack.c the part of a row that only merging
 * needs.  Beside it: session.c (settings, ids, entry), session_alias.c, session_build.c (rebuild).
 */
#ifndef BEHAVIOR_SESSION_H
#define BEHAVIOR_SESSION_H

#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "nodes/pg_list.h"
#include "storage/itemptr.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/uuid.h"

#include "fold/projection.h"

#define SESSIONS "sessions"

/* Bytes without a terminator; data NULL: none. */
typedef struct Bytes
{
	const char *data;
	int length;
} Bytes;

/* Position of an event in the one order: time, sequence NULLS FIRST, event_id COLLATE "C". */
typedef struct OrderKey
{
	TimestampTz at;
	int64 sequence;
	bool has_sequence;
	Bytes event_id;
} OrderKey;

typedef struct TypeCount
{
	Bytes type;
	int64 count;
} TypeCount;

/* What each event that lies behind the others changes comes first, side by side. */
typedef struct SessionRun
{
	OrderKey last;
	Bytes exit_type;
	OrderKey exit_page_key;
	Bytes exit_page;
	int64 events;
	int64 page_views;
	OrderKey user_key;
	Bytes user_id;
	Jsonb *properties; /* NULL: none */
	Bytes entry_page;
	TypeCount *types; /* an array that it outgrows is left to its memory context */
	int ntypes;
	int max_types;
	OrderKey first;
	Bytes entry_type;
	OrderKey entry_page_key;
	OrderKey properties_key;

	/* A row of the table, or not yet one. */
	bool stored;
	ItemPointerData tid;
	pg_uuid_t id;
	Bytes id_event; /* the event that "id" was computed from */
} SessionRun;

typedef struct SessionSettings
{
	char table;	   /* 'a' or 'b' */
	int64 timeout; /* microseconds */
	List *pages;   /* of Bytes * */
	List *properties;
	List *ignore;
} SessionSettings;

/* One event's part in a session. */
typedef struct SessionEvent
{
	OrderKey key;
	Bytes type;
	Bytes user_id;
	Bytes page;
	Jsonb *properties; /* NULL: none, or they cannot matter */
} SessionEvent;

typedef struct SessionVisitor
{
	int64 hash;
	Bytes source;
	Bytes visitor;
} SessionVisitor;

/* session.c */
extern SessionSettings *session_settings(Jsonb *settings);
extern void session_fold_into(const SessionSettings *settings, bool next, const TickEvents *events);
extern Jsonb *session_current_settings(void);
extern int64 session_visitor_hash(Bytes source, Bytes visitor);
typedef struct SessionIdMaker SessionIdMaker;
extern SessionIdMaker *session_id_begin(void);
extern void session_id_end(SessionIdMaker *maker);
extern void
session_id(SessionIdMaker *maker, Bytes source, Bytes visitor, Bytes event_id, pg_uuid_t *id);

/*
 * session_event.c: an event that is being looked at.  What "visitor" and "event" point to is
 * the slot's or in the scratch context.
 */
typedef struct SessionEventReader
{
	const SessionSettings *settings;
	MemoryContext scratch; /* the caller empties it */
	TupleTableSlot *slot;
	SessionVisitor visitor; /* without its hash */
	SessionEvent event;		/* without its properties */
	Jsonb *properties;		/* all that were sent */
	union
	{
		char data[VARATT_SHORT_MAX + VARHDRSZ];
		int32 align;
	} buffer; /* of short properties, to read them aligned */
} SessionEventReader;
extern bool session_event_read(SessionEventReader *reader, TupleTableSlot *slot);
extern void session_event_read_properties(SessionEventReader *reader);

/* session_chunk.c: runs of events collected by visitor, in memory that is bounded. */
#define CHUNK_RUN_TYPES 4

typedef struct ChunkRun
{
	struct ChunkRun *older;
	SessionRun run;
	TypeCount types[CHUNK_RUN_TYPES]; /* where run.types begins */
} ChunkRun;

typedef struct ChunkVisitor
{
	SessionVisitor visitor;
	struct ChunkVisitor *same_hash;
	ChunkRun *runs; /* the newest first; some may touch each other */
} ChunkVisitor;

#define CHUNK_EVENTS_AT_ONCE 8

typedef struct SessionChunk SessionChunk;
extern SessionChunk *session_chunk_begin(const SessionSettings *settings);
extern void
session_chunk_add(SessionChunk *chunk, TupleTableSlot *const *slots, int count, bool lasting);
extern bool session_chunk_full(const SessionChunk *chunk);
extern bool session_chunk_empty(const SessionChunk *chunk);
extern ChunkVisitor *session_chunk_visitor(const SessionChunk *chunk, int i);
extern int session_chunk_sort(SessionChunk *chunk);
extern void session_chunk_reset(SessionChunk *chunk);
extern void session_chunk_end(SessionChunk *chunk);

/* session_run.c */
extern int order_key_compare(const OrderKey *a, const OrderKey *b);
extern int bytes_compare(Bytes a, Bytes b);

static inline bool
bytes_equal(Bytes a, Bytes b)
{
	return a.length == b.length && (a.data == b.data || memcmp(a.data, b.data, a.length) == 0);
}

extern void
session_run_start(SessionRun *run, const SessionEvent *event, TypeCount *types, int max_types);
extern void session_run_add(SessionRun *run, const SessionEvent *event);
extern void session_run_merge(SessionRun *run, const SessionRun *other);
extern void session_run_sum_types(SessionRun *run);

/*
 * session_fold.c: collects events by visitor and merges them into a table's rows.  next:
 * those that a rebuild is making, without aliases.
 */
typedef struct SessionFolder SessionFolder;
extern SessionFolder *session_folder_begin(const SessionSettings *settings, bool next);
extern void session_folder_add(TupleTableSlot *slot, void *folder); /* a LogRowCallback */
extern void session_folder_add_kept(SessionFolder *folder, TupleTableSlot *const *slots, int count);
extern void session_folder_end(SessionFolder *folder);

/* session_row.c */
extern void session_run_from_row(SessionRun *run, TupleDesc desc, HeapTuple tuple);
extern HeapTuple session_run_to_row(SessionRun *run, const SessionVisitor *visitor, TupleDesc desc);

/* session_store.c: rows of behavior._session, or of behavior._session_next. */
typedef struct SessionStore SessionStore;
extern SessionStore *session_store_open(bool next);
extern void session_store_close(SessionStore *store);
extern void session_store_snapshot(SessionStore *store);

/* Stored sessions of a visitor that touch from..to, ascending, in the current context. */
extern SessionRun *session_store_find(SessionStore *store, const SessionVisitor *visitor,
									  TimestampTz from, TimestampTz to, int *count);
extern void
session_store_insert(SessionStore *store, const SessionVisitor *visitor, SessionRun *run);
extern void
session_store_update(SessionStore *store, const SessionVisitor *visitor, SessionRun *run);
extern void session_store_delete(SessionStore *store, const SessionRun *run);
extern void session_store_flush(SessionStore *store);

/* session_alias.c: ids that died and ids that were born in a fold. */
typedef struct SessionAliases SessionAliases;
extern SessionAliases *session_aliases_begin(void);
extern void
session_aliases_dead(SessionAliases *aliases, const pg_uuid_t *dead, const pg_uuid_t *living);
extern void session_aliases_born(SessionAliases *aliases, const pg_uuid_t *id);
extern void session_aliases_store(SessionAliases *aliases);

#endif

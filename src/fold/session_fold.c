/*
 * session_fold.c
 *		Folds events into sessions: collect runs by visitor, merge them with the rows.
 *
 * Events are collected in chunks, in any order, as runs without a pause that is longer than the
 * timeout.  Then the stored sessions that any of a visitor's runs may touch are found, and all
 * are merged in the order of their beginnings.  Sets of events only grow, so sessions begin
 * earlier, end later, or join; none is ever cut.
 *
 * Memory: a chunk (session_chunk.c), and the ids and index entries of its sessions.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/int.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "core/compat.h"
#include "fold/projection.h"
#include "fold/session.h"

/* How far ahead memory is fetched into the processor's cache. */
#define VISITORS_AHEAD 4
#define CACHE_LINE	   64

struct SessionFolder
{
	const SessionSettings *settings;
	bool next;
	SessionStore *store;
	SessionChunk *chunk;
	SessionAliases *aliases;
	SessionIdMaker *ids;   /* NULL: none was made yet */
	MemoryContext context; /* the folder's */
	MemoryContext merging; /* while a chunk is merged */
	MemoryContext visitor; /* of the visitor merged now */
};

SessionFolder *
session_folder_begin(const SessionSettings *settings, bool next)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "behavior sessions", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	SessionFolder *folder = palloc0(sizeof(SessionFolder));

	folder->settings = settings;
	folder->next = next;
	folder->context = context;
	folder->merging =
		AllocSetContextCreate(context, "behavior sessions merging", ALLOCSET_DEFAULT_SIZES);
	folder->visitor =
		AllocSetContextCreate(context, "behavior sessions visitor", ALLOCSET_DEFAULT_SIZES);
	folder->store = session_store_open(next);
	folder->chunk = session_chunk_begin(settings);
	MemoryContextSwitchTo(old);
	return folder;
}

static int
run_compare(const void *a, const void *b)
{
	return order_key_compare(&(*(SessionRun *const *) a)->first,
							 &(*(SessionRun *const *) b)->first);
}

/* True when an event at "at" goes on with what ends at "ended". */
static bool
within_timeout(const SessionFolder *folder, TimestampTz ended, TimestampTz at)
{
	int64 pause;

	return at <= ended ||
		   (!pg_sub_s64_overflow(at, ended, &pause) && pause <= folder->settings->timeout);
}

/* A visitor's runs that were collected, ascending by their first events.  "one" is for one. */
static SessionRun **
list_runs(ChunkVisitor *visitor, SessionRun **one, int *count)
{
	SessionRun **runs = one;
	bool sorted = true;
	int n = 0;

	*one = &visitor->runs->run;
	*count = 1;
	if (visitor->runs->older == NULL)
		return one;

	for (ChunkRun *run = visitor->runs->older; run != NULL; run = run->older)
		(*count)++;
	runs = palloc_extended(sizeof(SessionRun *) * *count, MCXT_ALLOC_HUGE);
	for (ChunkRun *run = visitor->runs; run != NULL; run = run->older)
	{
		runs[*count - ++n] = &run->run;
		if (run->older != NULL && order_key_compare(&run->older->run.first, &run->run.first) > 0)
			sorted = false;
	}
	if (!sorted)
		qsort(runs, *count, sizeof(SessionRun *), run_compare);
	return runs;
}

/* Writes a session: a new row, or a change of the row that it had. */
static void
write_run(SessionFolder *folder, const SessionVisitor *visitor, SessionRun *run, bool changed)
{
	pg_uuid_t id;

	if (run->stored && !changed)
		return;
	if (run->stored && bytes_compare(run->id_event, run->first.event_id) == 0)
	{
		session_store_update(folder->store, visitor, run);
		return;
	}
	if (folder->ids == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(folder->context);

		folder->ids = session_id_begin();
		MemoryContextSwitchTo(old);
	}
	session_id(folder->ids, visitor->source, visitor->visitor, run->first.event_id, &id);
	if (!run->stored)
	{
		run->id = id;
		session_store_insert(folder->store, visitor, run);
		session_aliases_born(folder->aliases, &id);
		return;
	}
	session_aliases_dead(folder->aliases, &run->id, &id);
	session_aliases_born(folder->aliases, &id);
	run->id = id;
	session_store_update(folder->store, visitor, run);
}

/*
 * Merges runs and stored sessions, both ascending by their first events, into sessions.  A
 * session that takes part with its row keeps it; further rows that join it are deleted and their
 * ids become aliases of the id that the joined session has in the end.
 */
static void
merge_visitor(SessionFolder *folder, const SessionVisitor *visitor, SessionRun **runs, int nruns,
			  SessionRun *stored, int nstored)
{
	SessionRun *current = NULL;
	bool changed = false;
	pg_uuid_t *absorbed = nstored > 1 ? palloc(sizeof(pg_uuid_t) * nstored) : NULL;
	int nabsorbed = 0;
	int i = 0;
	int j = 0;

	for (;;)
	{
		SessionRun *next = NULL;

		if (i < nruns && (j >= nstored || order_key_compare(&runs[i]->first, &stored[j].first) < 0))
			next = runs[i++];
		else if (j < nstored)
			next = &stored[j++];

		if (next != NULL && current != NULL &&
			within_timeout(folder, current->last.at, next->first.at))
		{
			changed = true;
			if (next->stored && current->stored)
			{
				absorbed[nabsorbed++] = next->id;
				session_store_delete(folder->store, next);
			}
			else if (next->stored)
			{
				current->stored = true;
				current->tid = next->tid;
				current->id = next->id;
				current->id_event = next->id_event;
			}
			session_run_merge(current, next);
			continue;
		}

		if (current != NULL)
		{
			write_run(folder, visitor, current, changed);
			for (int k = 0; k < nabsorbed; k++)
			{
				if (memcmp(&absorbed[k], &current->id, sizeof(pg_uuid_t)) != 0)
					session_aliases_dead(folder->aliases, &absorbed[k], &current->id);
			}
		}
		if (next == NULL)
			break;
		current = next;
		changed = false;
		nabsorbed = 0;
	}
}

/* Merges a visitor's runs with the stored sessions that they may touch. */
static void
fold_visitor(SessionFolder *folder, ChunkVisitor *visitor)
{
	SessionRun *one;
	SessionRun **runs;
	SessionRun *stored;
	int nruns;
	int nstored;
	TimestampTz from;
	TimestampTz to;

	runs = list_runs(visitor, &one, &nruns);
	to = runs[0]->last.at;
	for (int i = 1; i < nruns; i++)
		to = Max(to, runs[i]->last.at);
	if (pg_sub_s64_overflow(runs[0]->first.at, folder->settings->timeout, &from))
		from = DT_NOBEGIN;
	if (pg_add_s64_overflow(to, folder->settings->timeout, &to))
		to = DT_NOEND;
	stored = session_store_find(folder->store, &visitor->visitor, from, to, &nstored);
	merge_visitor(folder, &visitor->visitor, runs, nruns, stored, nstored);
}

/*
 * A visitor lies wherever it came, so the processor is told a few visitors ahead what will be
 * needed: first the visitor with its run, then the texts that this points to.
 */
static void
prefetch_visitor(const ChunkVisitor *visitor)
{
	for (Size at = 0; at < sizeof(ChunkVisitor) + sizeof(ChunkRun); at += CACHE_LINE)
		prefetch_memory((const char *) visitor + at);
}

static void
prefetch_texts(const SessionRun *run)
{
	prefetch_memory(run->first.event_id.data);
	prefetch_memory(run->last.event_id.data);
	prefetch_memory(run->entry_page.data);
	prefetch_memory(run->exit_page.data);
}

/* Merges what has been collected into the table, in the order of its index. */
static void
fold_chunk(SessionFolder *folder)
{
	MemoryContext old = MemoryContextSwitchTo(folder->merging);
	SessionChunk *chunk = folder->chunk;
	int count;

	session_store_snapshot(folder->store);
	folder->aliases = session_aliases_begin();
	count = session_chunk_sort(chunk);
	MemoryContextSwitchTo(folder->visitor);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (i + 2 * VISITORS_AHEAD < count)
			prefetch_visitor(session_chunk_visitor(chunk, i + 2 * VISITORS_AHEAD));
		if (i + VISITORS_AHEAD < count)
			prefetch_texts(&session_chunk_visitor(chunk, i + VISITORS_AHEAD)->runs->run);
		fold_visitor(folder, session_chunk_visitor(chunk, i));
		MemoryContextReset(folder->visitor);
	}
	session_store_flush(folder->store);
	CommandCounterIncrement();
	MemoryContextSwitchTo(folder->merging);
	if (!folder->next)
		session_aliases_store(folder->aliases);
	session_chunk_reset(folder->chunk);
	MemoryContextSwitchTo(old);
	MemoryContextReset(folder->merging);
}

void
session_folder_add(TupleTableSlot *slot, void *arg)
{
	SessionFolder *folder = arg;

	session_chunk_add(folder->chunk, &slot, 1, false);
	if (session_chunk_full(folder->chunk))
		fold_chunk(folder);
}

/*
 * Adds rows, CHUNK_EVENTS_AT_ONCE at most, that stay where they are until the folder ends, if they
 * are not the slots' own.
 */
void
session_folder_add_kept(SessionFolder *folder, TupleTableSlot *const *slots, int count)
{
	session_chunk_add(folder->chunk, slots, count, true);
	if (session_chunk_full(folder->chunk))
		fold_chunk(folder);
}

void
session_folder_end(SessionFolder *folder)
{
	if (!session_chunk_empty(folder->chunk))
		fold_chunk(folder);
	session_chunk_end(folder->chunk);
	if (folder->ids != NULL)
		session_id_end(folder->ids);
	session_store_close(folder->store);
	MemoryContextDelete(folder->context);
}

/*
 * session_fold.c
 *		Folds events into sessions: collect by visitor, order, make runs, merge with the rows.
 *
 * Events are collected in chunks, in any order.  Then each visitor's are
 * cut into runs where the pause is longer than the timeout (sorted before, if they did not come
 * in order), the stored sessions that any of them may touch are found, and all are merged in the
 * order of their beginnings.  Sets of events only grow, so sessions begin earlier, end later, or
 * join; none is ever cut.
 *
 * Memory: a chunk (session_chunk.c), the runs of one visitor, and the ids and index entries of
 * the sessions of a chunk.
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
#define EVENTS_AHEAD   8

struct SessionFolder
{
	const SessionSettings *settings;
	bool next;
	SessionStore *store;
	SessionChunk *chunk;
	SessionAliases *aliases;
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
	folder->chunk = session_chunk_create(settings);
	MemoryContextSwitchTo(old);
	return folder;
}

static int
event_compare(const void *a, const void *b)
{
	return order_key_compare(&(*(SessionEvent *const *) a)->key,
							 &(*(SessionEvent *const *) b)->key);
}

/* True when an event at "at" goes on with what ends at "ended". */
static bool
within_timeout(const SessionFolder *folder, TimestampTz ended, TimestampTz at)
{
	int64 pause;

	return !pg_sub_s64_overflow(at, ended, &pause) && pause <= folder->settings->timeout;
}

/* A visitor's runs among the collected events, ascending. */
static SessionRun *
make_runs(SessionFolder *folder, ChunkVisitor *visitor, int *count)
{
	SessionRun *runs = NULL;
	int nruns = 0;
	int max = 0;

	if (!visitor->in_order)
		qsort(visitor->events, visitor->nevents, sizeof(SessionEvent *), event_compare);

	for (int i = 0; i < visitor->nevents; i++)
	{
		const SessionEvent *event = visitor->events[i];

		if (nruns > 0 && within_timeout(folder, runs[nruns - 1].last.at, event->key.at))
		{
			session_run_add(&runs[nruns - 1], event);
			continue;
		}
		if (nruns == max)
		{
			max = Max(2, max * 2);
			runs = runs == NULL ? palloc(sizeof(SessionRun) * max)
								: repalloc_huge(runs, sizeof(SessionRun) * max);
		}
		session_run_start(&runs[nruns++], event);
	}
	*count = nruns;
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
	session_id(visitor->source, visitor->visitor, run->first.event_id, &id);
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
 * Merges runs and stored sessions, both ascending, into sessions.  A session that takes part
 * with its row keeps it; further rows that join it are deleted and their ids become
 * aliases of the id that the joined session has in the end.
 */
static void
merge_visitor(SessionFolder *folder, const SessionVisitor *visitor, SessionRun *runs, int nruns,
			  SessionRun *stored, int nstored)
{
	SessionRun current = {0};
	bool have = false;
	bool changed = false;
	pg_uuid_t *absorbed = palloc(sizeof(pg_uuid_t) * (nstored + 1));
	int nabsorbed = 0;
	int i = 0;
	int j = 0;

	for (;;)
	{
		SessionRun *next = NULL;

		if (i < nruns && (j >= nstored || order_key_compare(&runs[i].first, &stored[j].first) < 0))
			next = &runs[i++];
		else if (j < nstored)
			next = &stored[j++];

		if (next != NULL && have && within_timeout(folder, current.last.at, next->first.at))
		{
			changed = true;
			if (next->stored && current.stored)
			{
				absorbed[nabsorbed++] = next->id;
				session_store_delete(folder->store, next);
			}
			else if (next->stored)
			{
				current.stored = true;
				current.tid = next->tid;
				current.id = next->id;
				current.id_event = next->id_event;
			}
			session_run_merge(&current, next);
			continue;
		}

		if (have)
		{
			write_run(folder, visitor, &current, changed);
			for (int k = 0; k < nabsorbed; k++)
			{
				if (memcmp(&absorbed[k], &current.id, sizeof(pg_uuid_t)) != 0)
					session_aliases_dead(folder->aliases, &absorbed[k], &current.id);
			}
		}
		if (next == NULL)
			break;
		current = *next;
		have = true;
		changed = false;
		nabsorbed = 0;
	}
	pfree(absorbed);
}

/* Merges a visitor's events with the stored sessions that they may touch. */
static void
fold_visitor(SessionFolder *folder, ChunkVisitor *visitor)
{
	SessionRun *runs;
	SessionRun *stored;
	int nruns;
	int nstored;
	TimestampTz from;
	TimestampTz to;

	runs = make_runs(folder, visitor, &nruns);
	if (pg_sub_s64_overflow(runs[0].first.at, folder->settings->timeout, &from))
		from = DT_NOBEGIN;
	if (pg_add_s64_overflow(runs[nruns - 1].last.at, folder->settings->timeout, &to))
		to = DT_NOEND;
	stored = session_store_find(folder->store, &visitor->visitor, from, to, &nstored);
	merge_visitor(folder, &visitor->visitor, runs, nruns, stored, nstored);
}

/*
 * A visitor's events lie wherever they came, so the processor is told a few visitors ahead what
 * will be needed: first the visitor, with its list of events, then these.
 */
static void
prefetch_visitor(const ChunkVisitor *visitor)
{
	prefetch_memory(visitor);
	prefetch_memory((const char *) visitor + sizeof(ChunkVisitor) - 1);
}

static void
prefetch_events(const ChunkVisitor *visitor)
{
	for (int i = 0; i < Min(visitor->nevents, EVENTS_AHEAD); i++)
	{
		prefetch_memory(visitor->events[i]);
		prefetch_memory(visitor->events[i] + 1);
	}
}

/* Merges what has been collected into the table, in the order of its index. */
static void
fold_chunk(SessionFolder *folder)
{
	MemoryContext old = MemoryContextSwitchTo(folder->merging);
	ChunkVisitor **visitors;
	int count;

	session_store_snapshot(folder->store);
	folder->aliases = session_aliases_begin();
	visitors = session_chunk_visitors(folder->chunk, &count);
	MemoryContextSwitchTo(folder->visitor);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (i + 2 * VISITORS_AHEAD < count)
			prefetch_visitor(visitors[i + 2 * VISITORS_AHEAD]);
		if (i + VISITORS_AHEAD < count)
			prefetch_events(visitors[i + VISITORS_AHEAD]);
		fold_visitor(folder, visitors[i]);
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

	session_chunk_add(folder->chunk, slot);
	if (session_chunk_full(folder->chunk))
		fold_chunk(folder);
}

void
session_folder_end(SessionFolder *folder)
{
	if (!session_chunk_empty(folder->chunk))
		fold_chunk(folder);
	session_store_close(folder->store);
	MemoryContextDelete(folder->context);
}

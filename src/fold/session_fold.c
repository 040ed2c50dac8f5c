/*
 * session_fold.c
 *		Folds events into sessions: collect by visitor, order, make runs, merge with the rows.
 *
 * Events are collected until they take FOLDER_BYTES, in any order.  Then each visitor's are
 * sorted and cut into runs where the pause is longer than the timeout, the
 * stored sessions that any of them may touch are found, and all are merged in the
 * order of their beginnings.  Sets of events only grow, so sessions begin earlier, end later, or
 * join; none is ever cut.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "common/int.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "core/compat.h"
#include "fold/projection.h"
#include "fold/session.h"

/* Collected before they are merged. */
#define FOLDER_BYTES  (64 * 1024 * 1024)
#define FOLDER_EVENTS 250000

typedef struct FoldEvent
{
	SessionEvent event;
	int next; /* of the same visitor; -1: none */
} FoldEvent;

typedef struct VisitorEntry
{
	SessionVisitor visitor; /* hash key; its texts live in the chunk's context */
	int first_event;
	int nevents;
	char status;
} VisitorEntry;

static inline bool
same_visitor(SessionVisitor a, SessionVisitor b)
{
	return a.hash == b.hash && bytes_compare(a.visitor, b.visitor) == 0 &&
		   bytes_compare(a.source, b.source) == 0;
}

#define SH_PREFIX			 visitors
#define SH_ELEMENT_TYPE		 VisitorEntry
#define SH_KEY_TYPE			 SessionVisitor
#define SH_KEY				 visitor
#define SH_HASH_KEY(tb, key) murmurhash32((uint32) (key).hash ^ (uint32) ((key).hash >> 32))
#define SH_EQUAL(tb, a, b)	 same_visitor(a, b)
#define SH_SCOPE			 static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct SessionFolder
{
	const SessionSettings *settings;
	bool next;
	SessionStore *store;
	MemoryContext context; /* the folder's */
	MemoryContext chunk;   /* of the events collected now */
	MemoryContext visitor; /* of the visitor merged now; scratch while collecting */
	int nevents;
	int max_events;
	FoldEvent *events;
	visitors_hash *visitors;
	SessionAliases *aliases;
};

/* Starts a chunk. */
static void
chunk_begin(SessionFolder *folder)
{
	MemoryContextReset(folder->chunk);
	folder->nevents = 0;
	folder->visitors = visitors_create(folder->chunk, 1024, NULL);
}

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
	folder->chunk =
		AllocSetContextCreate(context, "behavior sessions chunk", ALLOCSET_DEFAULT_INITSIZE,
							  ALLOCSET_DEFAULT_INITSIZE, ALLOCSET_DEFAULT_MAXSIZE);
	folder->visitor =
		AllocSetContextCreate(context, "behavior sessions visitor", ALLOCSET_DEFAULT_SIZES);
	folder->store = session_store_open(next);
	folder->max_events = 4096;
	folder->events = palloc(sizeof(FoldEvent) * folder->max_events);
	chunk_begin(folder);
	MemoryContextSwitchTo(old);
	return folder;
}

static Bytes
copy_bytes(Bytes bytes)
{
	char *copy = palloc(bytes.length + 1);

	memcpy(copy, bytes.data, bytes.length);
	bytes.data = copy;
	return bytes;
}

static int
fold_event_compare(const void *a, const void *b)
{
	return order_key_compare(&(*(FoldEvent *const *) a)->event.key,
							 &(*(FoldEvent *const *) b)->event.key);
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
make_runs(SessionFolder *folder, const VisitorEntry *entry, int *count)
{
	FoldEvent **events = palloc(sizeof(FoldEvent *) * entry->nevents);
	SessionRun *runs = NULL;
	int nruns = 0;
	int max = 0;
	int next = entry->first_event;

	for (int i = 0; i < entry->nevents; i++)
	{
		events[i] = &folder->events[next];
		next = events[i]->next;
	}
	qsort(events, entry->nevents, sizeof(FoldEvent *), fold_event_compare);

	for (int i = 0; i < entry->nevents; i++)
	{
		const SessionEvent *event = &events[i]->event;

		if (nruns > 0 && within_timeout(folder, runs[nruns - 1].last.at, event->key.at))
		{
			session_run_add(&runs[nruns - 1], event);
			continue;
		}
		if (nruns == max)
		{
			max = Max(4, max * 2);
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

/* Merges what has been collected into the table. */
static void
chunk_end(SessionFolder *folder)
{
	MemoryContext old = MemoryContextSwitchTo(folder->chunk);
	visitors_iterator it;
	VisitorEntry *entry;

	session_store_snapshot(folder->store);
	folder->aliases = session_aliases_begin();
	visitors_start_iterate(folder->visitors, &it);
	while ((entry = visitors_iterate(folder->visitors, &it)) != NULL)
	{
		SessionRun *runs;
		SessionRun *stored;
		int nruns;
		int nstored;
		TimestampTz from;
		TimestampTz to;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(folder->visitor);
		runs = make_runs(folder, entry, &nruns);
		if (pg_sub_s64_overflow(runs[0].first.at, folder->settings->timeout, &from))
			from = DT_NOBEGIN;
		if (pg_add_s64_overflow(runs[nruns - 1].last.at, folder->settings->timeout, &to))
			to = DT_NOEND;
		stored = session_store_find(folder->store, &entry->visitor, from, to, &nstored);

		/* Rows to insert and ids are collected over visitors. */
		MemoryContextSwitchTo(folder->chunk);
		merge_visitor(folder, &entry->visitor, runs, nruns, stored, nstored);
		MemoryContextReset(folder->visitor);
	}
	session_store_flush(folder->store);
	CommandCounterIncrement();
	if (!folder->next)
		session_aliases_store(folder->aliases);
	MemoryContextSwitchTo(folder->context);
	chunk_begin(folder);
	MemoryContextSwitchTo(old);
}

void
session_folder_add(TupleTableSlot *slot, void *arg)
{
	SessionFolder *folder = arg;
	MemoryContext old = MemoryContextSwitchTo(folder->chunk);
	SessionVisitor visitor;
	SessionEvent event;

	if (session_event_take(folder->settings, slot, &visitor, &event, folder->visitor))
	{
		VisitorEntry *entry;
		FoldEvent *fold_event;
		bool found;

		visitor.hash = session_visitor_hash(visitor.source, visitor.visitor);
		entry = visitors_insert(folder->visitors, visitor, &found);
		if (!found)
		{
			entry->visitor.source = copy_bytes(visitor.source);
			entry->visitor.visitor = copy_bytes(visitor.visitor);
			entry->first_event = -1;
			entry->nevents = 0;
		}
		if (folder->nevents == folder->max_events)
		{
			folder->max_events *= 2;
			folder->events = repalloc_huge(folder->events, sizeof(FoldEvent) * folder->max_events);
		}
		fold_event = &folder->events[folder->nevents];
		fold_event->event = event;
		fold_event->next = entry->first_event;
		entry->first_event = folder->nevents++;
		entry->nevents++;
	}
	MemoryContextSwitchTo(old);

	if (folder->nevents >= FOLDER_EVENTS ||
		MemoryContextMemAllocated(folder->chunk, false) > FOLDER_BYTES)
		chunk_end(folder);
}

void
session_folder_end(SessionFolder *folder)
{
	if (folder->nevents > 0)
		chunk_end(folder);
	session_store_close(folder->store);
	MemoryContextDelete(folder->context);
}

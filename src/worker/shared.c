/*
 * shared.c
 *		What the launcher, the workers and backends tell each other in shared memory.
 *
 * The protocol stands in shared.h.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "core/compat.h"
#include "worker/worker.h"

#define HOLD_TIMEOUT_MS 10000
#define HOLD_POLL_MS	10

WorkerShared *worker_shared = NULL;

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

/* The entry of this process, when it is one of ours. */
static WorkerEntry *my_entry = NULL;

static Size
shared_size(void)
{
	return add_size(offsetof(WorkerShared, entries),
					mul_size(max_worker_processes, sizeof(WorkerEntry)));
}

static void
request_shared_memory(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche("behavior", 1);
}

static void
start_shared_memory(void)
{
	bool found;

	if (previous_startup_hook)
		previous_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	worker_shared = ShmemInitStruct("behavior workers", shared_size(), &found);
	if (!found)
	{
		memset(worker_shared, 0, shared_size());
		worker_shared->lock = &(GetNamedLWLockTranche("behavior"))->lock;
		worker_shared->nentries = max_worker_processes;
		for (int i = 0; i < max_worker_processes; i++)
			pg_atomic_init_u32(&worker_shared->entries[i].news, 0);
	}
	LWLockRelease(AddinShmemInitLock);
}

void
worker_shared_install(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = start_shared_memory;
}

/* Is the database held?  Caller has the lock. */
static bool
held_locked(Oid dboid)
{
	for (int i = 0; i < MAX_HOLDS; i++)
	{
		if (worker_shared->holds[i].dboid == dboid)
			return true;
	}
	return false;
}

static WorkerEntry *
ticket_entry(const WorkerTicket *ticket)
{
	WorkerEntry *entry;

	if (ticket->place < 0 || ticket->place >= worker_shared->nentries)
		return NULL;
	entry = &worker_shared->entries[ticket->place];
	if (entry->generation != ticket->generation || entry->dboid != ticket->dboid)
		return NULL;
	return entry;
}

bool
worker_register(WorkerKind kind, Oid dboid, const char *function, const char *name, int64 reserved,
				WorkerTicket *ticket, BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker;
	WorkerEntry *entry = NULL;
	int place;

	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	for (place = 0; place < worker_shared->nentries; place++)
	{
		if (worker_shared->entries[place].state == WORKER_FREE)
		{
			entry = &worker_shared->entries[place];
			break;
		}
	}
	if (entry != NULL)
	{
		entry->dboid = dboid;
		entry->kind = kind;
		entry->state = WORKER_CLAIMED;
		entry->outcome = OUTCOME_FAILED;
		entry->generation++;
		entry->pid = 0;
		entry->latch = NULL;
		entry->claimed_at = GetCurrentTimestamp();
		entry->since = entry->claimed_at;
		entry->chores_wanted = false;
		entry->subscribed = false;
		entry->last_served = 0;
		entry->idle = false;
		entry->reserved = reserved;
		entry->serves = 0;
		pg_atomic_write_u32(&entry->news, 0);
		ticket->dboid = dboid;
		ticket->place = place;
		ticket->generation = entry->generation;
	}
	LWLockRelease(worker_shared->lock);
	if (entry == NULL)
		return false;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "behavior", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, function, sizeof(worker.bgw_function_name));
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "%s of database %u", name, dboid);
	strlcpy(worker.bgw_type, name, sizeof(worker.bgw_type));
	worker.bgw_main_arg = ObjectIdGetDatum(dboid);
	worker.bgw_notify_pid = MyProcPid;
	memcpy(worker.bgw_extra, ticket, sizeof(*ticket));

	if (!RegisterDynamicBackgroundWorker(&worker, handle))
	{
		(void) worker_unclaim(ticket);
		return false;
	}
	return true;
}

bool
worker_unclaim(const WorkerTicket *ticket)
{
	WorkerEntry *entry;
	bool unclaimed = false;

	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	entry = ticket_entry(ticket);
	if (entry != NULL && entry->state == WORKER_CLAIMED)
	{
		entry->state = WORKER_FREE;
		unclaimed = true;
	}
	LWLockRelease(worker_shared->lock);
	return unclaimed;
}

static void
detach(int code, Datum arg)
{
	if (my_entry == NULL)
		return;
	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	my_entry->state = my_entry->kind == WORKER_DATABASE ? WORKER_ENDED : WORKER_FREE;
	if (process_stop_requested())
		my_entry->outcome = OUTCOME_STOPPED;
	my_entry->since = GetCurrentTimestamp();
	my_entry->pid = 0;
	my_entry->latch = NULL;
	if (worker_shared->launcher_latch != NULL)
		SetLatch(worker_shared->launcher_latch);
	LWLockRelease(worker_shared->lock);
	my_entry = NULL;
}

bool
worker_attach(void)
{
	WorkerTicket ticket;
	WorkerEntry *entry;
	bool attached = false;

	if (worker_shared == NULL)
		return false;
	memcpy(&ticket, MyBgworkerEntry->bgw_extra, sizeof(ticket));

	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	entry = ticket_entry(&ticket);
	if (entry != NULL && entry->state == WORKER_CLAIMED)
	{
		my_entry = entry;
		my_entry->pid = MyProcPid;
		my_entry->latch = MyLatch;
		my_entry->state = WORKER_ATTACHED;
		my_entry->since = GetCurrentTimestamp();
		attached = !held_locked(ticket.dboid);
		if (!attached)
			my_entry->outcome = OUTCOME_STOPPED;
	}
	LWLockRelease(worker_shared->lock);

	if (my_entry != NULL)
		before_shmem_exit(detach, (Datum) 0);
	return attached;
}

void
worker_set_serving(void)
{
	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	my_entry->state = WORKER_SERVING;
	my_entry->since = GetCurrentTimestamp();
	if (worker_shared->launcher_latch != NULL)
		SetLatch(worker_shared->launcher_latch);
	LWLockRelease(worker_shared->lock);
}

void
worker_set_outcome(WorkerOutcome outcome)
{
	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	my_entry->outcome = outcome;
	LWLockRelease(worker_shared->lock);
}

WorkerEntry *
worker_entry(void)
{
	return my_entry;
}

bool
worker_is_live(const WorkerEntry *entry)
{
	return entry->state == WORKER_CLAIMED || entry->state == WORKER_ATTACHED ||
		   entry->state == WORKER_SERVING;
}

int
worker_count(WorkerKind kind, Oid dboid)
{
	int count = 0;

	LWLockAcquire(worker_shared->lock, LW_SHARED);
	for (int i = 0; i < worker_shared->nentries; i++)
	{
		const WorkerEntry *entry = &worker_shared->entries[i];

		if (worker_is_live(entry) && entry->kind == kind && entry->dboid == dboid)
			count++;
	}
	LWLockRelease(worker_shared->lock);
	return count;
}

void
worker_wake(WorkerKind kind, Oid dboid)
{
	LWLockAcquire(worker_shared->lock, LW_SHARED);
	for (int i = 0; i < worker_shared->nentries; i++)
	{
		const WorkerEntry *entry = &worker_shared->entries[i];

		if (worker_is_live(entry) && entry->kind == kind && entry->dboid == dboid &&
			entry->latch != NULL)
			SetLatch(entry->latch);
	}
	LWLockRelease(worker_shared->lock);
}

void
worker_want_chores(void)
{
	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	my_entry->chores_wanted = true;
	LWLockRelease(worker_shared->lock);
}

bool
worker_take_chores(Oid dboid)
{
	bool wanted = false;

	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < worker_shared->nentries; i++)
	{
		WorkerEntry *entry = &worker_shared->entries[i];

		if (entry->state == WORKER_SERVING && entry->kind == WORKER_DATABASE &&
			entry->dboid == dboid && entry->chores_wanted)
		{
			entry->chores_wanted = false;
			wanted = true;
		}
	}
	LWLockRelease(worker_shared->lock);
	return wanted;
}

/*
 * The entry of this database's worker, NULL when there is none.  Without the lock: the caller must
 * bear with a wrong answer.
 */
static WorkerEntry *
database_entry(void)
{
	static WorkerEntry *found = NULL;
	WorkerEntry *entry = found;

	if (entry != NULL && entry->dboid == MyDatabaseId && entry->kind == WORKER_DATABASE &&
		entry->state == WORKER_SERVING)
		return entry;
	for (int i = 0; i < worker_shared->nentries; i++)
	{
		entry = &worker_shared->entries[i];
		if (entry->dboid == MyDatabaseId && entry->kind == WORKER_DATABASE &&
			entry->state == WORKER_SERVING)
			return found = entry;
	}
	return NULL;
}

void
worker_tell_news(void)
{
	WorkerEntry *entry = database_entry();

	if (entry == NULL || !entry->subscribed)
		return;
	/*
	 * The commit was made visible before this: a worker that sets it back later sees what was
	 * committed, and one that has done so already left a 0 here.
	 */
	pg_memory_barrier();
	if (pg_atomic_read_u32(&entry->news) != 0 || pg_atomic_exchange_u32(&entry->news, 1) != 0)
		return;
	LWLockAcquire(worker_shared->lock, LW_SHARED);
	if (entry->state == WORKER_SERVING && entry->latch != NULL)
		SetLatch(entry->latch);
	LWLockRelease(worker_shared->lock);
}

bool
worker_has_news(void)
{
	return pg_atomic_read_u32(&my_entry->news) != 0;
}

void
worker_take_news(void)
{
	(void) pg_atomic_exchange_u32(&my_entry->news, 0);
}

void
worker_set_subscribed(bool subscribed)
{
	if (my_entry->subscribed == subscribed)
		return;
	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	my_entry->subscribed = subscribed;
	LWLockRelease(worker_shared->lock);
}

void
worker_poke(Oid dboid)
{
	if (worker_shared == NULL)
		return;
	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	worker_shared->poke_list = true;
	if (OidIsValid(dboid))
	{
		if (worker_shared->npokes < MAX_POKES)
			worker_shared->pokes[worker_shared->npokes++] = dboid;
		else
			worker_shared->poke_all = true;
	}
	if (worker_shared->launcher_latch != NULL)
		SetLatch(worker_shared->launcher_latch);
	LWLockRelease(worker_shared->lock);
}

bool
worker_held(Oid dboid)
{
	bool held;

	LWLockAcquire(worker_shared->lock, LW_SHARED);
	held = held_locked(dboid);
	LWLockRelease(worker_shared->lock);
	return held;
}

/* Collects the pids of a database's processes that are there, and counts those to come. */
static int
list_processes(Oid dboid, pid_t *pids, int *npids)
{
	int coming = 0;

	*npids = 0;
	LWLockAcquire(worker_shared->lock, LW_SHARED);
	for (int i = 0; i < worker_shared->nentries; i++)
	{
		const WorkerEntry *entry = &worker_shared->entries[i];

		if (!worker_is_live(entry) || entry->dboid != dboid)
			continue;
		if (entry->pid != 0)
			pids[(*npids)++] = entry->pid;
		else
			coming++;
	}
	LWLockRelease(worker_shared->lock);
	return coming;
}

void
worker_hold(Oid dboid)
{
	WorkerHold *hold = NULL;
	pid_t *pids;
	pid_t *sent;
	int nsent = 0;
	TimestampTz start = GetCurrentTimestamp();

	if (worker_shared == NULL || dboid == MyDatabaseId)
		return;

	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_HOLDS && hold == NULL; i++)
	{
		if (!OidIsValid(worker_shared->holds[i].dboid))
			hold = &worker_shared->holds[i];
	}
	if (hold != NULL)
	{
		hold->dboid = dboid;
		hold->pid = MyProcPid;
	}
	LWLockRelease(worker_shared->lock);
	if (hold == NULL)
	{
		ereport(WARNING, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						  errmsg("could not stop the behavior worker of database %u", dboid),
						  errdetail("More than %d commands that need this are running.", MAX_HOLDS),
						  errhint("Run the command again when they have finished.")));
		return;
	}

	pids = palloc(sizeof(pid_t) * worker_shared->nentries);
	sent = palloc(sizeof(pid_t) * worker_shared->nentries);
	for (;;)
	{
		int npids;
		int coming = list_processes(dboid, pids, &npids);
		bool leaving = false;

		for (int i = 0; i < npids; i++)
		{
			bool known = false;

			for (int j = 0; j < nsent; j++)
				known |= sent[j] == pids[i];
			if (!known)
			{
				kill(pids[i], SIGTERM);
				if (nsent < worker_shared->nentries)
					sent[nsent++] = pids[i];
			}
		}

		/* A process has let go of its entry a moment before it has left the database. */
		for (int j = 0; j < nsent; j++)
			leaving |= BackendPidGetProc(sent[j]) != NULL;

		if (coming == 0 && npids == 0 && !leaving)
			break;
		if (TimestampDifferenceExceeds(start, GetCurrentTimestamp(), HOLD_TIMEOUT_MS))
		{
			ereport(WARNING,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("the behavior worker of database %u has not stopped within %d s", dboid,
							HOLD_TIMEOUT_MS / 1000)));
			break;
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, HOLD_POLL_MS,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	pfree(pids);
	pfree(sent);
}

void
worker_release_holds(void)
{
	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_HOLDS; i++)
	{
		if (worker_shared->holds[i].pid == MyProcPid)
			memset(&worker_shared->holds[i], 0, sizeof(WorkerHold));
	}
	worker_shared->poke_list = true;
	if (worker_shared->launcher_latch != NULL)
		SetLatch(worker_shared->launcher_latch);
	LWLockRelease(worker_shared->lock);
}

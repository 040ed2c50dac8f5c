/*
 * shared.h
 *		What the launcher, the workers and backends tell each other in shared memory.
 *
 * It exists only under shared_preload_libraries, and nothing that must be right
 * depends on it: numbering and folding are guarded by heavyweight locks.  It says
 * which processes there are, so that they can be stopped, woken and counted.
 *
 * Protocol.  All fields are read and written under "lock" (exclusive to
 * write, shared to read), which is held for a few instructions only, never
 * while anything is waited for or allocated.
 *
 * An entry is one background process of ours that is connected, or about to connect,
 * to a database.  Its life: whoever registers the process claims a free entry
 * (WORKER_CLAIMED, its generation counted up) and passes place and generation
 * in bgw_extra; the process attaches (WORKER_ATTACHED: pid, latch) unless
 * the entry is no longer its own or the database is held; a database worker that found the
 * extension says so (WORKER_SERVING); at its end the process frees the entry
 * or, a database worker, leaves it as WORKER_ENDED with the outcome for the launcher, who
 * frees it.  A claimed entry whose process never came is freed by whoever
 * registered it, or by the launcher after a time.
 *
 * A hold keeps workers out of a database until the transaction of the backend that
 * placed it ends: processes already there are sent SIGTERM by that backend, one that is
 * about to attach goes away, and the launcher starts none.
 *
 * A poke asks the launcher to look at a database again: the extension may be there now.
 *
 * News are a database worker's: somebody has committed events while there are subscriptions.  A
 * sender reads "subscribed" and "news" of the entry without the lock, since almost always there is
 * nothing to say; what it gets wrong costs a look too many, or a wait for the look that the worker
 * takes once a second anyway.  Only who turns "news" from 0 to 1 takes the lock and sets the latch;
 * the worker sets it back to 0 before it looks.
 *
 * A delivery worker's entry says what it serves, so that the others pass by and whoever starts them
 * knows how many are wanted.  That no two deliver the same is not this, but the subscription's
 * heavyweight lock.
 */
#ifndef BEHAVIOR_WORKER_SHARED_H
#define BEHAVIOR_WORKER_SHARED_H

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "postmaster/bgworker.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

typedef enum WorkerKind
{
	WORKER_DATABASE,
	WORKER_MAINTENANCE,
	WORKER_DELIVERY
} WorkerKind;

typedef enum WorkerState
{
	WORKER_FREE,
	WORKER_CLAIMED,
	WORKER_ATTACHED,
	WORKER_SERVING,
	WORKER_ENDED
} WorkerState;

typedef enum WorkerOutcome
{
	OUTCOME_FAILED,		  /* until it says otherwise */
	OUTCOME_NO_EXTENSION, /* there is none, or it is gone */
	OUTCOME_STOPPED		  /* was asked to go */
} WorkerOutcome;

typedef struct WorkerEntry
{
	Oid dboid;
	WorkerKind kind;
	WorkerState state;
	WorkerOutcome outcome;
	uint32 generation; /* counted up at each claim */
	pid_t pid;		   /* 0 until attached */
	Latch *latch;	   /* of that process; NULL until attached */
	TimestampTz claimed_at;
	TimestampTz since; /* of the state */
	/* of a database worker */
	bool chores_wanted;	   /* maintenance is to do its chores once */
	bool subscribed;	   /* there are subscriptions */
	int64 last_served;	   /* the subscription that a delivery worker took up last */
	pg_atomic_uint32 news; /* see above */

	/* of a delivery worker */
	bool idle;		/* it waits for something to do */
	int64 reserved; /* the only subscription that it is for; 0: it is for all */
	int64 serves;	/* the subscription that it delivers for just now; 0: none */
} WorkerEntry;

typedef struct WorkerHold
{
	Oid dboid; /* InvalidOid: free */
	pid_t pid; /* who holds */
} WorkerHold;

#define MAX_HOLDS 64
#define MAX_POKES 64

typedef struct WorkerShared
{
	LWLock *lock;
	pid_t launcher_pid;
	Latch *launcher_latch; /* NULL while there is no launcher */
	bool poke_list;		   /* databases were made or changed: read pg_database again */
	bool poke_all;		   /* more pokes than fit: look at every database */
	int npokes;
	Oid pokes[MAX_POKES];
	WorkerHold holds[MAX_HOLDS];
	int nentries; /* max_worker_processes */
	WorkerEntry entries[FLEXIBLE_ARRAY_MEMBER];
} WorkerShared;

/* Passed to a process in bgw_extra. */
typedef struct WorkerTicket
{
	Oid dboid;
	int place;
	uint32 generation;
} WorkerTicket;

/* NULL when the library was not preloaded. */
extern WorkerShared *worker_shared;

extern void worker_shared_install(void);

/*
 * Registers a process for a database; false when no place or no background worker
 * slot is free.  function: C name of its main function.  reserved: the subscription that a delivery
 * worker is for, else 0.  The handle is palloc'd in the current
 * context; the process notifies the caller's latch of its start and end.
 */
extern bool worker_register(WorkerKind kind, Oid dboid, const char *function, const char *name,
							int64 reserved, WorkerTicket *ticket, BackgroundWorkerHandle **handle);

/* Gives the entry of a process that never came back; false when it did come. */
extern bool worker_unclaim(const WorkerTicket *ticket);

/* In the new process: takes over its entry, and frees it at exit.  False: go away at once. */
extern bool worker_attach(void);
extern void worker_set_serving(void);
extern void worker_set_outcome(WorkerOutcome outcome);

/* Of the processes of a kind in a database: how many there are; wakes them. */
extern int worker_count(WorkerKind kind, Oid dboid);
extern void worker_wake(WorkerKind kind, Oid dboid);

/* The chores of this database: asked for by its worker, taken by one of maintenance. */
extern void worker_want_chores(void);
extern bool worker_take_chores(Oid dboid);

/*
 * News of events that were committed.  worker_tell_news() is for whoever has committed them;
 * worker_take_news() is the database worker's, and so is worker_set_subscribed(), which says
 * whether anybody is to tell.
 */
extern void worker_tell_news(void);
extern bool worker_has_news(void);
extern void worker_take_news(void);
extern void worker_set_subscribed(bool subscribed);

/*
 * Delivery workers of a database (shared_delivery.c).  Subscriptions are ids, ascending.
 *
 * worker_claim_subscription(): the next in turn of those that nobody serves, or the only one that
 * the caller is for; 0 when there is none.  worker_release_subscription() at its end.
 *
 * worker_wake_delivery() wakes as many as can do something about what is due, and returns how many
 * more might.  worker_count_delivery(): those for this subscription, or with 0 those for all.
 */
extern int64 worker_claim_subscription(const int64 *ids, int n);
extern void worker_release_subscription(void);
extern void worker_set_idle(void);
extern int64 worker_reserved(void);
extern int worker_wake_delivery(Oid dboid, const int64 *due, int n);
extern int worker_count_delivery(Oid dboid, int64 reserved);

/* For shared_delivery.c: the entry of this process; is there, or will there be, such a process? */
extern WorkerEntry *worker_entry(void);
extern bool worker_is_live(const WorkerEntry *entry);

/* Asks the launcher to look at a database again; InvalidOid: to read the list of databases. */
extern void worker_poke(Oid dboid);

/*
 * Keeps workers out of a database: stops those there and waits until they have gone,
 * at most some seconds.  worker_release_holds() lets them in again.
 */
extern void worker_hold(Oid dboid);
extern void worker_release_holds(void);
extern bool worker_held(Oid dboid);

#endif

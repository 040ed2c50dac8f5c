/*
 * delivery_worker.c
 *		The delivery worker: calls the handlers of subscriptions.
 *
 * The database's worker wakes it, or starts it, when events were routed or something else is due.
 * It takes the next subscription in turn that nobody serves, delivers for it in steps that each
 * commit, for SLICE_MS or until it has nothing more, and goes on to the next: one that has much to
 * deliver does not hold up the others for longer than a slice, or than one call of its handler.  A
 * worker that is reserved for a subscription serves that one only; the others leave it to him.
 *
 * A process start costs some ten milliseconds, and a new process has to fill its caches as well. So
 * a worker lingers for a minute: a stream with an event a minute or more never pays that, and one
 * with less loses nothing that anybody would notice, while the slot of an idle worker goes back to
 * the server soon.  Reserved ones stay.  Idle, it holds nothing.
 *
 * What a handler raises is delivery_step()'s business.  An error that comes out of it is one of
 * ours, or of the server: it is logged, and that subscription rests, longer each time; the others
 * go on.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lock.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "core/compat.h"
#include "core/guc.h"
#include "core/transaction.h"
#include "route/delivery.h"
#include "route/subscription_reserve.h"
#include "worker/delivery_worker.h"
#include "worker/worker.h"

#define SLICE_MS			 100
#define TURN_MS				 1000  /* so that DROP EXTENSION need not wait for long */
#define LINGER_MS			 60000 /* without work before it leaves */
#define RESERVED_LOOK_MS	 10000 /* of a reserved one, whether it still is */
#define HELD_UP_MS			 1000  /* until it looks again at what others hold up */
#define SHORTEST_WAIT_MS	 10
#define FAILED_PAUSE_MS		 1000 /* doubled with each failure in a row */
#define FAILED_PAUSE_LAST_MS 60000

/* A subscription whose step raised an error. */
typedef struct Failure
{
	int64 subscription_id; /* hash key */
	int failures;		   /* in a row */
	TimestampTz not_before;
} Failure;

typedef struct Turn
{
	bool worked;		  /* something was delivered */
	bool held_up;		  /* something is due, but not for us, or not now */
	bool unwanted;		  /* it is to leave */
	TimestampTz next_due; /* of what is not due now */
} Turn;

static HTAB *failures = NULL;

static void
note_failure(int64 id)
{
	Failure *failure;
	bool found;

	if (failures == NULL)
	{
		HASHCTL ctl = {0};

		ctl.keysize = sizeof(int64);
		ctl.entrysize = sizeof(Failure);
		ctl.hcxt = TopMemoryContext;
		failures = hash_create("behavior subscriptions that failed", 16, &ctl,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	failure = hash_search(failures, &id, HASH_ENTER, &found);
	if (!found)
		failure->failures = 0;
	failure->not_before = TimestampTzPlusMilliseconds(
		GetCurrentTimestamp(),
		Min(FAILED_PAUSE_MS << Min(failure->failures, 6), FAILED_PAUSE_LAST_MS));
	failure->failures++;
}

static void
forget_failure(int64 id)
{
	if (failures != NULL)
		(void) hash_search(failures, &id, HASH_REMOVE, NULL);
}

static bool
is_resting(int64 id, TimestampTz now)
{
	Failure *failure = failures != NULL ? hash_search(failures, &id, HASH_FIND, NULL) : NULL;

	return failure != NULL && failure->not_before > now;
}

/*
 * Delivers for one subscription until its slice is over or there is nothing more.  False when an
 * error was raised, and the turn has to end.
 */
static bool
serve(int64 id, Turn *turn)
{
	MemoryContext context = CurrentMemoryContext;
	TimestampTz start = GetCurrentTimestamp();
	volatile DeliveryResult result = DELIVERY_MORE;
	volatile bool failed = false;

	pgstat_report_activity(STATE_RUNNING,
						   psprintf("delivering to subscription %lld", (long long) id));
	do
	{
		CHECK_FOR_INTERRUPTS();
		PG_TRY();
		{
			TimestampTz next_due;

			start_transaction();
			result = delivery_step(id, false, &next_due);
			finish_transaction();
			turn->next_due = Min(turn->next_due, next_due);
		}
		PG_CATCH();
		{
			(void) process_abandon_job(context);
			failed = true;
		}
		PG_END_TRY();
		MemoryContextSwitchTo(context);
		turn->worked |= !failed && result == DELIVERY_MORE;
		turn->held_up |= !failed && result == DELIVERY_BUSY;
	} while (!failed && result == DELIVERY_MORE &&
			 !TimestampDifferenceExceeds(start, GetCurrentTimestamp(), SLICE_MS));

	/* Advisory locks that a handler took for the session: its session is over. */
	LockReleaseAll(USER_LOCKMETHOD, true);

	if (failed)
		note_failure(id);
	else
		forget_failure(id);
	return !failed;
}

/* Is it one too many, by the settings and what is reserved as they are now? */
static bool
is_unwanted(const List *reserved)
{
	int64 mine = worker_reserved();
	int kept = delivery_workers_reserved(reserved);
	ListCell *cell;

	if (mine == 0)
		return worker_count_delivery(MyDatabaseId, 0) > behavior_delivery_workers - kept;
	foreach (cell, reserved)
	{
		if (kept-- > 0 && *(int64 *) lfirst(cell) == mine)
			return false;
	}
	return true;
}

static int
compare_ids(const void *a, const void *b)
{
	int64 x = *(const int64 *) a;
	int64 y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

/* Delivers what is due, in turn, until its time is over. */
static void
delivery_turn(void *arg)
{
	Turn *turn = arg;
	MemoryContext context = CurrentMemoryContext;
	TimestampTz start = GetCurrentTimestamp();
	List *due;
	List *reserved;
	ListCell *cell;
	int64 *ids;
	int n = 0;

	start_transaction();
	MemoryContextSwitchTo(context);
	due = delivery_due(&turn->next_due);
	reserved = subscription_reserved();
	finish_transaction();
	MemoryContextSwitchTo(context);
	turn->unwanted = is_unwanted(reserved);
	if (turn->unwanted)
		return;

	ids = palloc(sizeof(int64) * Max(list_length(due), 1));
	foreach (cell, due)
	{
		int64 id = *(int64 *) lfirst(cell);

		if (is_resting(id, start))
			turn->held_up = true;
		else
			ids[n++] = id;
	}
	qsort(ids, n, sizeof(int64), compare_ids);

	for (int i = 0; i < n && !TimestampDifferenceExceeds(start, GetCurrentTimestamp(), TURN_MS);
		 i++)
	{
		int64 id = worker_claim_subscription(ids, n);
		bool served;

		if (id == 0)
			break; /* others have them all */
		served = serve(id, turn);
		worker_release_subscription();
		if (!served)
		{
			turn->held_up = true;
			break;
		}
	}
}

/* How long to wait for something to do, in ms. */
static long
waiting_time(const Turn *turn, TimestampTz until)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz wake = Min(turn->next_due, until);

	if (turn->held_up)
		wake = Min(wake, TimestampTzPlusMilliseconds(now, HELD_UP_MS));
	return Max(TimestampDifferenceMilliseconds(now, wake) + 1, SHORTEST_WAIT_MS);
}

void
behavior_delivery_main(Datum arg)
{
	TimestampTz last_work;

	process_start(DatumGetObjectId(arg), DELIVERY_TYPE);
	worker_set_serving();
	last_work = GetCurrentTimestamp();

	for (;;)
	{
		Turn turn = {0};
		TurnResult result;
		TimestampTz leave;
		long wait = 0;

		turn.next_due = PG_INT64_MAX;
		result = process_turn(delivery_turn, &turn, "looking for events to deliver");
		if (result == TURN_GONE || turn.unwanted || behavior_delivery_workers == 0)
			process_leave(OUTCOME_STOPPED);
		worker_release_subscription();

		if (turn.worked)
			last_work = GetCurrentTimestamp();
		leave = TimestampTzPlusMilliseconds(last_work, LINGER_MS);
		if (!turn.worked)
		{
			if (worker_reserved() == 0 && GetCurrentTimestamp() >= leave)
				process_leave(OUTCOME_STOPPED);
			if (worker_reserved() != 0)
				leave = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RESERVED_LOOK_MS);
			worker_set_idle();
			wait = result == TURN_DONE ? waiting_time(&turn, leave) : FAILED_PAUSE_MS;
		}
		if (!process_wait(wait))
			process_leave(OUTCOME_STOPPED);
	}
}

/*
 * worker.c
 *		The worker of a database: numbers, routes and folds, and sees that the rest is done.
 *
 * The beat: a tick is due at every multiple of behavior.tick_interval of the
 * clock; one that comes late is skipped, not queued.  In between the worker looks
 * once a second whether more than behavior.tick_events wait, and at once when what it did took
 * longer than that: while it lags it does not pause.  All else runs in
 * maintenance and delivery workers, which it starts when there is work and which leave by
 * themselves: nothing they do can hold up the beat.
 *
 * Where there are subscriptions, who commits events pokes the worker (worker_tell_news()), and it
 * cuts a tick and routes at once.  Projections are folded at the beat as ever, or when the
 * events of such ticks amount to behavior.tick_events.  Each tick leaves rows behind for ever, so
 * there are at most ten a second for some seconds, and four when it goes on like that.
 *
 * An error of routing is not one of folding or delivering: the router rests, longer each time, and
 * the others go on.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/guc.h"
#include "core/lock.h"
#include "core/spi.h"
#include "core/transaction.h"
#include "fold/projection.h"
#include "fold/tick.h"
#include "route/router.h"
#include "route/subscription.h"
#include "worker/delivery_worker.h"
#include "worker/maintenance.h"
#include "worker/worker.h"

#define LOOK_INTERVAL_MS	 1000
#define FAILED_PAUSE_MS		 1000 /* doubled with each failure in a row */
#define FAILED_PAUSE_LAST_MS 60000
#define CHORES_BUSY_MS		 (60 * 1000) /* between chores while events come in */
#define CHORES_IDLE_MS		 (3600 * 1000)
#define CUT_INTERVAL_MS		 100 /* between two ticks that are cut for subscriptions */
#define CUT_SUSTAINED_MS	 250 /* the same when it goes on */
#define CUT_BURST_MS		 10000

typedef struct Turn
{
	bool due;				   /* in: the beat */
	bool folded;			   /* out: a tick was cut or folded */
	bool work;				   /* out: there is work for maintenance */
	bool cut;				   /* out: a tick was cut */
	TimestampTz next_delivery; /* out: when a delivery is due next */
} Turn;

static int64 last_tick = -1;   /* the last one seen by this process */
static int64 unfolded = 0;	   /* about so many events of ticks it has cut and not folded */
static int route_failures = 0; /* in a row */
static TimestampTz route_not_before = 0;
static bool delivery_rests = false; /* until then as well */

/* Is there a projection that could be folded further?  Caller has a transaction. */
static bool
projections_lag(int64 tick)
{
	SecureContext secure;
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(tick)};
	bool lag;

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	lag = spi_exec(
			  "SELECT 1 FROM behavior._projection"
			  " WHERE state <> 'backfilling' AND behavior._projection_tick_id(name) < $1 LIMIT 1",
			  SPI_OK_SELECT, true, 1, types, values, NULL) > 0;
	secure_end(&secure);
	SPI_finish();
	return lag;
}

static long
failed_pause(int failures)
{
	return Min((long) FAILED_PAUSE_MS << Min(failures, 6), FAILED_PAUSE_LAST_MS);
}

/* Routes up to a tick and sees to delivery.  False when the turn has to end. */
static bool
route(int64 tick, Turn *turn)
{
	MemoryContext context = CurrentMemoryContext;
	bool rests = GetCurrentTimestamp() < route_not_before;
	volatile bool routed = true;
	volatile bool failed = false;

	if (rests && delivery_rests)
		return true;
	PG_TRY();
	{
		if (!rests)
			routed = route_all(tick, true, false);
		MemoryContextSwitchTo(context);
		delivery_workers_wake(&turn->next_delivery);
	}
	PG_CATCH();
	{
		(void) process_abandon_job(context);
		failed = true;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);

	delivery_rests = failed;
	if (failed || !routed)
		route_not_before =
			TimestampTzPlusMilliseconds(GetCurrentTimestamp(), failed_pause(route_failures++));
	else if (!rests)
		route_failures = 0;
	return !failed;
}

static void
worker_turn(void *arg)
{
	Turn *turn = arg;
	int64 waiting;
	int64 tick;
	bool subscribed;
	bool lag = false;

	worker_take_news();
	start_transaction();
	subscribed = subscription_any();
	waiting = tick_waiting(behavior_tick_events);
	tick = tick_last(GetActiveSnapshot());
	if (turn->due || tick != last_tick)
		lag = projections_lag(tick);
	turn->work = maintenance_pending();
	finish_transaction();
	worker_set_subscribed(subscribed);

	if (waiting >= behavior_tick_events || ((turn->due || subscribed) && waiting > 0))
	{
		int64 cut;

		/*
		 * At first use, and never before there are events: a restore would bring the same rows.
		 * Under the tick lock, or two would adopt the same rollup; where somebody has it, we are
		 * not to number either.
		 */
		start_transaction();
		if (behavior_lock_conditional(behavior_relid(REL_TICK), 0, ExclusiveLock))
		{
			session_prepare();
			rollup_adopt();
		}
		finish_transaction();

		start_transaction();
		cut = tick_cut(false);
		finish_transaction();
		if (cut > tick)
		{
			start_transaction();
			tick_summarize();
			finish_transaction();
			tick = cut;
			turn->cut = true;
			unfolded += waiting;
			lag |= turn->due || unfolded >= behavior_tick_events;
		}
	}
	if (subscribed && !route(tick, turn))
		return;
	if (lag)
	{
		projection_fold_all(tick, true, false);
		turn->folded = true;
		unfolded = 0;
	}
	last_tick = tick;
}

/* The next multiple of the interval after "now". */
static TimestampTz
next_beat(TimestampTz now)
{
	int64 interval = (int64) behavior_tick_interval * 1000;

	return (now / interval + 1) * interval;
}

/* Starts a maintenance worker as far as allowed. */
static void
start_maintenance(void)
{
	static WorkerStart start = {WORKER_MAINTENANCE, "behavior_maintenance_main", MAINTENANCE_TYPE,
								"a maintenance worker",
								"no view is refreshed and no projection built"};

	if (worker_start_ready(&start) &&
		worker_count(WORKER_MAINTENANCE, MyDatabaseId) < behavior_maintenance_workers)
		worker_start(&start, 0);
}

/* When the next tick may be cut for subscriptions, one having been cut now. */
static TimestampTz
next_cut_time(TimestampTz now)
{
	static TimestampTz paid = 0; /* with a tick every CUT_SUSTAINED_MS the last was due then */

	paid = TimestampTzPlusMilliseconds(Max(paid, now), CUT_SUSTAINED_MS);
	return Max(TimestampTzPlusMilliseconds(now, CUT_INTERVAL_MS),
			   TimestampTzPlusMilliseconds(paid, -CUT_BURST_MS));
}

void
behavior_worker_main(Datum arg)
{
	TimestampTz beat = 0; /* the first turn is one */
	TimestampTz next_cut = 0;
	TimestampTz resting = 0; /* until then, after a failure */
	TimestampTz next_chores = 0;
	int64 chores_tick = -1;
	int failures = 0;
	bool first = true;

	process_start(DatumGetObjectId(arg), WORKER_TYPE);

	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz next_look = TimestampTzPlusMilliseconds(now, LOOK_INTERVAL_MS);
		TimestampTz not_before = resting;
		bool news = worker_has_news();
		Turn turn = {0};
		TurnResult result;
		long wait;

		/* News keep for a moment, and nobody who sends wakes us until they are taken. */
		if (news)
			not_before = Max(not_before, Min(next_cut, beat));
		if (now < not_before)
		{
			if (!process_wait(TimestampDifferenceMilliseconds(now, not_before) + 1))
				process_leave(OUTCOME_STOPPED);
			continue;
		}

		turn.due = now >= beat;
		turn.next_delivery = PG_INT64_MAX;
		result = process_turn(worker_turn, &turn, turn.due ? "ticking" : "looking for events");
		if (result == TURN_GONE)
		{
			worker_wake(WORKER_DELIVERY, MyDatabaseId);
			process_leave(OUTCOME_NO_EXTENSION);
		}
		if (first)
			worker_set_serving();
		first = false;

		now = GetCurrentTimestamp();
		if (turn.cut)
			next_cut = next_cut_time(now);
		else if (news)
			next_cut = Max(next_cut, TimestampTzPlusMilliseconds(now, CUT_INTERVAL_MS));
		if (turn.due)
			beat = next_beat(now);
		/* A shorter interval takes effect at once. */
		beat = Min(beat, next_beat(now));
		if (turn.next_delivery > now)
			next_look = Min(next_look, turn.next_delivery);
		/* 0 when it is past. */
		wait = TimestampDifferenceMilliseconds(now, Min(beat, next_look)) + 1;

		if (result == TURN_FAILED)
		{
			wait = failed_pause(failures++);
			resting = TimestampTzPlusMilliseconds(now, wait);
		}
		else if (result == TURN_DONE)
		{
			failures = 0;
			if (now >= next_chores ||
				(last_tick != chores_tick &&
				 now >= next_chores - (int64) (CHORES_IDLE_MS - CHORES_BUSY_MS) * 1000))
			{
				worker_want_chores();
				turn.work = true;
				chores_tick = last_tick;
				next_chores = TimestampTzPlusMilliseconds(now, CHORES_IDLE_MS);
			}
			if (turn.work && behavior_maintenance_workers > 0)
				start_maintenance();
			if (turn.work || turn.folded)
				worker_wake(WORKER_MAINTENANCE, MyDatabaseId);
		}

		if (!process_wait(wait))
			process_leave(OUTCOME_STOPPED);
	}
}

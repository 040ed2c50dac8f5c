/*
 * receive.c
 *		behavior.receive(): events of a subscription for a consumer that asks for them.
 *
 * Without a visibility timeout the subscription's progress moves in the caller's transaction, under
 * the subscription's lock, which the transaction keeps: a consumer whose effects are in the same
 * transaction handles each event exactly once, and what is rolled back is given out again.  Others
 * wait for the lock.
 *
 * With one, events that are given out become rows of behavior._delivery, in flight until they are
 * acknowledged (settle.c) or their time is over.  The lock is held until the caller commits as
 * well, since the place in the queue moves; consumers outside of the database commit at once.  Who
 * finds the lock taken waits for a second at most, or as long as he would wait for events.
 *
 * Everything is read with the latest snapshot under the lock, so the isolation level of the
 * caller makes no difference to which events he gets.
 *
 * One attempt is a subtransaction.  When it finds nothing and changes nothing it is rolled back, so
 * that waiting holds no lock of ours; the snapshot of the caller's statement it cannot let go.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "common/int.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "route/delivery.h"
#include "route/receive.h"

#define RECEIVE_MAX_EVENTS 10000
#define RECEIVE_SLICE	   QUEUE_CHUNK /* events in memory at a time */
#define RECEIVE_POLL	   50		   /* ms */
#define RECEIVE_LOCK_WAIT  1000		   /* ms, with a visibility timeout */

PG_FUNCTION_INFO_V1(behavior_receive);

typedef struct Receiver
{
	char *name;
	int max_events;
	bool in_flight; /* with a visibility timeout */
	int64 timeout;	/* us */
	ReturnSetInfo *result;
	int given;
	bool changed;		  /* something was written */
	bool busy;			  /* somebody else has the subscription */
	TimestampTz next_due; /* when something may come that is there already */
	/* of an attempt */
	Subscription *subscription;
	SubscriptionProgress progress;
	DeliveryItem *items;
} Receiver;

/* An interval in microseconds, a month being 30 days; raises 22023 when that is no time to wait. */
int64
receive_interval(const Interval *interval, const char *argument, bool positive)
{
	int64 days = (int64) interval->month * DAYS_PER_MONTH + interval->day;
	int64 result;

	if (INTERVAL_NOT_FINITE(interval) || pg_mul_s64_overflow(days, USECS_PER_DAY, &result) ||
		pg_add_s64_overflow(result, interval->time, &result) ||
		result > USECS_PER_DAY * DAYS_PER_YEAR * 100 || result < 0 || (positive && result == 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of %s is out of range", argument,
						DatumGetCString(
							DirectFunctionCall1(interval_out, IntervalPGetDatum(interval)))),
				 errdetail(positive ? "It must be longer than nothing, and at most 100 years."
									: "It must not be negative, and at most 100 years.")));
	return result;
}

/* Raises unless somebody may receive from the subscription. */
static void
check_receivable(const Subscription *subscription)
{
	if (subscription->handler != NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("subscription \"%s\" delivers to a handler", subscription->name),
						errdetail("Its handler is %s.", subscription->handler),
						errhint("Create a subscription without a handler to receive from.")));
	if (!OidIsValid(subscription->owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the owner of subscription \"%s\" does not exist", subscription->name),
				 errdetail("It was role \"%s\".", subscription->owner_name),
				 errhint(MISSING_OWNER_HINT)));
	if (!subscription_may_read(subscription->owner))
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("the owner of subscription \"%s\" may not read behavior.event",
					subscription->name),
			 errhint("GRANT SELECT ON behavior.event to the role that owns the subscription.")));
}

/* Puts events into the result. */
static void
give(Receiver *receiver, int n)
{
	for (int i = 0; i < n; i++)
	{
		HeapTupleHeader header =
			DatumGetHeapTupleHeader(delivery_datum(receiver->subscription, &receiver->items[i]));
		HeapTupleData tuple = {0};

		tuple.t_len = HeapTupleHeaderGetDatumLength(header);
		ItemPointerSetInvalid(&tuple.t_self);
		tuple.t_data = header;
		tuplestore_puttuple(receiver->result->setResult, &tuple);
	}
	receiver->given += n;
}

/* The items are in flight from now on. */
static void
put_in_flight(Receiver *receiver, int n)
{
	for (int i = 0; i < n; i++)
	{
		/* Nobody will come back to say so. */
		if (receiver->items[i].late && receiver->items[i].attempt == 1)
			receiver->progress.late++;
	}
	delivery_keep(receiver->subscription, &receiver->progress, receiver->items, n,
				  DELIVERY_IN_FLIGHT, GetCurrentTimestamp() + receiver->timeout);
}

/*
 * Leaves out, of n items, those that somebody is acknowledging just now, and those that have been
 * given out for the last time, which become dead letters.  Returns how many stay, at most max.
 */
static int
choose(Receiver *receiver, int n, int max, bool *busy)
{
	int kept = 0;

	*busy = false;
	for (int i = 0; i < n && kept < max; i++)
	{
		const DeliveryItem *item = &receiver->items[i];
		const DeliveryRow *row = item->own;
		const char *error;
		Reason reason;

		if (item->own_row && !delivery_row_lock(row, false))
		{
			*busy = true;
			continue;
		}
		if (item->own_row && row->attempts > 0)
		{
			error = row->state == DELIVERY_IN_FLIGHT || row->error == NULL
						? "not acknowledged within its visibility timeout"
						: row->error;
			if (row->state == DELIVERY_IN_FLIGHT)
				receive_note_failure(&receiver->progress, error);
			if (delivery_exhausted(receiver->subscription, row->attempts, row->first_attempt_at,
								   &reason))
			{
				delivery_dead_letter(receiver->subscription, &receiver->progress, item->entry.row,
									 reason, row->attempts, error);
				delivery_row_done(row);
				receiver->changed = true;
				continue;
			}
		}
		receiver->items[kept++] = *item;
	}
	return kept;
}

/* Some more events, at most a slice; false when there are no more now. */
static bool
receive_slice(Receiver *receiver)
{
	const Subscription *subscription = receiver->subscription;
	int wanted = Min(RECEIVE_SLICE, receiver->max_events - receiver->given);
	int64 dead_letters = receiver->progress.dead_letters;
	bool moved = false;
	bool busy;
	int n = delivery_take(subscription, &receiver->progress, receiver->items, wanted, &moved,
						  &receiver->next_due);

	n = choose(receiver, n, wanted, &busy);
	if (n == 0 && busy && wanted < RECEIVE_SLICE)
	{
		/* Look behind those that are being acknowledged. */
		n = delivery_take(subscription, &receiver->progress, receiver->items, RECEIVE_SLICE, &moved,
						  &receiver->next_due);
		n = choose(receiver, n, wanted, &busy);
	}
	if (n > 0)
	{
		give(receiver, n);
		if (receiver->in_flight)
			put_in_flight(receiver, n);
		else
			delivery_done(subscription, &receiver->progress, receiver->items, n);
		CommandCounterIncrement();
	}
	receiver->changed |= moved || n > 0;
	return n > 0 || receiver->progress.dead_letters > dead_letters;
}

/* Under the subscription's lock. */
static void
receive_locked(Receiver *receiver)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context =
		AllocSetContextCreate(caller, "behavior receive slice", ALLOCSET_DEFAULT_SIZES);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool more = true;

	subscription_progress_read(receiver->subscription->id, snapshot, &receiver->progress);
	UnregisterSnapshot(snapshot);
	receiver->items = palloc(sizeof(DeliveryItem) * RECEIVE_SLICE);

	while (more && receiver->given < receiver->max_events)
	{
		const char *last_error = receiver->progress.last_error;

		MemoryContextReset(context);
		MemoryContextSwitchTo(context);
		more = receive_slice(receiver);
		MemoryContextSwitchTo(caller);
		/* It outlives the slice. */
		if (receiver->progress.last_error != last_error && receiver->progress.last_error != NULL)
			receiver->progress.last_error = pstrdup(receiver->progress.last_error);
	}
	if (receiver->progress.failing_since != 0 && !receive_is_failing(receiver->subscription))
	{
		receiver->progress.failing_since = 0;
		receiver->changed = true;
	}
	if (receiver->changed)
		subscription_progress_move(receiver->subscription->id, &receiver->progress);
	MemoryContextDelete(context);
}

/* The subscription as it is now, after others have committed. */
static Subscription *
look_up(const char *name)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	Subscription *subscription = subscription_of_caller(name, snapshot);

	UnregisterSnapshot(snapshot);
	check_receivable(subscription);
	return subscription;
}

/* One attempt; the caller begins and ends the subtransaction. */
static void
try_to_receive(Receiver *receiver)
{
	Subscription *subscription = look_up(receiver->name);

	if (subscription->paused)
		return;
	if (!subscription_lock(subscription->id, !receiver->in_flight))
	{
		receiver->busy = true;
		return;
	}
	/* It may have been changed while the lock was somebody else's. */
	receiver->subscription = look_up(receiver->name);
	if (receiver->subscription->id == subscription->id && !receiver->subscription->paused)
		receive_locked(receiver);
}

/* One attempt, in a subtransaction that stays when something was changed in it. */
static void
attempt(Receiver *receiver)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *error = NULL;

	receiver->changed = receiver->busy = false;
	receiver->next_due = PG_INT64_MAX;
	/* Not try_step(): an attempt that found nothing is rolled back, which gives its locks back. */
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		try_to_receive(receiver);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();

	if (error == NULL && receiver->changed)
		ReleaseCurrentSubTransaction();
	else
		RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	if (error != NULL)
		ReThrowError(error);
}

/* Attempts until there are events or the time is over. */
static void
receive(Receiver *receiver, int64 wait)
{
	TimestampTz start = GetCurrentTimestamp();
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context =
		AllocSetContextCreate(caller, "behavior receive", ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		TimestampTz now;
		TimestampTz until;

		MemoryContextReset(context);
		MemoryContextSwitchTo(context);
		attempt(receiver);
		MemoryContextSwitchTo(caller);
		if (receiver->given > 0)
			break;

		now = GetCurrentTimestamp();
		until = start + (receiver->busy ? Max(wait, RECEIVE_LOCK_WAIT * INT64CONST(1000)) : wait);
		if (now >= until)
			break;
		until = Min(until, now + RECEIVE_POLL * INT64CONST(1000));
		if (receiver->next_due > now)
			until = Min(until, receiver->next_due);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 TimestampDifferenceMilliseconds(now, until) + 1, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextDelete(context);
}

/*
 * behavior.receive(subscription text, max_events int, visibility_timeout interval, wait interval)
 * returns setof behavior.delivery
 */
Datum
behavior_receive(PG_FUNCTION_ARGS)
{
	Receiver receiver = {0};
	int64 wait;

	PreventCommandDuringRecovery("behavior.receive()");
	PreventCommandIfReadOnly("behavior.receive()");
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(3))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("subscription, max_events and wait must not be NULL")));
	receiver.name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	receiver.max_events = PG_GETARG_INT32(1);
	if (receiver.max_events < 1 || receiver.max_events > RECEIVE_MAX_EVENTS)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("max_events of %d is out of range", receiver.max_events),
						errdetail("It must be from 1 to %d.", RECEIVE_MAX_EVENTS)));
	receiver.in_flight = !PG_ARGISNULL(2);
	if (receiver.in_flight)
		receiver.timeout = receive_interval(PG_GETARG_INTERVAL_P(2), "visibility_timeout", true);
	wait = receive_interval(PG_GETARG_INTERVAL_P(3), "wait", false);

	InitMaterializedSRF(fcinfo, 0);
	receiver.result = (ReturnSetInfo *) fcinfo->resultinfo;
	receive(&receiver, wait);
	return (Datum) 0;
}

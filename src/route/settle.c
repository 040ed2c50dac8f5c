/*
 * settle.c
 *		behavior.ack() and behavior.nack(): what became of events that were received.
 *
 * A delivery keeps its id over all attempts.  Whoever says that he has handled an event has: an
 * acknowledgement counts also when its time is over, or somebody else has received the event since;
 * with "attempts" only as long as that attempt is the last one.
 *
 * ack() takes no lock but those of the rows that it deletes, in the order of their ids, and waits
 * for others who settle the same.  So acknowledging may stand in the transaction that holds the
 * effects, however long that takes, and receivers pass it by.  An ordered subscription's lock it
 * takes, since it has to find the event that waits behind the one acknowledged.  nack() counts a
 * failure, in the subscription's progress under its lock; a row that somebody is acknowledging just
 * now it leaves alone.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/spi.h"
#include "route/delivery.h"
#include "route/receive.h"

PG_FUNCTION_INFO_V1(behavior_ack);
PG_FUNCTION_INFO_V1(behavior_nack);

typedef struct Settled
{
	int64 delivery_id;
	int attempt; /* 0: any */
	int64 subscription_id;
} Settled;

/* One call of ack() or nack(). */
typedef struct Settling
{
	bool ack;
	Settled *settled;
	int n;
	int64 delay; /* us, of nack */
	const char *error;
	Subscription *subscription;	   /* the last one looked at, which the caller may act for */
	SubscriptionProgress progress; /* its, for nack */
} Settling;

void
receive_note_failure(SubscriptionProgress *progress, const char *error)
{
	progress->failed++;
	if (progress->failing_since == 0)
		progress->failing_since = GetCurrentTimestamp();
	progress->last_error = error != NULL ? pstrdup(error) : NULL;
}

bool
receive_is_failing(const Subscription *subscription)
{
	Oid type = INT8OID;
	Datum value = Int64GetDatum(subscription->id);
	SecureContext secure;
	bool failing;

	secure_begin(&secure, behavior_owner());
	SPI_connect();
	failing =
		spi_exec(
			"SELECT FROM behavior._delivery WHERE subscription_id = $1 AND (state = 'r' AND attempts > 0 "
			"OR state = 'f' AND (attempts > 1 OR due_at <= pg_catalog.clock_timestamp())) LIMIT 1",
			SPI_OK_SELECT, false, 1, &type, &value, NULL) > 0;
	SPI_finish();
	secure_end(&secure);
	return failing;
}

static int
compare_ids(const void *a, const void *b)
{
	const Settled *left = a;
	const Settled *right = b;

	if (left->delivery_id != right->delivery_id)
		return left->delivery_id < right->delivery_id ? -1 : 1;
	return (left->attempt > right->attempt) - (left->attempt < right->attempt);
}

static int
compare_subscriptions(const void *a, const void *b)
{
	const Settled *left = a;
	const Settled *right = b;

	if (left->subscription_id != right->subscription_id)
		return left->subscription_id < right->subscription_id ? -1 : 1;
	return compare_ids(a, b);
}

/* The arguments delivery_ids and attempts, sorted by id, each pair once. */
static void
read_arguments(Settling *settling, ArrayType *ids, ArrayType *attempts)
{
	Datum *id;
	Datum *attempt = NULL;
	int nids;
	int nattempts = 0;
	int kept = 0;

	if (array_contains_nulls(ids) || (attempts != NULL && array_contains_nulls(attempts)))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("delivery_ids and attempts must not contain NULL")));
	deconstruct_array(ids, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &id, NULL,
					  &nids);
	if (attempts != NULL)
	{
		deconstruct_array(attempts, INT4OID, sizeof(int32), true, TYPALIGN_INT, &attempt, NULL,
						  &nattempts);
		if (nattempts != nids)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("%d attempts for %d delivery_ids", nattempts, nids),
							errdetail("attempts holds one number for each id, or is NULL.")));
	}

	settling->settled = palloc0(sizeof(Settled) * Max(nids, 1));
	for (int i = 0; i < nids; i++)
	{
		settling->settled[i].delivery_id = DatumGetInt64(id[i]);
		settling->settled[i].attempt = attempt != NULL ? DatumGetInt32(attempt[i]) : 0;
	}
	qsort(settling->settled, nids, sizeof(Settled), compare_ids);
	for (int i = 0; i < nids; i++)
		if (kept == 0 || compare_ids(&settling->settled[kept - 1], &settling->settled[i]) != 0)
			settling->settled[kept++] = settling->settled[i];
	settling->n = kept;
}

/* Looks at the subscription of a row; false when it is being dropped, raises 42501 when it is not
 * the caller's. */
static bool
look_at_subscription(Settling *settling, int64 id)
{
	Snapshot snapshot;
	Subscription *subscription;

	if (settling->subscription != NULL && settling->subscription->id == id)
		return true;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	subscription = subscription_get(id, snapshot);
	if (subscription != NULL)
		settling->subscription = subscription_of_caller(subscription->name, snapshot);
	UnregisterSnapshot(snapshot);
	return subscription != NULL;
}

/* Does what the consumer says hold for the row as it is now? */
static bool
applies(const Settling *settling, const Settled *settled, const DeliveryRow *row)
{
	if (row->subscription_id != settled->subscription_id)
		return false;
	if (settled->attempt != 0 && settled->attempt != row->attempts)
		return false;
	/* Not before it has been received: an event that was redriven waits to be. */
	if (settling->ack && row->state == DELIVERY_RETRY)
		return row->attempts > 0 && settling->subscription->handler == NULL;
	return row->state == DELIVERY_IN_FLIGHT;
}

/* Acknowledges one; false when there is nothing to acknowledge. */
static bool
acknowledge(Settling *settling, const Settled *settled)
{
	DeliveryRow row;

	do
	{
		CHECK_FOR_INTERRUPTS();
		if (!delivery_row_find(settled->delivery_id, &row) || !applies(settling, settled, &row))
			return false;
	} while (!delivery_row_lock(&row, true));

	if (settling->subscription->ordered)
		delivery_row_done(&row);
	else
	{
		delivery_row_delete(&row);
		CommandCounterIncrement();
	}
	return true;
}

/* Puts back one. */
static bool
put_back(Settling *settling, const Settled *settled)
{
	TimestampTz now = GetCurrentTimestamp();
	DeliveryRow row;
	Reason reason;

	if (!delivery_row_find(settled->delivery_id, &row) || !applies(settling, settled, &row) ||
		!delivery_row_lock(&row, false))
		return false;

	receive_note_failure(&settling->progress, settling->error);
	if (delivery_exhausted(settling->subscription, row.attempts, row.first_attempt_at, &reason))
	{
		QueueEntry entry = {0};
		Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());

		entry.ref = row.ref;
		queue_fetch(&entry, 1, snapshot);
		UnregisterSnapshot(snapshot);
		if (entry.row != NULL)
			delivery_dead_letter(settling->subscription, &settling->progress, entry.row, reason,
								 row.attempts, settling->error);
		delivery_row_done(&row);
	}
	else
	{
		row.state = DELIVERY_RETRY;
		row.due_at = now + settling->delay;
		row.error = settling->error;
		delivery_row_update(&row);
	}
	return true;
}

/* Settles those of one subscription, which begin at "first"; returns how many. */
static int64
settle_subscription(Settling *settling, int first)
{
	int64 id = settling->settled[first].subscription_id;
	bool locked = false;
	int64 count = 0;

	if (!look_at_subscription(settling, id))
		return 0;
	if (!settling->ack || settling->subscription->ordered)
	{
		(void) subscription_lock(id, true);
		locked = true;
		/* It may be another one now, or none. */
		settling->subscription = NULL;
		if (!look_at_subscription(settling, id))
			return 0;
	}
	if (!settling->ack)
	{
		Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());

		subscription_progress_read(id, snapshot, &settling->progress);
		UnregisterSnapshot(snapshot);
	}
	for (int i = first; i < settling->n && settling->settled[i].subscription_id == id; i++)
		count += settling->ack ? acknowledge(settling, &settling->settled[i])
							   : put_back(settling, &settling->settled[i]);
	if (count == 0 && locked)
		subscription_unlock(id);
	else if (!settling->ack)
		subscription_progress_move(id, &settling->progress);
	return count;
}

/* Settles all: by subscription, whose locks so are taken in one order, and by id. */
static int64
settle(Settling *settling)
{
	int64 count = 0;
	int kept = 0;

	for (int i = 0; i < settling->n; i++)
	{
		DeliveryRow row;

		if (!delivery_row_find(settling->settled[i].delivery_id, &row))
			continue;
		settling->settled[kept] = settling->settled[i];
		settling->settled[kept++].subscription_id = row.subscription_id;
	}
	settling->n = kept;
	qsort(settling->settled, kept, sizeof(Settled), compare_subscriptions);
	for (int i = 0; i < kept; i++)
	{
		if (i == 0 ||
			settling->settled[i].subscription_id != settling->settled[i - 1].subscription_id)
			count += settle_subscription(settling, i);
	}
	return count;
}

/* What ack() and nack() have in common; false when there is nothing to do. */
static bool
settle_begin(FunctionCallInfo fcinfo, const char *function, int attempts, Settling *settling)
{
	PreventCommandDuringRecovery(function);
	PreventCommandIfReadOnly(function);
	if (PG_ARGISNULL(0))
		return false;
	read_arguments(settling, PG_GETARG_ARRAYTYPE_P(0),
				   PG_ARGISNULL(attempts) ? NULL : PG_GETARG_ARRAYTYPE_P(attempts));
	return settling->n > 0;
}

/*
 * behavior.ack(delivery_ids bigint[], attempts int[]) returns bigint
 */
Datum
behavior_ack(PG_FUNCTION_ARGS)
{
	Settling settling = {0};

	settling.ack = true;
	if (!settle_begin(fcinfo, "behavior.ack()", 1, &settling))
		PG_RETURN_INT64(0);
	PG_RETURN_INT64(settle(&settling));
}

/*
 * behavior.nack(delivery_ids bigint[], delay interval, attempts int[], error text) returns bigint
 */
Datum
behavior_nack(PG_FUNCTION_ARGS)
{
	Settling settling = {0};

	if (PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("delay must not be NULL")));
	settling.delay = receive_interval(PG_GETARG_INTERVAL_P(1), "delay", false);
	settling.error = PG_ARGISNULL(3) ? "not acknowledged" : text_to_cstring(PG_GETARG_TEXT_PP(3));
	if (!settle_begin(fcinfo, "behavior.nack()", 2, &settling))
		PG_RETURN_INT64(0);
	PG_RETURN_INT64(settle(&settling));
}

/*
 * delivery.c
 *		A step of a push subscription; all of them, for tick(); and which have work.
 *
 * A step is one transaction: under the subscription's lock it takes the next events, calls the
 * handler in a subtransaction, and moves the progress, so effects and progress are committed
 * together.  When the handler fails its effects are undone and the failure is what is committed.
 *
 * Two kinds of failure are told apart.  A handler that raises or hangs may do so because of an
 * event: the batch is halved and single events are tried again (delivery_retry.c).  A subscription
 * that cannot work at all (its owner or handler is gone, or lacks a privilege) has not tried
 * any event: it rests, as long again as it has been failing, between a second and five minutes, and
 * goes on where it was.  failures is 0 then: that is how the two kinds of rest are told apart.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/spi.h"
#include "core/transaction.h"
#include "fold/projection.h"
#include "route/delivery_internal.h"

#define KNOWN_FROM		  100 /* events consumed: see Known */
#define BROKEN_REST_LEAST USECS_PER_SEC
#define BROKEN_REST_MOST  (5 * USECS_PER_MINUTE)

bool delivery_own_transactions = false;

/* Does it rest because it cannot work, and not because of its events? */
static bool
rests_broken(const SubscriptionProgress *progress, TimestampTz now)
{
	return progress->resume_at > now && progress->failures == 0;
}

/* Are there enough events in the queue, or have they waited long enough? */
static bool
window_is_over(const Subscription *subscription, const SubscriptionProgress *progress,
			   TimestampTz now, TimestampTz *next_due)
{
	TimestampTz oldest = now;
	Snapshot snapshot;
	int64 waiting;

	if (subscription->batch_window == 0 || subscription->ordered || progress->replaying ||
		progress->poison > 0)
		return true;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	waiting =
		queue_waiting(subscription->id, progress, snapshot, subscription->batch_size, &oldest);
	UnregisterSnapshot(snapshot);
	if (waiting == 0 || waiting >= subscription->batch_size ||
		now - oldest >= subscription->batch_window)
		return true;
	*next_due = Min(*next_due, oldest + subscription->batch_window);
	return false;
}

/* The events of this step: an event to be tried again, alone, or a batch of the queue. */
static int
take(const Subscription *subscription, SubscriptionProgress *progress, bool wait,
	 DeliveryItem **items, bool *moved, TimestampTz *next_due)
{
	TimestampTz now = GetCurrentTimestamp();
	int max = progress->poison > 0 ? Min((progress->poison + 1) / 2, subscription->batch_size)
								   : subscription->batch_size;
	int n;

	if (rests_broken(progress, now) && !wait)
	{
		*next_due = progress->resume_at;
		return 0;
	}
	*items = palloc(sizeof(DeliveryItem) * max);
	n = delivery_take_due(subscription, progress, *items, 1, moved, next_due);
	if (n > 0 || *moved)
		return n;
	if (progress->resume_at > now && !rests_broken(progress, now))
	{
		*next_due = Min(*next_due, progress->resume_at);
		return 0;
	}
	if (!window_is_over(subscription, progress, now, next_due))
		return 0;
	return delivery_take_new(subscription, progress, *items, max, moved, next_due);
}

/* Nothing can be delivered until somebody mends it. */
static void
note_broken(const Subscription *subscription, SubscriptionProgress *progress, const char *error)
{
	TimestampTz now = GetCurrentTimestamp();

	delivery_note_failure(subscription, progress, error);
	progress->failures = 0;
	progress->resume_at =
		now + Min(Max(now - progress->failing_since, BROKEN_REST_LEAST), BROKEN_REST_MOST);
}

/* A step under the lock, of a subscription that is to be delivered. */
static DeliveryResult
step(const Subscription *subscription, SubscriptionProgress *progress, bool wait, bool *wrote,
	 TimestampTz *next_due)
{
	TimestampTz watermark = progress->watermark;
	DeliveryItem *items;
	DeliveryResult result = DELIVERY_MORE;
	bool moved = false;
	char *error = NULL;
	int n = take(subscription, progress, wait, &items, &moved, next_due);
	/* Of what the queue has, or has had: poison counts those. */
	bool in_line = n > 0 && (!items[0].own_row || items[0].own->state == DELIVERY_HELD);

	*wrote = n > 0 || moved;
	if (!*wrote)
		return DELIVERY_IDLE;
	if (n > 0)
	{
		switch (delivery_call(subscription, progress, items, n, &error))
		{
			case CALL_DONE:
				if (in_line)
					progress->poison = Max(progress->poison - n, 0);
				delivery_done(subscription, progress, items, n);
				break;
			case CALL_GONE:
				return DELIVERY_MORE;
			case CALL_FAILED:
				if (n == 1)
				{
					delivery_failed(subscription, progress, &items[0], error);
					if (in_line)
						progress->poison = 0;
				}
				else
				{
					delivery_note_failure(subscription, progress, error);
					progress->poison = n;
					progress->watermark = watermark;
				}
				break;
			case CALL_BROKEN:
				note_broken(subscription, progress, error);
				progress->watermark = watermark;
				*next_due = progress->resume_at;
				result = DELIVERY_IDLE;
				break;
		}
	}
	subscription_progress_move(subscription->id, progress);
	return result;
}

DeliveryResult
delivery_step(int64 subscription_id, bool wait, TimestampTz *next_due)
{
	MemoryContext context;
	MemoryContext old_context;
	Snapshot snapshot;
	Subscription *subscription;
	SubscriptionProgress progress;
	DeliveryResult result = DELIVERY_IDLE;
	bool wrote = false;

	delivery_forbid_in_handler("delivery");
	*next_due = PG_INT64_MAX;
	if (!subscription_lock(subscription_id, wait))
		return DELIVERY_BUSY;

	context =
		AllocSetContextCreate(CurrentMemoryContext, "behavior delivery", ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(context);
	/* Under the lock, and not before: what others have delivered until now is seen. */
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	snapshot = GetActiveSnapshot();
	subscription = subscription_get(subscription_id, snapshot);
	if (subscription != NULL && subscription->handler != NULL && !subscription->paused)
	{
		subscription_progress_read(subscription_id, snapshot, &progress);
		result = step(subscription, &progress, wait, &wrote, next_due);
	}
	PopActiveSnapshot();
	if (!wrote)
		subscription_unlock(subscription_id);
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
	return result;
}

/* A step in a subtransaction; what it raises is a WARNING. */
static DeliveryResult
step_guarded(int64 subscription_id)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;
	volatile DeliveryResult result = DELIVERY_IDLE;
	TimestampTz next_due;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		result = delivery_step(subscription_id, true, &next_due);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;

	if (error == NULL)
		return result;
	if (projection_error_ends_statement(error->sqlerrcode))
		ReThrowError(error);
	ereport(WARNING, (errcode(error->sqlerrcode),
					  errmsg("subscription %lld could not be delivered: %s",
							 (long long) subscription_id, error->message),
					  error->detail ? errdetail("%s", error->detail) : 0,
					  error->context ? errcontext("%s", error->context) : 0));
	FreeErrorData(error);
	return DELIVERY_IDLE;
}

/* Adds to a list of ids, ascending, those that are not in it. */
static List *
add_ids(List *ids, List *more)
{
	List *result = NIL;
	ListCell *a = list_head(ids);
	ListCell *b = list_head(more);

	while (a != NULL || b != NULL)
	{
		int64 *first = a != NULL ? lfirst(a) : NULL;
		int64 *second = b != NULL ? lfirst(b) : NULL;

		result = lappend(result,
						 second == NULL || (first != NULL && *first <= *second) ? first : second);
		if (first != NULL && *first == *(int64 *) llast(result))
			a = lnext(ids, a);
		if (second != NULL && *second == *(int64 *) llast(result))
			b = lnext(more, b);
	}
	return result;
}

/*
 * Subscriptions between two ids that have something queued, ascending: one look into the index for
 * each.  It walks over all that was consumed and that an old snapshot holds back.
 */
static List *
with_queue(int64 after, int64 before, Snapshot snapshot)
{
	Relation rel = table_open(behavior_relid(REL_DELIVERY_CHUNK), AccessShareLock);
	Relation index = index_open(behavior_relid(REL_DELIVERY_CHUNK_PKEY), AccessShareLock);
	List *ids = NIL;

	for (;;)
	{
		ScanKeyData keys[2];
		SysScanDesc scan;
		HeapTuple tuple;
		int64 *id = NULL;

		ScanKeyInit(&keys[0], 1, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(after));
		ScanKeyInit(&keys[1], 1, BTLessStrategyNumber, F_INT8LT, Int64GetDatum(before));
		scan = systable_beginscan_ordered(rel, index, snapshot, 2, keys);
		tuple = systable_getnext_ordered(scan, ForwardScanDirection);
		if (HeapTupleIsValid(tuple))
		{
			bool isnull;

			id = palloc(sizeof(int64));
			*id = after = DatumGetInt64(heap_getattr(tuple, 1, RelationGetDescr(rel), &isnull));
			ids = lappend(ids, id);
		}
		systable_endscan_ordered(scan);
		if (id == NULL)
			break;
	}
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return ids;
}

/*
 * Subscriptions that this backend has seen, ascending: of those it looks only where their progress
 * says that something might be.  Not those that have consumed little: a look at each costs as much
 * as to walk over some thirty rows that have gone.
 */
typedef struct Known
{
	int64 id;
	bool push; /* has a handler, which never changes */
} Known;

static Known *known = NULL;
static int known_count = 0;
static int known_room = 0;

static void
remember(const Subscription *subscription, const SubscriptionProgress *progress)
{
	int64 id = subscription->id;
	int place = known_count;

	if (subscription->handler != NULL && progress->consumed < KNOWN_FROM)
		return;
	/* What this transaction has done itself may be rolled back. */
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return;
	while (place > 0 && known[place - 1].id > id)
		place--;
	if (place > 0 && known[place - 1].id == id)
		return;
	if (known_count == known_room)
	{
		int room = Max(16, known_room * 2);

		if (known == NULL)
			known = MemoryContextAlloc(TopMemoryContext, sizeof(Known) * room);
		else
			known = repalloc(known, sizeof(Known) * room);
		known_room = room;
	}
	memmove(&known[place + 1], &known[place], sizeof(Known) * (known_count - place));
	known[place].id = id;
	known[place].push = subscription->handler != NULL;
	known_count++;
}

/* Subscriptions that have something queued or waiting, ascending; *queued: the first kind. */
static List *
with_something(Snapshot snapshot, List **queued)
{
	static Oid relid = InvalidOid; /* what "known" is about: ids begin anew with it */
	List *waiting = NIL;
	int64 last = 0;

	*queued = NIL;
	if (relid != behavior_relid(REL_SUBSCRIPTION))
	{
		ListCell *lc;

		known_count = 0;
		foreach (lc, subscription_list(snapshot))
		{
			Subscription *subscription = lfirst(lc);
			SubscriptionProgress progress;

			subscription_progress_read(subscription->id, snapshot, &progress);
			remember(subscription, &progress);
		}
		relid = behavior_relid(REL_SUBSCRIPTION);
	}
	for (int i = 0; i <= known_count; i++)
	{
		int64 until = i < known_count ? known[i].id : PG_INT64_MAX;
		SubscriptionProgress progress;
		TimestampTz oldest;
		int64 *id;

		if (until - last > 1)
		{
			*queued = list_concat(*queued, with_queue(last, until, snapshot));
			waiting = list_concat(waiting, delivery_row_subscriptions(last, until, snapshot));
		}
		last = until;
		if (i == known_count || !known[i].push)
			continue;
		subscription_progress_read(until, snapshot, &progress);
		if (progress.step == 0)
			continue; /* dropped */
		id = palloc(sizeof(int64));
		*id = until;
		if (queue_waiting(until, &progress, snapshot, 1, &oldest) > 0)
			*queued = lappend(*queued, id);
		/* Consumed is what has been delivered, is a dead letter, or waits. */
		if (progress.consumed != progress.delivered + progress.dead_letters)
			waiting = lappend(waiting, id);
	}
	return add_ids(*queued, waiting);
}

/*
 * The subscriptions of which this backend knows that they replay no more, since that is committed
 * and nothing begins it again.
 */
static HTAB *
replayed(void)
{
	static HTAB *ids = NULL;
	static Oid relid =
		InvalidOid; /* the subscriptions that it is about: ids begin anew with them */

	if (ids != NULL && relid != behavior_relid(REL_SUBSCRIPTION))
	{
		hash_destroy(ids);
		ids = NULL;
	}
	if (ids == NULL)
	{
		HASHCTL ctl = {0};

		ctl.keysize = ctl.entrysize = sizeof(int64);
		ctl.hcxt = TopMemoryContext;
		ids = hash_create("behavior replayed subscriptions", 64, &ctl,
						  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		relid = behavior_relid(REL_SUBSCRIPTION);
	}
	return ids;
}

/* Push subscriptions that replay, ascending. */
static List *
with_replay(Snapshot snapshot)
{
	MemoryContext context = CurrentMemoryContext;
	HTAB *known = replayed();
	SecureContext secure;
	List *ids = NIL;

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	spi_exec("SELECT subscription_id FROM behavior._subscription "
			 "WHERE start_at IS NOT NULL AND handler IS NOT NULL AND NOT paused ORDER BY 1",
			 SPI_OK_SELECT, true, 0, NULL, NULL, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool isnull;
		int64 id =
			DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		SubscriptionProgress progress;

		if (hash_search(known, &id, HASH_FIND, NULL) != NULL)
			continue;
		subscription_progress_read(id, snapshot, &progress);
		if (progress.replaying)
		{
			MemoryContext old_context = MemoryContextSwitchTo(context);
			int64 *item = palloc(sizeof(int64));

			*item = id;
			ids = lappend(ids, item);
			MemoryContextSwitchTo(old_context);
		}
		/* What this transaction has done itself may be rolled back. */
		else if (!TransactionIdIsValid(GetTopTransactionIdIfAny()))
			(void) hash_search(known, &id, HASH_ENTER, NULL);
	}
	secure_end(&secure);
	SPI_finish();
	return ids;
}

static bool
contains(List *ids, int64 id)
{
	ListCell *lc;

	foreach (lc, ids)
	{
		if (*(int64 *) lfirst(lc) == id)
			return true;
	}
	return false;
}

/*
 * Would a step of this subscription do something now?  The same questions as in take(), without
 * taking anything.  broken: also one that rests since it cannot work.
 */
static bool
is_due(int64 id, bool queued, bool broken, Snapshot snapshot, TimestampTz *next_due)
{
	static const char states[] = {DELIVERY_RETRY, DELIVERY_IN_FLIGHT};
	TimestampTz now = GetCurrentTimestamp();
	Subscription *subscription = subscription_get(id, snapshot);
	SubscriptionProgress progress;
	TimestampTz next = PG_INT64_MAX;
	TimestampTz held;

	if (subscription == NULL)
		return false;
	subscription_progress_read(id, snapshot, &progress);
	remember(subscription, &progress);
	if (subscription->handler == NULL || subscription->paused)
		return false;
	if (rests_broken(&progress, now) && !broken)
	{
		*next_due = Min(*next_due, progress.resume_at);
		return false;
	}
	for (int i = 0; i < lengthof(states); i++)
		next = Min(next, delivery_rows_next_due(id, states[i], progress.due_from, snapshot));
	if (next <= now)
		return true;
	if (progress.resume_at > now && !rests_broken(&progress, now))
		next = Min(next, progress.resume_at);
	else
	{
		if (queued && window_is_over(subscription, &progress, now, &next))
			return true;
		if (progress.replaying && subscription->joined_tick >= 0)
			return true;
		/* None that is held lies below the watermark. */
		held = delivery_rows_next_due(id, DELIVERY_HELD,
									  subscription->ordered ? progress.watermark : 0, snapshot);
		if (held < DT_NOEND &&
			(!subscription->ordered || delivery_held_ready(subscription, &progress, &next)))
			return true;
	}
	*next_due = Min(*next_due, next);
	return false;
}

/* Those that are due, in the current context. */
static List *
list_due(bool broken, TimestampTz *next_due)
{
	Snapshot snapshot;
	List *queued;
	List *ids;
	List *due = NIL;
	ListCell *lc;

	PushActiveSnapshot(GetLatestSnapshot());
	snapshot = GetActiveSnapshot();
	ids = add_ids(with_something(snapshot, &queued), with_replay(snapshot));
	*next_due = PG_INT64_MAX;
	foreach (lc, ids)
	{
		int64 *id = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (is_due(*id, contains(queued, *id), broken, snapshot, next_due))
			due = lappend(due, id);
	}
	PopActiveSnapshot();
	return due;
}

List *
delivery_due(TimestampTz *next_due)
{
	return list_due(false, next_due);
}

static void
all(bool own_transactions, MemoryContext context)
{
	TimestampTz next_due;
	List *due;
	ListCell *lc;

	MemoryContextSwitchTo(context);
	due = list_due(true, &next_due);
	if (own_transactions)
		next_transaction();
	foreach (lc, due)
	{
		DeliveryResult result;

		do
		{
			CHECK_FOR_INTERRUPTS();
			MemoryContextSwitchTo(context);
			result = step_guarded(*(int64 *) lfirst(lc));
			if (own_transactions)
				next_transaction();
			else
				CommandCounterIncrement();
		} while (result == DELIVERY_MORE);
	}
}

void
delivery_all(bool own_transactions)
{
	MemoryContext old_context = CurrentMemoryContext;
	MemoryContext context;

	delivery_forbid_in_handler("delivery");
	context = AllocSetContextCreate(own_transactions ? TopMemoryContext : CurrentMemoryContext,
									"behavior deliveries", ALLOCSET_DEFAULT_SIZES);
	delivery_own_transactions = own_transactions;
	PG_TRY();
	{
		all(own_transactions, context);
	}
	PG_FINALLY();
	{
		delivery_own_transactions = false;
		MemoryContextSwitchTo(old_context);
		MemoryContextDelete(context);
	}
	PG_END_TRY();
}

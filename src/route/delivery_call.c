/*
 * delivery_call.c
 *		Calling a handler.
 *
 * A handler is somebody else's code in our process.  It runs in a subtransaction, as the
 * subscription's owner and as a security-restricted operation: it can neither become somebody
 * else nor leave anything behind that would run after it as whoever delivers (a deferred trigger,
 * a temporary function, a cursor that is held), while INSERT into behavior.event and into tables of
 * its own is all the same to it.  Settings that it changes are undone.  Deferrable
 * constraints are checked at once, since at the commit it would be too late to blame the handler.
 *
 * behavior.handler_timeout is a timer of our own, so that a statement_timeout of whoever delivers
 * goes on beside it.  When it is over the call is cancelled as by pg_cancel_backend().  A handler
 * may catch that: then it is cancelled again once a second, and also whenever it rolls
 * back a subtransaction, since from there the cancel goes to the block around it, and so out in the
 * end.  A background worker that even this does not free ends itself.
 *
 * Everything that a handler raises is its failure, query_canceled included, but for a cancel that
 * really came from outside while the time was not over.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/parse_func.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/pquery.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/guc.h"
#include "core/spi.h"
#include "ingest/frame.h"
#include "route/delivery_internal.h"

#define CANCEL_AGAIN_MS	  1000
#define CANCELS_UNTIL_END 10 /* then a background worker ends itself */

/* Of the call that runs. */
static bool in_handler = false;
static TimeoutId timer = MAX_TIMEOUTS; /* once registered */
static volatile sig_atomic_t timer_runs = false;
static volatile sig_atomic_t timeouts = 0; /* how often the timer went off */
static SubTransactionId call_subid = InvalidSubTransactionId;

void
delivery_forbid_in_handler(const char *what)
{
	if (in_handler)
		ereport(
			ERROR,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			 errmsg("%s cannot run inside a handler", what),
			 errdetail("What the handler is called with is not yet passed over."),
			 errhint(
				 "Leave it out: what a handler sends is routed and delivered after it has ended.")));
}

static void
cancel_call(void)
{
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

/* timeout_handler_proc: in a signal handler. */
static void
on_timeout(void)
{
	if (!timer_runs || proc_exit_inprogress)
		return;
	timeouts++;
	if (timeouts > CANCELS_UNTIL_END && MyBackendType == B_BG_WORKER)
		ProcDiePending = true;
	cancel_call();
}

/* SubXactCallback: what the handler rolls back after its time is over is a cancel that it caught.
 */
static void
on_subxact(SubXactEvent event, SubTransactionId subid, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB && timer_runs && timeouts > 0 && subid != call_subid)
		cancel_call();
}

static void
start_timer(void)
{
	if (timer == MAX_TIMEOUTS)
	{
		timer = RegisterTimeout(USER_TIMEOUT, on_timeout);
		RegisterSubXactCallback(on_subxact, NULL);
	}
	timeouts = 0;
	if (behavior_handler_timeout > 0)
	{
		timer_runs = true;
		enable_timeout_every(
			timer, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), behavior_handler_timeout),
			CANCEL_AGAIN_MS);
	}
}

/* Returns whether the time was over; a cancel of the timer's that has not been seen is taken back.
 */
static bool
stop_timer(void)
{
	if (!timer_runs)
		return false;
	timer_runs = false;
	disable_timeout(timer, false);
	if (timeouts > 0)
		QueryCancelPending = false;
	return timeouts > 0;
}

/* Makes deferrable constraints immediate where the transaction is our own: tick()'s or a worker's,
 * which has no portal. */
static void
set_constraints_immediate(void)
{
	if (delivery_own_transactions || ActivePortal == NULL)
	{
		ConstraintsSetStmt *statement = makeNode(ConstraintsSetStmt);

		AfterTriggerSetState(statement);
	}
}

/* Raises unless the owner can do what delivery does in its name.  Before becoming the owner. */
static void
check_owner(const Subscription *subscription)
{
	if (!OidIsValid(subscription->owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("its owner, role \"%s\", does not exist", subscription->owner_name)));
	if (!subscription_may_read(subscription->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" lacks SELECT on behavior.event", subscription->owner_name)));
}

/* The handler, with its argument's type as it should be; raises when there is none.  As the owner.
 */
static Oid
find_handler(const Subscription *subscription, Oid array_type)
{
	List *name = textToQualifiedNameList(cstring_to_text(subscription->handler));
	Oid oid = LookupFuncName(name, 1, &array_type, true);
	HeapTuple tuple;
	Form_pg_proc proc;
	bool fits;

	if (!OidIsValid(oid))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("handler %s(%s) does not exist", subscription->handler,
							   format_type_be_qualified(array_type))));
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(oid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", oid);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	fits = proc->prokind == PROKIND_FUNCTION && !proc->proretset && proc->prorettype == VOIDOID;
	ReleaseSysCache(tuple);
	if (!fits)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("handler %s is not a function that returns void", subscription->handler)));
	if (function_aclcheck(oid, subscription->owner) != ACLCHECK_OK)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("role \"%s\" lacks EXECUTE on handler %s", subscription->owner_name,
							   subscription->handler)));
	return oid;
}

/* The handler's argument. */
static Datum
make_argument(const Subscription *subscription, Oid element_type, const DeliveryItem *items, int n)
{
	Datum *elements = palloc(sizeof(Datum) * n);

	for (int i = 0; i < n; i++)
		elements[i] = subscription->takes_delivery ? delivery_datum(subscription, &items[i])
												   : delivery_event_datum(&items[i]);
	return PointerGetDatum(construct_array(elements, n, element_type, -1, false, TYPALIGN_DOUBLE));
}

/* Has the handler changed what we stand on?  CALL_GONE when it dropped the subscription. */
static CallResult
look_after_call(const Subscription *subscription, const SubscriptionProgress *progress)
{
	Snapshot snapshot;
	SubscriptionProgress now;
	CallResult result = CALL_DONE;

	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	subscription_progress_read(subscription->id, snapshot, &now);
	if (now.step != progress->step)
	{
		if (subscription_get(subscription->id, snapshot) != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("handler %s moved its own subscription", subscription->handler)));
		result = CALL_GONE;
	}
	UnregisterSnapshot(snapshot);
	return result;
}

/* The call itself, in a subtransaction.  *ready: the handler is there and may be called. */
static CallResult
call(const Subscription *subscription, const SubscriptionProgress *progress,
	 const DeliveryItem *items, int n, volatile bool *ready)
{
	Oid element_type = delivery_element_type(subscription->takes_delivery);
	SecureContext secure;
	FmgrInfo function;
	Oid handler;
	Datum argument;
	int hops = 0;
	LOCAL_FCINFO(fcinfo, 1);

	check_owner(subscription);
	set_constraints_immediate();
	secure_begin(&secure, subscription->owner);
	handler = find_handler(subscription, get_array_type(element_type));
	fmgr_info(handler, &function);
	*ready = true;

	argument = make_argument(subscription, element_type, items, n);
	for (int i = 0; i < n; i++)
		hops = Max(hops, delivery_item_hops(&items[i]));
	(void) frame_set_hops(hops + 1);
	in_handler = true;

	PushActiveSnapshot(GetLatestSnapshot());
	InitFunctionCallInfoData(*fcinfo, &function, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = argument;
	fcinfo->args[0].isnull = false;
	start_timer();
	(void) FunctionCallInvoke(fcinfo);
	(void) stop_timer();
	PopActiveSnapshot();

	in_handler = false;
	(void) frame_set_hops(0);
	secure_end(&secure);
	return look_after_call(subscription, progress);
}

/* The message that is kept of an error. */
static char *
error_text(const ErrorData *error)
{
	return psprintf("%s (%s)", error->message, unpack_sql_state(error->sqlerrcode));
}

CallResult
delivery_call(const Subscription *subscription, const SubscriptionProgress *progress,
			  const DeliveryItem *items, int n, char **error)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context =
		AllocSetContextCreate(caller, "behavior handler", ALLOCSET_DEFAULT_SIZES);
	ResourceOwner owner = CurrentResourceOwner;
	volatile CallResult result = CALL_FAILED;
	volatile bool ready = false;
	volatile bool overdue = false;
	ErrorData *volatile edata = NULL;

	/* Not try_step(): before anything is rolled back the timer has to be stopped. */
	BeginInternalSubTransaction(NULL);
	call_subid = GetCurrentSubTransactionId();
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		result = call(subscription, progress, items, n, &ready);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		overdue = stop_timer();
		in_handler = false;
		(void) frame_set_hops(0);
		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	call_subid = InvalidSubTransactionId;
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	MemoryContextDelete(context);

	if (edata == NULL)
		return result;
	/* Where it comes from tells a cancel from an error that only looks like one. */
	if (!overdue && edata->sqlerrcode == ERRCODE_QUERY_CANCELED && edata->funcname != NULL &&
		strcmp(edata->funcname, "ProcessInterrupts") == 0)
		ReThrowError(edata);
	if (overdue)
		*error = psprintf("handler did not end within %s (behavior.handler_timeout)",
						  GetConfigOptionByName("behavior.handler_timeout", NULL, false));
	else
		*error = error_text(edata);
	FreeErrorData(edata);
	return ready ? CALL_FAILED : CALL_BROKEN;
}

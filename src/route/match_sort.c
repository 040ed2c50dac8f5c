/*
 * match_sort.c
 *		Matched events on their way into queues, in the order of events.
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/timestamp.h"
#include "utils/tuplesort.h"
#include "utils/typcache.h"

#include "ingest/event_key.h"
#include "log/log_row.h"
#include "log/partition.h"
#include "route/match_sort.h"

/* Columns of what is sorted: the keys, then what is carried along. */
enum
{
	MATCH_TICK = 1,
	MATCH_OCCURRED_AT,
	MATCH_SEQUENCE,
	MATCH_EVENT_ID,
	MATCH_SOURCE,
	MATCH_NKEYS = MATCH_SOURCE,
	MATCH_REF,
	MATCH_RULES,
	MATCH_NATTS = MATCH_RULES
};

struct MatchSort
{
	Tuplesortstate *state;
	TupleTableSlot *in;
	TupleTableSlot *out;
	int64 count;

	/* The partition that the last event was in. */
	LogPartition *parts;
	int nparts;
	Oid relid;
	int32 day;

	bytea *ref;
	bytea *packed_rules;
	int *rules;
	int max_rules;
};

MatchSort *
match_sort_begin(void)
{
	MatchSort *sort = palloc0(sizeof(MatchSort));
	AttrNumber columns[MATCH_NKEYS] = {MATCH_TICK, MATCH_OCCURRED_AT, MATCH_SEQUENCE,
									   MATCH_EVENT_ID, MATCH_SOURCE};
	Oid operators[MATCH_NKEYS] = {Int8LessOperator, InvalidOid, Int8LessOperator, TextLessOperator,
								  TextLessOperator};
	Oid collations[MATCH_NKEYS] = {InvalidOid, InvalidOid, InvalidOid, C_COLLATION_OID,
								   C_COLLATION_OID};
	bool nulls_first[MATCH_NKEYS] = {false, false, true, false, false};
	TupleDesc desc = CreateTemplateTupleDesc(MATCH_NATTS);

	operators[MATCH_OCCURRED_AT - 1] = lookup_type_cache(TIMESTAMPTZOID, TYPECACHE_LT_OPR)->lt_opr;
	TupleDescInitEntry(desc, MATCH_TICK, "tick", INT8OID, -1, 0);
	TupleDescInitEntry(desc, MATCH_OCCURRED_AT, "occurred_at", TIMESTAMPTZOID, -1, 0);
	TupleDescInitEntry(desc, MATCH_SEQUENCE, "sequence", INT8OID, -1, 0);
	TupleDescInitEntry(desc, MATCH_EVENT_ID, "event_id", TEXTOID, -1, 0);
	TupleDescInitEntry(desc, MATCH_SOURCE, "source", TEXTOID, -1, 0);
	TupleDescInitEntry(desc, MATCH_REF, "ref", BYTEAOID, -1, 0);
	TupleDescInitEntry(desc, MATCH_RULES, "rules", BYTEAOID, -1, 0);
	sort->in = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	sort->out = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	sort->state = tuplesort_begin_heap(desc, MATCH_NKEYS, columns, operators, collations,
									   nulls_first, maintenance_work_mem, NULL, TUPLESORT_NONE);
	AcceptInvalidationMessages();
	sort->parts = log_partitions(&sort->nparts);
	sort->ref = palloc(VARHDRSZ + sizeof(EventRef));
	SET_VARSIZE(sort->ref, VARHDRSZ + sizeof(EventRef));
	return sort;
}

/* How references name a partition. */
static int32
partition_day(MatchSort *sort, Oid relid)
{
	if (sort->relid == relid)
		return sort->day;
	sort->relid = relid;
	sort->day = PG_INT32_MAX;
	for (int i = 0; i < sort->nparts; i++)
	{
		if (sort->parts[i].relid == relid)
			sort->day = log_partition_day(&sort->parts[i]);
	}
	return sort->day;
}

static void
make_room(MatchSort *sort, int nrules)
{
	if (nrules <= sort->max_rules)
		return;
	sort->max_rules = Max(nrules, sort->max_rules * 2);
	if (sort->rules != NULL)
	{
		pfree(sort->rules);
		pfree(sort->packed_rules);
	}
	sort->rules = palloc(sizeof(int) * sort->max_rules);
	sort->packed_rules = palloc(VARHDRSZ + sizeof(int) * sort->max_rules);
}

void
match_sort_put(MatchSort *sort, TupleTableSlot *slot, int64 tick, const int *rules, int nrules)
{
	struct varlena *source;
	struct varlena *event_id;
	Datum *values = sort->in->tts_values;
	EventRef ref;
	uint8 key[16];

	slot_getallattrs(slot);
	source = PG_DETOAST_DATUM_PACKED(slot->tts_values[LOG_SOURCE - 1]);
	event_id = PG_DETOAST_DATUM_PACKED(slot->tts_values[LOG_EVENT_ID - 1]);
	event_key_hash(VARDATA_ANY(source), VARSIZE_ANY_EXHDR(source), VARDATA_ANY(event_id),
				   VARSIZE_ANY_EXHDR(event_id), key);
	ref = event_ref_make(partition_day(sort, slot->tts_tableOid), &slot->tts_tid,
						 DatumGetInt64(slot->tts_values[LOG_BATCH_ID - 1]), key);
	memcpy(VARDATA(sort->ref), &ref, sizeof(EventRef));
	make_room(sort, nrules);
	SET_VARSIZE(sort->packed_rules, VARHDRSZ + sizeof(int) * nrules);
	memcpy(VARDATA(sort->packed_rules), rules, sizeof(int) * nrules);

	ExecClearTuple(sort->in);
	memset(sort->in->tts_isnull, 0, sizeof(bool) * MATCH_NATTS);
	values[MATCH_TICK - 1] = Int64GetDatum(tick);
	values[MATCH_OCCURRED_AT - 1] = slot->tts_values[LOG_OCCURRED_AT - 1];
	values[MATCH_SEQUENCE - 1] = slot->tts_values[LOG_SEQUENCE - 1];
	sort->in->tts_isnull[MATCH_SEQUENCE - 1] = slot->tts_isnull[LOG_SEQUENCE - 1];
	values[MATCH_EVENT_ID - 1] = PointerGetDatum(event_id);
	values[MATCH_SOURCE - 1] = PointerGetDatum(source);
	values[MATCH_REF - 1] = PointerGetDatum(sort->ref);
	values[MATCH_RULES - 1] = PointerGetDatum(sort->packed_rules);
	ExecStoreVirtualTuple(sort->in);
	tuplesort_puttupleslot(sort->state, sort->in);
	sort->count++;
	ExecClearTuple(sort->in);
	if ((Pointer) source != DatumGetPointer(slot->tts_values[LOG_SOURCE - 1]))
		pfree(source);
	if ((Pointer) event_id != DatumGetPointer(slot->tts_values[LOG_EVENT_ID - 1]))
		pfree(event_id);
}

int64
match_sort_count(const MatchSort *sort)
{
	return sort->count;
}

void
match_sort_finish(MatchSort *sort)
{
	tuplesort_performsort(sort->state);
}

bool
match_sort_next(MatchSort *sort, Match *match)
{
	struct varlena *ref;
	struct varlena *rules;
	bool isnull;

	if (!tuplesort_gettupleslot(sort->state, true, false, sort->out, NULL))
		return false;
	match->tick = DatumGetInt64(slot_getattr(sort->out, MATCH_TICK, &isnull));
	match->occurred_at = DatumGetTimestampTz(slot_getattr(sort->out, MATCH_OCCURRED_AT, &isnull));

	/* Short headers leave them at any byte. */
	ref = (struct varlena *) DatumGetPointer(slot_getattr(sort->out, MATCH_REF, &isnull));
	memcpy(&match->ref, VARDATA_ANY(ref), sizeof(EventRef));
	rules = (struct varlena *) DatumGetPointer(slot_getattr(sort->out, MATCH_RULES, &isnull));
	match->nrules = VARSIZE_ANY_EXHDR(rules) / sizeof(int);
	memcpy(sort->rules, VARDATA_ANY(rules), sizeof(int) * match->nrules);
	match->rules = sort->rules;
	return true;
}

void
match_sort_end(MatchSort *sort)
{
	tuplesort_end(sort->state);
	ExecDropSingleTupleTableSlot(sort->in);
	ExecDropSingleTupleTableSlot(sort->out);
}

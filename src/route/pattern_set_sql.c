/*
 * pattern_set_sql.c
 *		SQL faces of sets of patterns: for the tests and the benchmark.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "core/compat.h"
#include "log/log_reader.h"
#include "log/log_row.h"
#include "route/event_pattern.h"

PG_FUNCTION_INFO_V1(behavior__pattern_set_matches);
PG_FUNCTION_INFO_V1(behavior__pattern_set_log);

typedef struct LogMatch
{
	PatternSet *set;
	ReturnSetInfo *result;
	int repeat;
} LogMatch;

/* Patterns of an array, numbered from 0. */
static PatternSet *
set_of_array(Jsonb *patterns)
{
	PatternSet *set = pattern_set_make();

	if (!JB_ROOT_IS_ARRAY(patterns) || JB_ROOT_IS_SCALAR(patterns))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("patterns must be an array")));
	for (int i = 0; i < (int) JB_ROOT_COUNT(patterns); i++)
		pattern_set_add(set, JsonbValueToJsonb(getIthJsonbValueFromContainer(&patterns->root, i)),
						i);
	return set;
}

static Datum
array_of_rules(const int *rules, int count)
{
	Datum *numbers = palloc(Max(count, 1) * sizeof(Datum));

	for (int i = 0; i < count; i++)
		numbers[i] = Int32GetDatum(rules[i]);
	return PointerGetDatum(
		construct_array(numbers, count, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

Datum
behavior__pattern_set_matches(PG_FUNCTION_ARGS)
{
	PatternSet *set = set_of_array(PG_GETARG_JSONB_P(0));
	Jsonb *events = PG_GETARG_JSONB_P(1);
	int repeat = PG_GETARG_INT32(2);
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	if (!JB_ROOT_IS_ARRAY(events) || JB_ROOT_IS_SCALAR(events))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("events must be an array")));
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < (int) JB_ROOT_COUNT(events); i++)
	{
		JsonbValue *event = getIthJsonbValueFromContainer(&events->root, i);
		const int *rules = NULL;
		int count = 0;
		Datum values[2];
		bool nulls[2] = {false, false};

		for (int j = 0; j < repeat && event->type == jbvBinary; j++)
			count = pattern_set_match(set, event->val.binary.data, &rules);
		values[0] = Int32GetDatum(i);
		values[1] = array_of_rules(rules, count);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	pattern_set_free(set);
	return (Datum) 0;
}

static void
match_row(TupleTableSlot *slot, void *arg)
{
	LogMatch *match = arg;
	const int *rules = NULL;
	int count = 0;
	Datum values[2];
	bool nulls[2] = {false, false};

	slot_getallattrs(slot);
	for (int i = 0; i < match->repeat; i++)
		count = pattern_set_match_row(match->set, slot->tts_values, slot->tts_isnull, &rules);
	values[0] = slot->tts_values[LOG_EVENT_ID - 1];
	values[1] = array_of_rules(rules, count);
	tuplestore_putvalues(match->result->setResult, match->result->setDesc, values, nulls);
}

Datum
behavior__pattern_set_log(PG_FUNCTION_ARGS)
{
	LogMatch match;
	BatchSet *batches = batch_set_make();

	match.set = set_of_array(PG_GETARG_JSONB_P(0));
	match.repeat = PG_GETARG_INT32(1);
	match.result = (ReturnSetInfo *) fcinfo->resultinfo;
	InitMaterializedSRF(fcinfo, 0);
	batch_set_append(batches, 0, PG_INT64_MAX);
	(void) log_read_indexed(batches, GetActiveSnapshot(), match_row, &match);
	pattern_set_free(match.set);
	return (Datum) 0;
}

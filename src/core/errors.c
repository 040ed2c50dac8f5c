/*
 * errors.c
 *		Reasons of dead letters, their names and their SQLSTATEs.
 */
#include "postgres.h"

#include "core/errors.h"

static const struct
{
	const char *name;
	int sqlstate;
} reasons[] = {
	[REASON_NONE] = {"none", ERRCODE_INTERNAL_ERROR},
	[REASON_MALFORMED_JSON] = {"malformed_json", ERRCODE_INVALID_TEXT_REPRESENTATION},
	[REASON_NOT_AN_OBJECT] = {"not_an_object", ERRCODE_INVALID_TEXT_REPRESENTATION},
	[REASON_UNKNOWN_FIELD] = {"unknown_field", ERRCODE_INVALID_PARAMETER_VALUE},
	[REASON_MISSING_FIELD] = {"missing_field", ERRCODE_NOT_NULL_VIOLATION},
	[REASON_INVALID_TYPE] = {"invalid_type", ERRCODE_INVALID_PARAMETER_VALUE},
	[REASON_INVALID_TIMESTAMP] = {"invalid_timestamp", ERRCODE_INVALID_DATETIME_FORMAT},
	[REASON_TOO_LARGE] = {"too_large", ERRCODE_PROGRAM_LIMIT_EXCEEDED},
	[REASON_IN_FUTURE] = {"in_future", ERRCODE_DATETIME_VALUE_OUT_OF_RANGE},
	[REASON_TOO_OLD] = {"too_old", ERRCODE_DATETIME_VALUE_OUT_OF_RANGE},
	[REASON_ID_CONFLICT] = {"id_conflict", ERRCODE_UNIQUE_VIOLATION},
	[REASON_UNSTORABLE] = {"unstorable", ERRCODE_UNTRANSLATABLE_CHARACTER},
	[REASON_SCHEMA_VIOLATION] = {"schema_violation", ERRCODE_CHECK_VIOLATION},
	[REASON_UNKNOWN_TYPE] = {"unknown_type", ERRCODE_FOREIGN_KEY_VIOLATION},
	[REASON_LOOP] = {"loop", ERRCODE_STATEMENT_TOO_COMPLEX},
	[REASON_EVALUATION_ERROR] = {"evaluation_error", ERRCODE_DATA_EXCEPTION},
	[REASON_HANDLER_ERROR] = {"handler_error", ERRCODE_EXTERNAL_ROUTINE_EXCEPTION},
	[REASON_EXPIRED] = {"expired", ERRCODE_EXTERNAL_ROUTINE_EXCEPTION},
};

/* The name that stands in behavior.dead_letter.reason. */
const char *
reason_name(Reason reason)
{
	Assert(reason < lengthof(reasons));
	return reasons[reason].name;
}

/* The SQLSTATE that behavior.on_invalid = error raises. */
int
reason_sqlstate(Reason reason)
{
	Assert(reason < lengthof(reasons));
	return reasons[reason].sqlstate;
}

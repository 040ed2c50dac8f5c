/*
 * errors.h
 *		Why an event is refused: the reasons of dead letters and their SQLSTATEs.
 */
#ifndef BEHAVIOR_ERRORS_H
#define BEHAVIOR_ERRORS_H

typedef enum Reason
{
	REASON_NONE = 0,
	/* stage ingest */
	REASON_MALFORMED_JSON,
	REASON_NOT_AN_OBJECT,
	REASON_UNKNOWN_FIELD,
	REASON_MISSING_FIELD,
	REASON_INVALID_TYPE,
	REASON_INVALID_TIMESTAMP,
	REASON_TOO_LARGE,
	REASON_IN_FUTURE,
	REASON_TOO_OLD,
	REASON_ID_CONFLICT,
	REASON_UNSTORABLE,
	REASON_SCHEMA_VIOLATION,
	REASON_UNKNOWN_TYPE,
	REASON_LOOP,
	/* stage fold */
	REASON_EVALUATION_ERROR,
	/* stage delivery */
	REASON_HANDLER_ERROR,
	REASON_EXPIRED,
	REASON_COUNT
} Reason;

extern const char *reason_name(Reason reason);
extern int reason_sqlstate(Reason reason);

#endif

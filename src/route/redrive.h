/*
 * redrive.h
 *		behavior.redrive(): sends dead letters again.
 *
 * redrive.c finds and locks the letters, in the order of their ids, hands each to the function of
 * its stage, and marks those that were sent.  All of it is one step of the caller's transaction,
 * under a dry run in a subtransaction that is rolled back.  So that one hopeless letter keeps no
 * other from being sent, a stage's function raises for nothing that the event, or a user's code
 * called for it, does: such a letter fails again, as a new letter that has one attempt more and
 * names the old one as its previous (ingest/dead_letter.h).
 */
#ifndef BEHAVIOR_REDRIVE_H
#define BEHAVIOR_REDRIVE_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

/* A dead letter that is being sent again.  Texts are NULL where the column is. */
typedef struct RedriveLetter
{
	int64 dead_letter_id;
	const char *reason; /* it failed for */
	int attempts;		/* so far */
	int64 batch_id;		/* 0: none */
	const char *source;
	const char *type;
	const char *event_id;
	const char *projection;
	const char *payload;
	bool payload_intact;
	TimestampTz received_at;
	const char *sent_with; /* JSON */

	/* Filled by the stage's function: constants. */
	const char *status;		   /* what became of it */
	const char *failed_reason; /* why it failed again, or was skipped; NULL: it did not */
} RedriveLetter;

#define REDRIVE_SKIPPED "skipped" /* the status of a letter that was left as it is */

/*
 * Some letters of the stage, in the order of their ids, in the current context, which is reset
 * behind them; the current user is the caller of behavior.redrive(), and no SPI connection is open.
 * Fills status and failed_reason of each.  Those with status REDRIVE_SKIPPED stay, to be sent
 * another time.  May reorder the array.
 */
typedef void (*RedriveStage)(RedriveLetter **letters, int n);

extern void redrive_fold(RedriveLetter **letters, int n);
extern void redrive_delivery(RedriveLetter **letters, int n);

/*
 * Stage ingest (redrive_ingest.c): all letters of a call are one batch.  patch: NULL, or a merge
 * patch of each payload.  What a letter points to stays until the next redrive_ingest_flush();
 * what became of it stands in the letter's result after redrive_ingest_finish().
 */
typedef struct RedriveIngest RedriveIngest;

typedef struct RedriveResult
{
	int64 dead_letter_id;
	const char *status;
	const char *reason; /* NULL: none */
} RedriveResult;

extern RedriveIngest *redrive_ingest_begin(Jsonb *patch);
extern void
redrive_ingest_add(RedriveIngest *ingest, const RedriveLetter *letter, RedriveResult *result);
extern void redrive_ingest_flush(RedriveIngest *ingest);
extern void redrive_ingest_finish(RedriveIngest *ingest);

#endif

/*
 * batch.h
 *		Batch rows: what each sending statement did.
 *
 * One narrow row a statement, written when its frame ends and never updated.
 * The sender (role, application, correlation id, source) is interned in
 * behavior._sender; the id is cached per backend.  A batch_id is taken from a
 * sequence only after the transaction has an xid: fold/tick.c tells a batch that
 * was rolled back from one in flight by that.
 */
#ifndef BEHAVIOR_BATCH_H
#define BEHAVIOR_BATCH_H

#include "datatype/timestamp.h"
#include "utils/snapshot.h"

#include "log/batch_set.h"
#include "log/log_reader.h"

typedef struct BatchCounts
{
	int64 received;
	int64 accepted;
	int64 duplicates;
	int64 conflicts;
	int64 dead_letters;
	int64 generated_ids;
} BatchCounts;

typedef struct Batch
{
	int64 batch_id;
	TimestampTz received_at;
	int64 sender_id; /* of the first row */
	BatchCounts counts;
	ExtentList extents; /* when reading: points into the tuple's copy */
	int nsources;		/* 0: all of it is sender_id's, else counts by sender */
	const int64 *sender_ids;
	const BatchCounts *by_source;
} Batch;

/* A number for a new batch; gives the transaction an xid first. */
extern int64 batch_next_id(void);

/*
 * The id of (current role, application_name, behavior.correlation_id, source), interned when
 * new.  The role is the session's effective user at the time of the call.
 */
extern int64 batch_sender(const char *source, int source_length);

/* Writes a batch row. */
extern void batch_insert(const Batch *batch);

/*
 * Calls back for every batch in "set" that "snapshot" sees, ascending.  What "batch" points
 * to is valid until the callback returns.
 */
typedef void (*BatchCallback)(const Batch *batch, void *arg);
extern void batch_scan(const BatchSet *set, Snapshot snapshot, BatchCallback callback, void *arg);

/*
 * Deletes batch rows that behavior.batch_retention has passed by, that are numbered and that
 * every projection has folded and the router has routed; and senders that no row can name any more.
 * Deletes at most "limit"
 * batches; returns how many it deleted.
 */
extern int64 batch_expire(int64 limit);

#endif

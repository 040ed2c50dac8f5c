/*
 * tick_state.h
 *		How far numbering has come, and the batches beyond it.  Private to tick*.c.
 */
#ifndef BEHAVIOR_TICK_STATE_H
#define BEHAVIOR_TICK_STATE_H

#include "storage/itemptr.h"
#include "utils/snapshot.h"

#include "log/batch.h"
#include "log/batch_set.h"

typedef struct TickState
{
	bool exists; /* false: no tick yet, all below is zero */
	ItemPointerData tid;
	int64 tick_id;
	int64 last_batch;
	int nholes;
	BatchRun *holes; /* ascending, disjoint, below last_batch */
	int64 watermark_batch;
	uint64 watermark_xid;
	int64 system_identifier;
} TickState;

/* The state that "snapshot" sees. */
extern void tick_state_read(Snapshot snapshot, TickState *state);

/*
 * Hands every batch that "snapshot" sees and "state" has not numbered to the
 * callback, by ascending id, until it returns false.
 */
typedef bool (*WaitingBatchCallback)(int64 batch_id, int64 accepted, void *arg);
extern void tick_scan_waiting(const TickState *state, Snapshot snapshot,
							  WaitingBatchCallback callback, void *arg);

/*
 * tick_intake.c: sums of batches by hour and sender, added to behavior._intake, and where
 * their events went.
 */
typedef struct IntakeSums IntakeSums;
extern IntakeSums *intake_begin(void);
extern void intake_add(const Batch *batch, void *sums); /* a BatchCallback */
extern void intake_store(IntakeSums *sums, int64 tick_id);
extern const ExtentList *intake_extents(const IntakeSums *sums);

#endif

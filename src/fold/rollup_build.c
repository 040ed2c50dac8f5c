/*
 * rollup_build.c
 *		Builds rollups from the log: the first time, for another definition, or anew.
 *
 * A build fixes a tick T, walks the log's blocks and merges the events of ticks up
 * to T into a state table that nobody reads yet; events of these ticks do not move while
 * there is a row in behavior._log_walk.  Then it takes the ticks after T until it is where the
 * projection is, and, holding the projection's row, hands over:
 *
 *	first build		the state is marked as built
 *	rebuild			the rows that differ are written to the old state, so no reader, whatever
 *					its snapshot, sees anything but a plain update
 *	another query	the views are replaced, and the old state dropped; a reader whose snapshot is
 *					older gets 40001
 *
 * One step a call; the cursor is in behavior._log_walk, so a step may be committed.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "core/catalog.h"
#include "core/spi.h"
#include "fold/projection.h"
#include "fold/rollup.h"
#include "fold/tick.h"
#include "fold/tick_events.h"
#include "log/log_reader.h"
#include "log/log_row.h"
#include "log/partition.h"

#define STEP_BLOCKS	 4096
#define STEP_EVENTS	 100000
#define RANGE_BLOCKS 512
#define WALK_OVER	 (-1) /* in next_block */
#define SWAP_TRIES	 5	  /* of 10 ms each, for readers to leave, while nobody else can fold */

/* The row in behavior._log_walk. */
typedef struct Walk
{
	Oid relid; /* partition, InvalidOid before the first */
	Oid relfilenode;
	int64 next_block;
	int64 tick; /* the target while walking, then what is in the state being built */
	int64 done;
	int64 total;
} Walk;

/* What a walk's callback gathers. */
typedef struct Gathering
{
	BatchSet *later; /* batches behind the target */
	Tuplestorestate *events;
	int64 count;
} Gathering;

static bool
read_walk(const char *name, Walk *walk)
{
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(name);
	SecureContext secure;
	bool found;

	secure_begin(&secure, behavior_owner());
	SPI_connect();
	found = spi_exec("SELECT relid, relfilenode, next_block, tick_id, done_events, total_events "
					 "FROM behavior._log_walk WHERE projection = $1",
					 SPI_OK_SELECT, false, 1, &type, &value, NULL) > 0;
	if (found)
	{
		Datum values[6];
		bool isnull[6];

		for (int i = 0; i < 6; i++)
		{
			values[i] =
				SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1, &isnull[i]);
			if (isnull[i])
				values[i] = (Datum) 0;
		}
		walk->relid = DatumGetObjectId(values[0]);
		walk->relfilenode = DatumGetObjectId(values[1]);
		walk->next_block = isnull[2] ? 0 : DatumGetInt64(values[2]);
		walk->tick = isnull[3] ? 0 : DatumGetInt64(values[3]);
		walk->done = isnull[4] ? 0 : DatumGetInt64(values[4]);
		walk->total = isnull[5] ? 0 : DatumGetInt64(values[5]);
	}
	SPI_finish();
	secure_end(&secure);
	return found;
}

static void
write_walk(const char *name, const Walk *walk)
{
	Oid types[] = {TEXTOID, OIDOID, OIDOID, INT8OID, INT8OID, INT8OID, INT8OID};
	Datum values[] = {CStringGetTextDatum(name),		   ObjectIdGetDatum(walk->relid),
					  ObjectIdGetDatum(walk->relfilenode), Int64GetDatum(walk->next_block),
					  Int64GetDatum(walk->tick),		   Int64GetDatum(walk->done),
					  Int64GetDatum(walk->total)};
	SecureContext secure;

	secure_begin(&secure, behavior_owner());
	SPI_connect();
	spi_exec(
		"INSERT INTO behavior._log_walk AS w (projection, relid, relfilenode, next_block, tick_id, done_events, total_events) "
		"VALUES ($1, $2::pg_catalog.regclass, $3, $4, $5, $6, $7) ON CONFLICT (projection) DO UPDATE SET relid = excluded.relid, "
		"relfilenode = excluded.relfilenode, next_block = excluded.next_block, tick_id = excluded.tick_id, "
		"done_events = excluded.done_events, total_events = excluded.total_events",
		SPI_OK_INSERT, false, 7, types, values, NULL);
	SPI_finish();
	secure_end(&secure);
}

/* One bigint of a statement of ours, "missing" when it returns no row or NULL. */
static int64
one_int64(const char *sql, int nargs, const Oid *types, const Datum *values, int64 missing)
{
	SecureContext secure;
	int64 result = missing;

	secure_begin(&secure, behavior_owner());
	SPI_connect();
	if (spi_exec(sql, SPI_OK_SELECT, false, nargs, types, values, NULL) > 0)
	{
		bool isnull;
		Datum value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);

		if (!isnull)
			result = DatumGetInt64(value);
	}
	SPI_finish();
	secure_end(&secure);
	return result;
}

/* Starts a build: an empty state table and a walk from the beginning. */
static void
start_build(RollupRow *row, bool rebuild)
{
	const char *quoted = quote_literal_cstr(row->name);
	Walk walk = {0};
	Oid type = INT8OID;
	Datum tick;

	if (row->built && !OidIsValid(row->next_storage) && rebuild)
	{
		SecureContext secure;
		RollupShape *shape = rollup_shape(rollup_definition_query(row->definition));

		secure_begin(&secure, relation_owner(row->relation));
		row->next_storage = rollup_make_storage(shape, get_rel_namespace(row->relation),
												get_rel_name(row->relation));
		secure_end(&secure);
		row->next_definition = row->definition;
		rollup_run(psprintf("UPDATE behavior._rollup SET next_definition = definition, "
							"next_storage = %u::pg_catalog.regclass WHERE name = %s",
							row->next_storage, quoted));
	}
	rollup_as_owner(row, psprintf("DELETE FROM %s",
								  rollup_qualified(OidIsValid(row->next_storage) ? row->next_storage
																				 : row->storage)));
	/*
	 * A first build that starts again finds the same events: nobody reads its own list before it is
	 * over, so there they can wait, to be known by their dead letters.
	 */
	if (!row->built)
		rollup_run(psprintf(
			"INSERT INTO behavior._set_aside (projection, batch_id, source, event_id, dead_letter_id) "
			"SELECT %s, batch_id, source, event_id, dead_letter_id FROM behavior._set_aside "
			"WHERE projection = %s || pg_catalog.chr(1) ON CONFLICT DO NOTHING",
			quoted, quoted));
	rollup_run(psprintf(
		"DELETE FROM behavior._set_aside WHERE projection = %s || pg_catalog.chr(1)", quoted));

	walk.tick = tick_last(GetLatestSnapshot());
	tick = Int64GetDatum(walk.tick);
	walk.total =
		one_int64("SELECT pg_catalog.sum(events)::int8 FROM behavior.tick WHERE tick_id <= $1", 1,
				  &type, &tick, 0);
	write_walk(row->name, &walk);
}

static void
gather(TupleTableSlot *slot, void *arg)
{
	Gathering *gathering = arg;
	bool isnull;

	if (batch_set_contains(gathering->later,
						   DatumGetInt64(slot_getattr(slot, LOG_BATCH_ID, &isnull))))
		return;
	tuplestore_puttupleslot(gathering->events, slot);
	gathering->count++;
}

/* Walks some blocks; false when the cursor no longer fits the partitions and the build must start
 * anew. */
static bool
walk_step(const RollupRow *row, Walk *walk)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	Gathering gathering = {0};
	LogPartition *partitions;
	int count;
	int i = 0;
	int64 blocks = 0;
	Relation log;

	PushActiveSnapshot(snapshot);
	partitions = log_partitions(&count);
	if (OidIsValid(walk->relid))
	{
		while (i < count && partitions[i].relid != walk->relid)
			i++;
		if (i == count || (walk->next_block > 0 && log_filenode(walk->relid) != walk->relfilenode))
		{
			PopActiveSnapshot();
			UnregisterSnapshot(snapshot);
			return false;
		}
	}

	gathering.later = tick_batches(snapshot, walk->tick, TICK_ALL);
	gathering.events = rollup_events(maintenance_work_mem);
	while (i < count && blocks < STEP_BLOCKS && gathering.count < STEP_EVENTS)
	{
		BlockNumber end = log_blocks(partitions[i].relid);
		BlockNumber last;

		if (walk->next_block >= end)
		{
			i++;
			walk->next_block = 0;
			continue;
		}
		last = (BlockNumber) Min((int64) end, walk->next_block + RANGE_BLOCKS) - 1;
		(void) log_walk(partitions[i].relid, (BlockNumber) walk->next_block, last, snapshot, gather,
						&gathering);
		blocks += last - walk->next_block + 1;
		walk->next_block = (int64) last + 1;
		CHECK_FOR_INTERRUPTS();
	}
	if (i == count)
		walk->next_block = WALK_OVER;
	else
	{
		walk->relid = partitions[i].relid;
		walk->relfilenode = log_filenode(walk->relid);
	}

	log = table_open(behavior_relid(REL_LOG), AccessShareLock);
	rollup_fold_events(row, OidIsValid(row->next_storage) ? row->next_definition : row->definition,
					   OidIsValid(row->next_storage) ? row->next_storage : row->storage,
					   gathering.events, RelationGetDescr(log), gathering.count, true);
	table_close(log, AccessShareLock);
	tuplestore_end(gathering.events);
	walk->done += gathering.count;
	PopActiveSnapshot();
	UnregisterSnapshot(snapshot);
	return true;
}

/* TickEventsCallback */
static void
catch_up_events(const TickEvents *events, void *arg)
{
	const RollupRow *row = arg;

	rollup_fold_events(row, OidIsValid(row->next_storage) ? row->next_definition : row->definition,
					   OidIsValid(row->next_storage) ? row->next_storage : row->storage,
					   events->store, events->desc, events->count, true);
	CommandCounterIncrement();
}

/* Takes ticks that the projection has and the build has not; true when there are more of them. */
static bool
catch_up_step(const RollupRow *row, Walk *walk, int64 progress)
{
	Oid types[] = {INT8OID, INT8OID, INT8OID};
	Datum values[] = {Int64GetDatum(walk->tick), Int64GetDatum(progress),
					  Int64GetDatum(TICK_EVENTS_CHUNK)};
	Snapshot snapshot;
	int64 upto;

	if (walk->tick >= progress)
		return false;
	upto = one_int64(
		"SELECT pg_catalog.max(t.tick_id) FROM (SELECT tick_id, pg_catalog.sum(events) OVER (ORDER BY tick_id) AS total "
		"FROM behavior.tick WHERE tick_id > $1 AND tick_id <= $2) AS t WHERE t.total <= $3 OR t.tick_id = $1 + 1",
		3, types, values, progress);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	PushActiveSnapshot(snapshot);
	tick_events_each(walk->tick, upto, snapshot, catch_up_events, (void *) row);
	PopActiveSnapshot();
	UnregisterSnapshot(snapshot);
	walk->tick = upto;
	return upto < progress;
}

/* The build is over: what it made is the state from now on. */
static void
finish_build(RollupRow *row, const Walk *walk)
{
	const char *quoted = quote_literal_cstr(row->name);

	if (OidIsValid(row->next_storage))
	{
		if (row->next_definition == row->definition)
			rollup_apply_differences(row);
		else
			rollup_swap_views(row);
	}
	rollup_run(psprintf(
		"UPDATE behavior._rollup SET built = true, next_definition = NULL, next_storage = NULL WHERE name = %s",
		quoted));
	rollup_run(psprintf("DELETE FROM behavior._log_walk WHERE projection = %s", quoted));
	rollup_run(psprintf("DELETE FROM behavior._set_aside WHERE projection = %s", quoted));
	rollup_run(psprintf(
		"UPDATE behavior._set_aside SET projection = %s WHERE projection = %s || pg_catalog.chr(1)",
		quoted, quoted));
	rollup_run(psprintf(
		"UPDATE behavior._projection SET state = 'current', "
		"rebuild = false, attempts = 0, error = NULL, failed_at = NULL, events_set_aside = "
		"(SELECT pg_catalog.count(*) FROM behavior._set_aside WHERE projection = %s) WHERE name = %s",
		quoted, quoted));
	projection_advance(row->name,
					   Max(walk->tick, projection_progress(row->name, GetLatestSnapshot())));
}

static bool
build_step(const char *name)
{
	RollupRow *row;
	Walk walk;
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(name);
	bool rebuild;
	bool walking = read_walk(name, &walk);
	bool over = walking && walk.next_block == WALK_OVER;

	row = rollup_row_by_name(name, GetLatestSnapshot());
	if (over && row != NULL && rollup_swaps_views(row) && !rollup_readers_have_left(row))
		return false;

	/* The projection's row is held for the end only: ticks go on being folded while the log is
	 * walked. */
	if (!rollup_lock(name, over))
		return false;
	row = rollup_row_by_name(name, GetLatestSnapshot());
	if (row == NULL || get_rel_name(row->relation) == NULL)
		return false;
	rebuild = one_int64("SELECT rebuild::int4::int8 FROM behavior._projection WHERE name = $1", 1,
						&type, &value, 0) != 0;
	if (row->built && !OidIsValid(row->next_storage) && !rebuild)
		return false;

	if (!read_walk(name, &walk))
	{
		start_build(row, rebuild);
		return true;
	}
	if (walk.next_block != WALK_OVER)
	{
		if (!walk_step(row, &walk))
			rollup_run(psprintf("DELETE FROM behavior._log_walk WHERE projection = %s",
								quote_literal_cstr(name)));
		else
			write_walk(name, &walk);
		return true;
	}
	if (!over)
		return true; /* another process has just come to the end: now with the projection's row */

	if (row->built && catch_up_step(row, &walk, projection_progress(name, GetLatestSnapshot())))
	{
		write_walk(name, &walk);
		return true;
	}
	if (rollup_swaps_views(row) && !rollup_lock_views(row, SWAP_TRIES))
	{
		write_walk(name, &walk);
		return false;
	}
	finish_build(row, &walk);
	return false;
}

void
rollup_build_anew(const char *name)
{
	if (rollup_lock(name, false))
		rollup_run(psprintf("DELETE FROM behavior._log_walk WHERE projection = %s",
							quote_literal_cstr(name)));
}

/* One step of whatever there is to build for a rollup; true when there is more to do. */
bool
rollup_build_step(const char *name)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "behavior rollup build",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	bool more = build_step(name);

	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return more;
}

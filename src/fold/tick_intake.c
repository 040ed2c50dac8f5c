/*
 * tick_intake.c
 *		Sums the batches of a tick into behavior._intake, by hour and sender.
 *
 * Sums are made in memory by (hour, sender id) and stored by one statement that
 * joins the senders: a tick has thousands of batches and a handful of senders.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/spi.h"
#include "fold/tick_state.h"

#define INTAKE_ARRAYS 8

typedef struct IntakeKey
{
	TimestampTz hour;
	int64 sender_id;
} IntakeKey;

typedef struct IntakeSum
{
	IntakeKey key;
	BatchCounts counts;
} IntakeSum;

struct IntakeSums
{
	HTAB *table;
	ExtentList extents;
};

/* One row for each role, application and source: correlation ids are summed over. */
static const char *const store_sums =
	"INSERT INTO behavior._intake AS i (hour, source, role, application_name,"
	" received, accepted, duplicates, conflicts, dead_letters, generated_ids) "
	"SELECT b.hour, s.source, s.role, s.application_name,"
	" sum(b.received), sum(b.accepted), sum(b.duplicates), sum(b.conflicts), sum(b.dead_letters), sum(b.generated_ids) "
	"FROM unnest($1, $2, $3, $4, $5, $6, $7, $8)"
	" AS b (hour, sender_id, received, accepted, duplicates, conflicts, dead_letters, generated_ids)"
	" JOIN behavior._sender s ON s.sender_id = b.sender_id "
	"GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 "
	"ON CONFLICT (hour, source, role, application_name) DO UPDATE SET"
	" received = i.received + excluded.received,"
	" accepted = i.accepted + excluded.accepted,"
	" duplicates = i.duplicates + excluded.duplicates,"
	" conflicts = i.conflicts + excluded.conflicts,"
	" dead_letters = i.dead_letters + excluded.dead_letters,"
	" generated_ids = i.generated_ids + excluded.generated_ids";

IntakeSums *
intake_begin(void)
{
	IntakeSums *sums = palloc0(sizeof(IntakeSums));
	HASHCTL ctl = {0};

	ctl.keysize = sizeof(IntakeKey);
	ctl.entrysize = sizeof(IntakeSum);
	ctl.hcxt = CurrentMemoryContext;
	sums->table = hash_create("behavior intake", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return sums;
}

static void
add_counts(IntakeSums *sums, TimestampTz hour, int64 sender_id, const BatchCounts *counts)
{
	IntakeKey key = {hour, sender_id};
	bool found;
	IntakeSum *sum = hash_search(sums->table, &key, HASH_ENTER, &found);

	if (!found)
		memset(&sum->counts, 0, sizeof(sum->counts));
	sum->counts.received += counts->received;
	sum->counts.accepted += counts->accepted;
	sum->counts.duplicates += counts->duplicates;
	sum->counts.conflicts += counts->conflicts;
	sum->counts.dead_letters += counts->dead_letters;
	sum->counts.generated_ids += counts->generated_ids;
}

void
intake_add(const Batch *batch, void *arg)
{
	IntakeSums *sums = arg;
	TimestampTz rest = batch->received_at % USECS_PER_HOUR;
	TimestampTz hour = batch->received_at - (rest < 0 ? rest + USECS_PER_HOUR : rest);

	if (batch->nsources == 0)
		add_counts(sums, hour, batch->sender_id, &batch->counts);
	for (int i = 0; i < batch->nsources; i++)
		add_counts(sums, hour, batch->sender_ids[i], &batch->by_source[i]);

	for (int i = 0; i < batch->extents.count; i++)
	{
		const Extent *extent = &batch->extents.extents[i];

		extent_list_add(&sums->extents, extent->partition_day, extent->first_block,
						extent->last_block, extent->rows);
	}
}

const ExtentList *
intake_extents(const IntakeSums *sums)
{
	return &sums->extents;
}

void
intake_store(IntakeSums *sums)
{
	long n = hash_get_num_entries(sums->table);
	Datum *columns[INTAKE_ARRAYS];
	Datum values[INTAKE_ARRAYS];
	Oid types[INTAKE_ARRAYS];
	HASH_SEQ_STATUS seq;
	IntakeSum *sum;
	SecureContext secure;
	int i = 0;

	if (n == 0)
		return;
	for (int c = 0; c < INTAKE_ARRAYS; c++)
		columns[c] = palloc(sizeof(Datum) * n);
	hash_seq_init(&seq, sums->table);
	while ((sum = hash_seq_search(&seq)) != NULL)
	{
		columns[0][i] = TimestampTzGetDatum(sum->key.hour);
		columns[1][i] = Int64GetDatum(sum->key.sender_id);
		columns[2][i] = Int64GetDatum(sum->counts.received);
		columns[3][i] = Int64GetDatum(sum->counts.accepted);
		columns[4][i] = Int64GetDatum(sum->counts.duplicates);
		columns[5][i] = Int64GetDatum(sum->counts.conflicts);
		columns[6][i] = Int64GetDatum(sum->counts.dead_letters);
		columns[7][i] = Int64GetDatum(sum->counts.generated_ids);
		i++;
	}
	for (int c = 0; c < INTAKE_ARRAYS; c++)
	{
		Oid element = c == 0 ? TIMESTAMPTZOID : INT8OID;

		types[c] = c == 0 ? TIMESTAMPTZARRAYOID : INT8ARRAYOID;
		values[c] = PointerGetDatum(construct_array(columns[c], n, element, sizeof(int64),
													FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	}

	SPI_connect();
	secure_begin(&secure, behavior_owner());
	spi_exec(store_sums, SPI_OK_INSERT, false, INTAKE_ARRAYS, types, values, NULL);
	secure_end(&secure);
	SPI_finish();
}

/*
 * dead_letter_history.c
 *		What fails again after behavior.redrive() continues the history of its dead letter.
 *
 * At stages fold and delivery nothing that is sent again carries the number of the letter that it
 * came from: it is found by the event, which is rare enough.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "core/catalog.h"
#include "core/spi.h"
#include "ingest/dead_letter.h"

void
dead_letter_continue(DeadLetter *letter, bool redriven)
{
	static const Oid types[] = {TEXTOID, TEXTOID, INT8OID, TEXTOID, TEXTOID, BOOLOID};
	Datum values[] = {CStringGetTextDatum(letter->event_id),   CStringGetTextDatum(letter->source),
					  Int64GetDatum(letter->batch_id),		   CStringGetTextDatum(letter->stage),
					  CStringGetTextDatum(letter->projection), BoolGetDatum(redriven)};
	SecureContext secure;

	secure_begin(&secure, behavior_owner());
	SPI_connect();
	if (spi_exec("SELECT dead_letter_id, attempts FROM behavior.dead_letter"
				 " WHERE event_id = $1 AND source = $2 AND batch_id = $3 AND stage = $4"
				 " AND projection = $5 AND (redriven_at IS NOT NULL OR NOT $6)"
				 " ORDER BY dead_letter_id DESC LIMIT 1",
				 SPI_OK_SELECT, false, lengthof(types), types, values, NULL) > 0)
	{
		bool isnull;
		HeapTuple row = SPI_tuptable->vals[0];
		TupleDesc desc = SPI_tuptable->tupdesc;

		letter->previous = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
		letter->attempts =
			Max(letter->attempts, 1) + DatumGetInt32(SPI_getbinval(row, desc, 2, &isnull));
	}
	SPI_finish();
	secure_end(&secure);
}

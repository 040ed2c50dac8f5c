/*
 * session_alias.c
 *		Where ids that sessions no longer have lead to.
 *
 * A fold collects the ids that died, each with the living id of the session that its
 * events are now part of, and the ids that were born, and stores them at its end.  What
 * pointed at a dead id is pointed at the living one, so that any id is
 * resolved in one lookup; an id that lives is no alias.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/uuid.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/spi.h"
#include "fold/session.h"

typedef struct IdArray
{
	int count;
	int max;
	pg_uuid_t *ids;
} IdArray;

struct SessionAliases
{
	MemoryContext context;
	IdArray dead;
	IdArray living;
	IdArray born;
};

static const char *const repoint =
	"UPDATE behavior.session_alias a SET merged_into = m.living "
	"FROM unnest($1, $2) AS m (dead, living) WHERE a.merged_into = m.dead";

static const char *const insert_dead =
	"INSERT INTO behavior.session_alias AS a (session_id, merged_into) "
	"SELECT m.dead, m.living FROM unnest($1, $2) AS m (dead, living) "
	"WHERE NOT EXISTS (SELECT FROM behavior._session s WHERE s.session_id = m.dead) "
	"ON CONFLICT (session_id) DO UPDATE SET merged_into = excluded.merged_into";

static const char *const any_alias = "SELECT FROM behavior.session_alias LIMIT 1";

static const char *const forget_born =
	"DELETE FROM behavior.session_alias a USING unnest($1) AS born (id) WHERE a.session_id = born.id";

/* In the current context, in which ids are kept too. */
SessionAliases *
session_aliases_begin(void)
{
	SessionAliases *aliases = palloc0(sizeof(SessionAliases));

	aliases->context = CurrentMemoryContext;
	return aliases;
}

static void
add_id(SessionAliases *aliases, IdArray *array, const pg_uuid_t *id)
{
	if (array->ids == NULL)
	{
		array->max = 64;
		array->ids = MemoryContextAlloc(aliases->context, sizeof(pg_uuid_t) * array->max);
	}
	else if (array->count == array->max)
	{
		array->max *= 2;
		array->ids = repalloc_huge(array->ids, sizeof(pg_uuid_t) * array->max);
	}
	array->ids[array->count++] = *id;
}

void
session_aliases_dead(SessionAliases *aliases, const pg_uuid_t *dead, const pg_uuid_t *living)
{
	add_id(aliases, &aliases->dead, dead);
	add_id(aliases, &aliases->living, living);
}

void
session_aliases_born(SessionAliases *aliases, const pg_uuid_t *id)
{
	add_id(aliases, &aliases->born, id);
}

static Datum
uuid_array(const IdArray *ids)
{
	Datum *values = palloc_extended(sizeof(Datum) * ids->count, MCXT_ALLOC_HUGE);

	for (int i = 0; i < ids->count; i++)
		values[i] = UUIDPGetDatum(&ids->ids[i]);
	return PointerGetDatum(
		construct_array(values, ids->count, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
}

void
session_aliases_store(SessionAliases *aliases)
{
	Oid types[2] = {UUIDARRAYOID, UUIDARRAYOID};
	SecureContext secure;

	if (aliases->dead.count == 0 && aliases->born.count == 0)
		return;
	SPI_connect();
	secure_begin(&secure, behavior_owner());
	if (aliases->dead.count > 0)
	{
		Datum values[2] = {uuid_array(&aliases->dead), uuid_array(&aliases->living)};

		spi_exec(repoint, SPI_OK_UPDATE, false, 2, types, values, NULL);
		spi_exec(insert_dead, SPI_OK_INSERT, false, 2, types, values, NULL);
	}
	if (aliases->born.count > 0 &&
		spi_exec(any_alias, SPI_OK_SELECT, false, 0, NULL, NULL, NULL) > 0)
	{
		Datum values[1] = {uuid_array(&aliases->born)};

		spi_exec(forget_born, SPI_OK_DELETE, false, 1, types, values, NULL);
	}
	secure_end(&secure);
	SPI_finish();
}

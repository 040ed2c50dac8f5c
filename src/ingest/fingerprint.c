/*
 * fingerprint.c
 *		64 bits of an event's payload: what tells a conflict from a duplicate.
 *
 * SipHash-2-4-64 under the database's seed over an encoding in which every part
 * is preceded by its kind and length, so that different payloads give different bytes.
 *
 * jsonb is hashed in its binary form.  A container whose children are strings,
 * booleans and nulls has one binary form for each value (keys are sorted and
 * unique, entries are laid out by position), so its bytes are taken as they stand.
 * Numbers do not (1 and 1.0 differ in display scale and are equal) and
 * pad by where they stand, so a container with numbers or containers in it is taken child
 * by child, each number by its hash under jsonb equality.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "core/hash.h"
#include "core/instance.h"
#include "ingest/fingerprint.h"

#define PART_ABSENT	   '-'
#define PART_TEXT	   't'
#define PART_INT	   'i'
#define PART_PLAIN	   'p' /* a container as it stands */
#define PART_CONTAINER 'c' /* a container child by child */
#define PART_NUMBER	   'n'
#define PART_ATOM	   'a' /* null, true, false */

/* Small parts are gathered, since SipHash works on words. */
typedef struct Hasher
{
	SipState sip;
	int used;
	uint64 number_seed;
	uint8 buffer[512];
} Hasher;

static void
put(Hasher *hasher, const void *data, size_t length)
{
	if (hasher->used + length > sizeof(hasher->buffer))
	{
		sip_update(&hasher->sip, hasher->buffer, hasher->used);
		hasher->used = 0;
		if (length > sizeof(hasher->buffer))
		{
			sip_update(&hasher->sip, data, length);
			return;
		}
	}
	memcpy(hasher->buffer + hasher->used, data, length);
	hasher->used += length;
}

static void
put_head(Hasher *hasher, char kind, uint32 length)
{
	uint8 head[5];

	head[0] = (uint8) kind;
	memcpy(head + 1, &length, sizeof(length));
	put(hasher, head, sizeof(head));
}

static void
put_bytes(Hasher *hasher, char kind, const void *data, uint32 length)
{
	put_head(hasher, kind, length);
	put(hasher, data, length);
}

static void
put_text(Hasher *hasher, const TextField *field)
{
	if (field->data == NULL || field->length == 0)
		put_head(hasher, PART_ABSENT, 0);
	else
		put_bytes(hasher, PART_TEXT, field->data, field->length);
}

static void
put_int(Hasher *hasher, bool present, int64 value)
{
	if (present)
		put_bytes(hasher, PART_INT, &value, sizeof(value));
	else
		put_head(hasher, PART_ABSENT, 0);
}

static void
put_container(Hasher *hasher, const JsonbContainer *container, uint32 size)
{
	uint32 entries = JsonContainerSize(container);
	const char *base;
	uint32 offset = 0;
	bool plain = true;

	check_stack_depth();
	if (JsonContainerIsObject(container))
		entries *= 2;
	for (uint32 i = 0; i < entries && plain; i++)
	{
		JEntry entry = container->children[i];

		plain = !JBE_ISNUMERIC(entry) && !JBE_ISCONTAINER(entry);
	}
	if (plain)
	{
		/* size may count the padding behind the last child: the entries say where that ends */
		for (uint32 i = 0; i < entries; i++)
			JBE_ADVANCE_OFFSET(offset, container->children[i]);
		put_bytes(hasher, PART_PLAIN, container,
				  offsetof(JsonbContainer, children) + entries * sizeof(JEntry) + offset);
		return;
	}

	put_bytes(hasher, PART_CONTAINER, &container->header, sizeof(container->header));
	base = (const char *) &container->children[entries];
	for (uint32 i = 0; i < entries; i++)
	{
		JEntry entry = container->children[i];
		uint32 start = offset;

		JBE_ADVANCE_OFFSET(offset, entry);
		if (JBE_ISSTRING(entry))
			put_bytes(hasher, PART_TEXT, base + start, offset - start);
		else if (JBE_ISNUMERIC(entry))
		{
			uint64 value;

			value = DatumGetUInt64(DirectFunctionCall2(hash_numeric_extended,
													   PointerGetDatum(base + INTALIGN(start)),
													   UInt64GetDatum(hasher->number_seed)));
			put_bytes(hasher, PART_NUMBER, &value, sizeof(value));
		}
		else if (JBE_ISCONTAINER(entry))
			put_container(hasher, (const JsonbContainer *) (base + INTALIGN(start)),
						  offset - INTALIGN(start));
		else
			put_head(hasher, PART_ATOM, JBE_ISNULL(entry) ? 0 : JBE_ISBOOL_TRUE(entry) ? 1 : 2);
	}
}

int64
event_fingerprint(const Event *event)
{
	static const uint32 empty_object = JB_FOBJECT;
	const uint8 *seed = instance_seed();
	Hasher hasher;

	sip_init(&hasher.sip, seed, false);
	hasher.used = 0;
	memcpy(&hasher.number_seed, seed, sizeof(hasher.number_seed));

	put_text(&hasher, &event->type);
	put_text(&hasher, &event->user_id);
	put_text(&hasher, &event->anonymous_id);
	put_int(&hasher, event->has_sequence, event->sequence);
	put_int(&hasher, event->has_occurred_at, event->occurred_at);
	if (event->properties != NULL)
		put_container(&hasher, &event->properties->root, VARSIZE(event->properties) - VARHDRSZ);
	else
		put_container(&hasher, (const JsonbContainer *) &empty_object, sizeof(empty_object));

	sip_update(&hasher.sip, hasher.buffer, hasher.used);
	return (int64) sip_final64(&hasher.sip);
}

/*
 * jsonb_slot.c
 *		A value inside of a jsonb, read in place.
 *
 * PostgreSQL's own comparison of jsonb goes through iterators that allocate, and compares strings
 * by collation; here equality is all that is asked for.
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "core/compat.h"
#include "gate/jsonb_number.h"
#include "gate/jsonb_slot.h"

void
json_slot_root(JsonSlot *slot, const JsonbContainer *container)
{
	if (JsonContainerIsScalar(container))
	{
		const char *base = (const char *) &container->children[1];

		json_slot_fill(slot, container->children[0], base, 0,
					   json_entry_end(container->children[0], 0));
	}
	else
	{
		slot->type = JsonContainerIsObject(container) ? JSON_TYPE_OBJECT : JSON_TYPE_ARRAY;
		slot->boolean = false;
		slot->length = JsonContainerSize(container);
		slot->data = (const char *) container;
	}
	slot->parent = NULL;
	slot->key = NULL;
	slot->key_length = 0;
}

bool
json_slot_member(const JsonSlot *object, const char *name, int length, JsonSlot *slot)
{
	const JsonbContainer *container = (const JsonbContainer *) object->data;
	int low = 0;
	int high = object->length;

	if (object->type != JSON_TYPE_OBJECT)
		return false;
	while (low < high)
	{
		const char *base = (const char *) &container->children[2 * object->length];
		int middle = low + (high - low) / 2;
		uint32 offset = getJsonbOffset(container, middle);
		int key_length = getJsonbLength(container, middle);
		int order = json_key_compare(base + offset, key_length, name, length);

		if (order == 0)
		{
			uint32 value = getJsonbOffset(container, object->length + middle);
			JEntry entry = container->children[object->length + middle];

			slot->parent = object;
			slot->key = base + offset;
			slot->key_length = key_length;
			json_slot_fill(slot, entry, base, value, json_entry_end(entry, value));
			return true;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return false;
}

bool
json_slot_element(const JsonSlot *array, int index, JsonSlot *slot)
{
	const JsonbContainer *container = (const JsonbContainer *) array->data;
	const char *base;
	uint32 offset;

	if (array->type != JSON_TYPE_ARRAY || index < 0 || index >= array->length)
		return false;
	base = (const char *) &container->children[array->length];
	offset = getJsonbOffset(container, index);
	slot->parent = array;
	slot->key = NULL;
	slot->key_length = index;
	json_slot_fill(slot, container->children[index], base, offset,
				   json_entry_end(container->children[index], offset));
	return true;
}

uint32
json_slot_size(const JsonSlot *slot)
{
	const JsonbContainer *container = (const JsonbContainer *) slot->data;
	int children = slot->length;

	if (slot->type == JSON_TYPE_OBJECT)
		children *= 2;
	else if (slot->type != JSON_TYPE_ARRAY)
		return 0;
	return children == 0 ? 0
						 : json_entry_end(container->children[children - 1],
										  getJsonbOffset(container, children - 1));
}

/* Equality of values; bytes alone decide below a depth, so that no stack is too small. */
static bool
slots_equal(const JsonSlot *a, const JsonSlot *b, int depth)
{
	JsonWalk left;
	JsonWalk right;
	JsonSlot x;
	JsonSlot y;

	if (a->type != b->type || a->length != b->length)
		return false;
	switch (a->type)
	{
		case JSON_TYPE_NULL:
			return true;
		case JSON_TYPE_BOOLEAN:
			return a->boolean == b->boolean;
		case JSON_TYPE_STRING:
			return memcmp(a->data, b->data, a->length) == 0;
		case JSON_TYPE_NUMBER:
			return json_number_compare(a->data, b->data) == 0;
		default:
			break;
	}
	if (a->data == b->data)
		return true;

	json_walk_start(&left, a);
	json_walk_start(&right, b);
	if (depth >= JSON_SLOT_MAX_DEPTH)
	{
		int children = a->length * (a->type == JSON_TYPE_OBJECT ? 2 : 1);

		return memcmp(a->data, b->data, offsetof(JsonbContainer, children[children])) == 0 &&
			   memcmp(left.base, right.base, json_slot_size(a)) == 0;
	}
	if (a->type == JSON_TYPE_OBJECT)
	{
		while (json_walk_member(&left, &x) && json_walk_member(&right, &y))
		{
			if (x.key_length != y.key_length || memcmp(x.key, y.key, x.key_length) != 0 ||
				!slots_equal(&x, &y, depth + 1))
				return false;
		}
		return true;
	}
	while (json_walk_element(&left, &x) && json_walk_element(&right, &y))
	{
		if (!slots_equal(&x, &y, depth + 1))
			return false;
	}
	return true;
}

bool
json_slot_equal(const JsonSlot *a, const JsonSlot *b)
{
	return slots_equal(a, b, 0);
}

static uint64
slot_hash(const JsonSlot *slot, int depth)
{
	JsonWalk walk;
	JsonSlot child;
	uint64 hash = slot->type * 31 + slot->boolean;

	switch (slot->type)
	{
		case JSON_TYPE_NULL:
		case JSON_TYPE_BOOLEAN:
			return murmurhash32((uint32) hash);
		case JSON_TYPE_STRING:
			return hash_bytes_extended((const unsigned char *) slot->data, slot->length, hash);
		case JSON_TYPE_NUMBER:
			return json_number_hash(slot->data);
		default:
			break;
	}
	hash = hash_combine64(hash, slot->length);
	if (depth >= JSON_SLOT_MAX_DEPTH)
		return hash;
	json_walk_start(&walk, slot);
	if (slot->type == JSON_TYPE_OBJECT)
	{
		while (json_walk_member(&walk, &child))
		{
			hash = hash_combine64(
				hash, hash_bytes_extended((const unsigned char *) child.key, child.key_length, 0));
			hash = hash_combine64(hash, slot_hash(&child, depth + 1));
		}
	}
	else
	{
		while (json_walk_element(&walk, &child))
			hash = hash_combine64(hash, slot_hash(&child, depth + 1));
	}
	return hash;
}

uint64
json_slot_hash(const JsonSlot *slot)
{
	return slot_hash(slot, 0);
}

void
json_pointer_append(StringInfo pointer, const char *token, int length)
{
	appendStringInfoChar(pointer, '/');
	for (int i = 0; i < length; i++)
	{
		if (token[i] == '~')
			appendStringInfoString(pointer, "~0");
		else if (token[i] == '/')
			appendStringInfoString(pointer, "~1");
		else
			appendStringInfoChar(pointer, token[i]);
	}
}

void
json_slot_pointer(StringInfo pointer, const JsonSlot *slot)
{
	const JsonSlot *steps[64];
	const JsonSlot *last = slot;
	int count = 0;

	/* From the root down; of a path longer than the buffer the part above comes first. */
	for (; last->parent != NULL && count < lengthof(steps); last = last->parent)
		steps[count++] = last;
	if (last->parent != NULL)
		json_slot_pointer(pointer, last);
	while (count-- > 0)
	{
		if (steps[count]->key != NULL)
			json_pointer_append(pointer, steps[count]->key, steps[count]->key_length);
		else
			appendStringInfo(pointer, "/%d", steps[count]->key_length);
	}
}

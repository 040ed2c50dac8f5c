/*
 * jsonb_slot.h
 *		A value inside of a jsonb, read in place: nothing is copied and nothing allocated.
 *
 * A slot also knows where it is, so that a path can be told when it is wanted and costs nothing
 * when it is not.  Equality is that of JSON: 1 and 1.0 are the same number.
 */
#ifndef BEHAVIOR_JSONB_SLOT_H
#define BEHAVIOR_JSONB_SLOT_H

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

/* Types of JSON Schema, one bit each.  A slot's type is never JSON_TYPE_INTEGER. */
#define JSON_TYPE_NULL	  0x01
#define JSON_TYPE_BOOLEAN 0x02
#define JSON_TYPE_NUMBER  0x04
#define JSON_TYPE_STRING  0x08
#define JSON_TYPE_ARRAY	  0x10
#define JSON_TYPE_OBJECT  0x20
#define JSON_TYPE_INTEGER 0x40
#define JSON_TYPE_ANY	  0x7F

typedef struct JsonSlot
{
	uint8 type;
	bool boolean;
	int length;		  /* string: bytes; array, object: elements or members */
	const char *data; /* string: not terminated; number: Numeric; array, object: JsonbContainer */
	const struct JsonSlot *parent; /* NULL: the root */
	const char *key;			   /* name of an object's member; NULL: an array's element */
	int key_length;				   /* or the element's index */
} JsonSlot;

/* Runs through an array or object, members in jsonb's order of keys: by length, then by bytes. */
typedef struct JsonWalk
{
	const JEntry *children;
	const char *base;
	const JsonSlot *parent;
	int index; /* of the next one */
	int count;
	uint32 key_offset;
	uint32 value_offset;
} JsonWalk;

/* Makes a slot of what an entry describes. */
static inline void
json_slot_fill(JsonSlot *slot, JEntry entry, const char *base, uint32 offset, uint32 end)
{
	slot->boolean = false;
	slot->length = 0;
	slot->data = NULL;
	switch (entry & JENTRY_TYPEMASK)
	{
		case JENTRY_ISSTRING:
			slot->type = JSON_TYPE_STRING;
			slot->length = end - offset;
			slot->data = base + offset;
			break;
		case JENTRY_ISNUMERIC:
			slot->type = JSON_TYPE_NUMBER;
			slot->data = base + INTALIGN(offset);
			break;
		case JENTRY_ISCONTAINER:
			slot->data = base + INTALIGN(offset);
			slot->type = JsonContainerIsObject((const JsonbContainer *) slot->data)
							 ? JSON_TYPE_OBJECT
							 : JSON_TYPE_ARRAY;
			slot->length = JsonContainerSize((const JsonbContainer *) slot->data);
			break;
		case JENTRY_ISBOOL_TRUE:
			slot->boolean = true;
			slot->type = JSON_TYPE_BOOLEAN;
			break;
		case JENTRY_ISBOOL_FALSE:
			slot->type = JSON_TYPE_BOOLEAN;
			break;
		default:
			slot->type = JSON_TYPE_NULL;
			break;
	}
}

static inline void
json_walk_start(JsonWalk *walk, const JsonSlot *parent)
{
	const JsonbContainer *container = (const JsonbContainer *) parent->data;

	walk->children = container->children;
	walk->parent = parent;
	walk->index = 0;
	walk->count = parent->length;
	walk->key_offset = 0;
	if (parent->type == JSON_TYPE_OBJECT)
	{
		walk->base = (const char *) &container->children[2 * walk->count];
		walk->value_offset = walk->count > 0 ? getJsonbOffset(container, walk->count) : 0;
	}
	else
	{
		walk->base = (const char *) &container->children[walk->count];
		walk->value_offset = 0;
	}
}

static inline uint32
json_entry_end(JEntry entry, uint32 offset)
{
	return JBE_HAS_OFF(entry) ? JBE_OFFLENFLD(entry) : offset + JBE_OFFLENFLD(entry);
}

/* The next member of an object; false at the end. */
static inline bool
json_walk_member(JsonWalk *walk, JsonSlot *slot)
{
	JEntry entry;
	uint32 end;

	if (walk->index >= walk->count)
		return false;
	end = json_entry_end(walk->children[walk->index], walk->key_offset);
	slot->parent = walk->parent;
	slot->key = walk->base + walk->key_offset;
	slot->key_length = end - walk->key_offset;
	walk->key_offset = end;

	entry = walk->children[walk->count + walk->index];
	end = json_entry_end(entry, walk->value_offset);
	json_slot_fill(slot, entry, walk->base, walk->value_offset, end);
	walk->value_offset = end;
	walk->index++;
	return true;
}

/* The next element of an array; false at the end. */
static inline bool
json_walk_element(JsonWalk *walk, JsonSlot *slot)
{
	JEntry entry;
	uint32 end;

	if (walk->index >= walk->count)
		return false;
	entry = walk->children[walk->index];
	end = json_entry_end(entry, walk->value_offset);
	slot->parent = walk->parent;
	slot->key = NULL;
	slot->key_length = walk->index;
	json_slot_fill(slot, entry, walk->base, walk->value_offset, end);
	walk->value_offset = end;
	walk->index++;
	return true;
}

/* jsonb's order of keys. */
static inline int
json_key_compare(const char *a, int a_length, const char *b, int b_length)
{
	if (a_length != b_length)
		return a_length < b_length ? -1 : 1;
	return memcmp(a, b, a_length);
}

static inline bool
json_slot_is(const JsonSlot *slot, const char *text)
{
	return slot->type == JSON_TYPE_STRING && slot->length == (int) strlen(text) &&
		   memcmp(slot->data, text, slot->length) == 0;
}

/* The value that a jsonb is, be it a scalar. */
extern void json_slot_root(JsonSlot *slot, const JsonbContainer *container);

/* A member of an object by name; false when it has none. */
extern bool json_slot_member(const JsonSlot *object, const char *name, int length, JsonSlot *slot);

/* An element of an array; false behind its end. */
extern bool json_slot_element(const JsonSlot *array, int index, JsonSlot *slot);

/*
 * JSON equality, and a hash that agrees with it.  Below JSON_SLOT_MAX_DEPTH levels values are
 * equal when their bytes are.
 */
#define JSON_SLOT_MAX_DEPTH 1000
extern bool json_slot_equal(const JsonSlot *a, const JsonSlot *b);
extern uint64 json_slot_hash(const JsonSlot *slot);

/* Bytes that the members or elements of an object or array take; 0 of others. */
extern uint32 json_slot_size(const JsonSlot *slot);

/* Appends a token to a JSON pointer. */
extern void json_pointer_append(StringInfo pointer, const char *token, int length);

/* Appends the JSON pointer of a slot: nothing for the root. */
extern void json_slot_pointer(StringInfo pointer, const JsonSlot *slot);

#endif

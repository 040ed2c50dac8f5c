/*
 * json_jsonb.c
 *		A parsed JSON tree to jsonb.
 *
 * Writes the on-disk form at once, without the JsonbValue tree that jsonb_in
 * builds: see utils/jsonb.h for the form, and convertToJsonb() in
 * utils/adt/jsonb_util.c for what must come out, byte for byte: keys sorted by
 * length and then bytes, each JB_OFFSET_STRIDE'th entry an offset, numbers and
 * containers aligned, the padding counted with what it precedes.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "core/decimal.h"
#include "core/json.h"

#define STACK_MEMBERS	 32 /* objects of more get their array of members from palloc */
#define INSERTION_SORTED 32

typedef struct Writer
{
	char *data;
	size_t used;
	size_t size;
	bool too_large;
} Writer;

static JEntry write_value(Writer *w, const JsonNode *node);

/* Makes room for count more bytes; false when there can be none. */
static bool
writer_reserve(Writer *w, size_t count)
{
	size_t size;

	if (w->used + count <= w->size)
		return true;
	if (w->used + count > MaxAllocSize)
	{
		w->too_large = true;
		return false;
	}
	size = Max(w->size * 2, w->used + count);
	w->size = Min(size, MaxAllocSize);
	w->data = repalloc(w->data, w->size);
	return true;
}

static inline bool
writer_align(Writer *w)
{
	size_t aligned = INTALIGN(w->used);

	if (!writer_reserve(w, aligned - w->used))
		return false;
	while (w->used < aligned)
		w->data[w->used++] = '\0';
	return true;
}

static inline void
put_entry(Writer *w, size_t at, int index, JEntry entry)
{
	memcpy(w->data + at + index * sizeof(JEntry), &entry, sizeof(JEntry));
}

/* Starts a container: returns where its entries go. */
static size_t
begin_container(Writer *w, uint32 header, int entries)
{
	size_t at;

	if (!writer_align(w) || !writer_reserve(w, sizeof(header) + entries * sizeof(JEntry)))
		return 0;
	memcpy(w->data + w->used, &header, sizeof(header));
	at = w->used + sizeof(header);
	w->used = at + entries * sizeof(JEntry);
	return at;
}

/* Notes the index'th part of a container, whose parts have "total" bytes up to it. */
static inline void
end_part(Writer *w, size_t entries, int index, JEntry entry, size_t *total)
{
	*total += JBE_OFFLENFLD(entry);
	if (*total > JENTRY_OFFLENMASK)
	{
		w->too_large = true;
		return;
	}
	if (index % JB_OFFSET_STRIDE == 0)
		entry = (entry & JENTRY_TYPEMASK) | *total | JENTRY_HAS_OFF;
	put_entry(w, entries, index, entry);
}

static inline JEntry
end_container(Writer *w, size_t base)
{
	if (w->used - base > JENTRY_OFFLENMASK)
		w->too_large = true;
	return JENTRY_ISCONTAINER | ((w->used - base) & JENTRY_OFFLENMASK);
}

static inline JEntry
write_bytes(Writer *w, const char *bytes, int length)
{
	if (length > JENTRY_OFFLENMASK || !writer_reserve(w, length))
	{
		w->too_large = true;
		return 0;
	}
	memcpy(w->data + w->used, bytes, length);
	w->used += length;
	return JENTRY_ISSTRING | length;
}

static JEntry
write_number(Writer *w, const JsonNode *node)
{
	Decimal decimal;
	size_t base = w->used;

	decimal_parse(&decimal, node->text, node->length);
	if (!writer_align(w) || !writer_reserve(w, decimal_write_bound(&decimal)))
		return 0;
	w->used += decimal_write(&decimal, w->data + w->used);
	return JENTRY_ISNUMERIC | (w->used - base);
}

static JEntry
write_array(Writer *w, const JsonNode *first, int count, uint32 flags)
{
	size_t base = w->used;
	size_t entries = begin_container(w, JB_FARRAY | flags | count, count);
	size_t total = 0;
	int index = 0;

	for (const JsonNode *child = first; index < count && !w->too_large; child = child->next)
	{
		JEntry entry = write_value(w, child);

		if (!w->too_large)
			end_part(w, entries, index++, entry, &total);
	}
	return end_container(w, base);
}

/* jsonb's order of keys. */
static inline int
compare_keys(const JsonNode *a, const JsonNode *b)
{
	if (a->key_length != b->key_length)
		return a->key_length < b->key_length ? -1 : 1;
	return memcmp(a->key, b->key, a->key_length);
}

typedef struct SortMember
{
	JsonNode *node;
	int position;
} SortMember;

static int
compare_members(const void *a, const void *b)
{
	const SortMember *left = a;
	const SortMember *right = b;
	int result = compare_keys(left->node, right->node);

	if (result == 0)
		result = left->position < right->position ? -1 : 1;
	return result;
}

/* Sorts members by key, those with the same key in the order in which they came. */
static void
sort_members(JsonNode **members, int count)
{
	if (count <= INSERTION_SORTED)
	{
		for (int i = 1; i < count; i++)
		{
			JsonNode *member = members[i];
			int j = i;

			while (j > 0 && compare_keys(members[j - 1], member) > 0)
			{
				members[j] = members[j - 1];
				j--;
			}
			members[j] = member;
		}
	}
	else
	{
		SortMember *sorted = palloc(count * sizeof(SortMember));

		for (int i = 0; i < count; i++)
		{
			sorted[i].node = members[i];
			sorted[i].position = i;
		}
		qsort(sorted, count, sizeof(SortMember), compare_members);
		for (int i = 0; i < count; i++)
			members[i] = sorted[i].node;
		pfree(sorted);
	}
}

/* Writes an object of these members; reorders the array. */
static JEntry
write_members(Writer *w, JsonNode **members, int count)
{
	size_t base = w->used;
	size_t entries;
	size_t total = 0;
	int unique = 0;

	sort_members(members, count);
	for (int i = 0; i < count; i++)
	{
		/* Of equal keys the last one wins. */
		if (i + 1 < count && compare_keys(members[i], members[i + 1]) == 0)
			continue;
		members[unique++] = members[i];
	}

	entries = begin_container(w, JB_FOBJECT | unique, unique * 2);
	for (int i = 0; i < unique && !w->too_large; i++)
	{
		JEntry entry = write_bytes(w, members[i]->key, members[i]->key_length);

		if (!w->too_large)
			end_part(w, entries, i, entry, &total);
	}
	for (int i = 0; i < unique && !w->too_large; i++)
	{
		JEntry entry = write_value(w, members[i]);

		if (!w->too_large)
			end_part(w, entries, i + unique, entry, &total);
	}
	return end_container(w, base);
}

/* Apart from write_value(), so that the array is on the stack of objects only. */
static pg_noinline JEntry
write_object(Writer *w, const JsonNode *node)
{
	JsonNode *on_stack[STACK_MEMBERS];
	JsonNode **members = on_stack;
	int count = 0;
	JEntry entry;

	if (node->length > STACK_MEMBERS)
		members = palloc(node->length * sizeof(JsonNode *));
	for (JsonNode *child = node->first_child; child != NULL; child = child->next)
		members[count++] = child;
	entry = write_members(w, members, count);
	if (members != on_stack)
		pfree(members);
	return entry;
}

static JEntry
write_value(Writer *w, const JsonNode *node)
{
	switch (node->kind)
	{
		case JSON_NULL:
			return JENTRY_ISNULL;
		case JSON_FALSE:
			return JENTRY_ISBOOL_FALSE;
		case JSON_TRUE:
			return JENTRY_ISBOOL_TRUE;
		case JSON_NUMBER:
			return write_number(w, node);
		case JSON_STRING:
			return write_bytes(w, node->text, node->length);
		case JSON_ARRAY:
			return write_array(w, node->first_child, node->length, 0);
		case JSON_OBJECT:
			return write_object(w, node);
	}
	pg_unreachable();
}

static void
begin_jsonb(Writer *w, size_t guess)
{
	w->size = Min(Max(guess, 128), MaxAllocSize);
	w->data = palloc(w->size);
	w->used = VARHDRSZ;
	w->too_large = false;
}

static Jsonb *
end_jsonb(Writer *w)
{
	if (w->too_large)
	{
		pfree(w->data);
		return NULL;
	}
	SET_VARSIZE(w->data, w->used);
	return (Jsonb *) w->data;
}

Jsonb *
json_to_jsonb(const JsonNode *node)
{
	Writer w;

	/* An entry and a header where the text has quotes and a comma: mostly this is enough. */
	begin_jsonb(&w, (size_t) (node->end - node->start) * 3 / 2 + 32);
	if (node->kind == JSON_OBJECT || node->kind == JSON_ARRAY)
		write_value(&w, node);
	else
		write_array(&w, node, 1, JB_FSCALAR);
	return end_jsonb(&w);
}

Jsonb *
json_members_to_jsonb(JsonNode *const *members, int count)
{
	JsonNode *on_stack[STACK_MEMBERS];
	JsonNode **copy = on_stack;
	Writer w;
	size_t guess = 32;

	if (count > STACK_MEMBERS)
		copy = palloc(count * sizeof(JsonNode *));
	for (int i = 0; i < count; i++)
	{
		copy[i] = members[i];
		guess += 2 * sizeof(JEntry) + members[i]->key_length + members[i]->end - members[i]->start;
	}
	begin_jsonb(&w, guess);
	write_members(&w, copy, count);
	return end_jsonb(&w);
}

JsonNode *
json_of_jsonb(Jsonb *jsonb, const char **text)
{
	size_t offset = 0;
	JsonError error;
	JsonNode *node;

	*text = JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
	node = json_parse(*text, strlen(*text), &offset, &error);
	if (node == NULL)
		elog(ERROR, "jsonb shows as text that is not JSON: %s", error.message);
	return node;
}

/*
 * pattern_path.c
 *		The paths that patterns ask for.
 *
 * Keys that are joined by dots are the same path as nested ones, in patterns and in events.  So
 * paths are kept as a tree of what stands between dots, and a key with dots in it is several steps
 * down.  A step is one look-up in a hash table of all (node, segment).
 */
#include "postgres.h"

#include "route/pattern_internal.h"

static uint32
slot_of(const PathTable *table, const PathNode *parent, Str segment)
{
	return (uint32) (hash_text(parent->id, segment.data, segment.length) >> 32) & table->slot_mask;
}

static PathNode *
add_node(PathTable *table, PathNode *parent, Str segment)
{
	PathNode *node = palloc0(sizeof(PathNode));
	char *copy;

	if (table->count == table->room)
	{
		table->room *= 2;
		table->nodes = repalloc(table->nodes, table->room * sizeof(PathNode *));
	}
	node->id = table->count;
	node->parent = parent;
	copy = palloc(segment.length + 1);
	memcpy(copy, segment.data, segment.length);
	node->segment = str_make(copy, segment.length);
	table->nodes[table->count++] = node;
	return node;
}

static void
add_child(PathNode *parent, PathNode *node)
{
	if (parent->children == parent->child_room)
	{
		parent->child_room = Max(4, parent->child_room * 2);
		if (parent->child == NULL)
			parent->child = palloc(parent->child_room * sizeof(PathNode *));
		else
			parent->child = repalloc(parent->child, parent->child_room * sizeof(PathNode *));
	}
	parent->child[parent->children++] = node;
	parent->sorted = false;
	parent->lengths |= UINT64CONST(1) << (node->segment.length & 63);
}

static int
compare_children(const void *a, const void *b)
{
	Str x = (*(PathNode *const *) a)->segment;
	Str y = (*(PathNode *const *) b)->segment;

	if (x.length != y.length)
		return x.length < y.length ? -1 : 1;
	return memcmp(x.data, y.data, x.length);
}

void
path_sort_children(PathNode *node)
{
	qsort(node->child, node->children, sizeof(PathNode *), compare_children);
	node->sorted = true;
}

static void
enter_node(PathTable *table, const PathNode *node)
{
	uint32 slot = slot_of(table, node->parent, node->segment);

	while (table->slots[slot] != 0)
		slot = (slot + 1) & table->slot_mask;
	table->slots[slot] = node->id;
}

PathTable *
path_table_make(void)
{
	PathTable *table = palloc(sizeof(PathTable));

	table->count = 0;
	table->fields = 0;
	table->room = 16;
	table->nodes = palloc(table->room * sizeof(PathNode *));
	table->slot_mask = 31;
	table->slots = palloc0((table->slot_mask + 1) * sizeof(int));
	add_node(table, NULL, str_make("", 0));
	return table;
}

PathNode *
path_child(const PathTable *table, const PathNode *parent, Str segment)
{
	PathNode *node;
	uint32 slot;

	if ((parent->lengths & (UINT64CONST(1) << (segment.length & 63))) == 0)
		return NULL;
	slot = slot_of(table, parent, segment);
	for (;;)
	{
		int id = table->slots[slot];

		if (id == 0)
			return NULL;
		node = table->nodes[id];
		if (node->parent == parent && str_equal(node->segment, segment))
			return node;
		slot = (slot + 1) & table->slot_mask;
	}
}

/* Cuts the first segment off a key; false when it was the last. */
static inline bool
next_segment(Str *key, Str *segment)
{
	const char *dot = key->length > 0 ? memchr(key->data, '.', key->length) : NULL;

	if (dot == NULL)
	{
		*segment = *key;
		return false;
	}
	*segment = str_make(key->data, dot - key->data);
	*key = str_make(dot + 1, key->length - segment->length - 1);
	return true;
}

PathNode *
path_find(const PathTable *table, const PathNode *parent, Str key)
{
	PathNode *node = unconstify(PathNode *, parent);
	Str segment;
	bool more;

	do
	{
		more = next_segment(&key, &segment);
		node = path_child(table, node, segment);
	} while (more && node != NULL);
	return node;
}

/* The node of a key, made where it is missing, with those on the way. */
PathNode *
path_make(PathTable *table, PathNode *parent, Str key)
{
	Str segment;
	bool more;

	do
	{
		PathNode *node;

		more = next_segment(&key, &segment);
		node = path_child(table, parent, segment);
		if (node == NULL)
		{
			node = add_node(table, parent, segment);
			add_child(parent, node);
			if ((uint32) table->count * 2 > table->slot_mask)
			{
				pfree(table->slots);
				table->slot_mask = table->slot_mask * 2 + 1;
				table->slots = palloc0((table->slot_mask + 1) * sizeof(int));
				for (int id = 1; id < table->count; id++)
					enter_node(table, table->nodes[id]);
			}
			else
				enter_node(table, node);
		}
		parent = node;
	} while (more);
	return parent;
}

/*
 * Order of paths: by UTF-16 units, as Java compares strings.  In UTF-8 that is the order of bytes,
 * except that characters of four bytes, surrogates in UTF-16, come before U+E000 to U+FFFF.
 */
int
path_compare(Str a, Str b)
{
	int length = Min(a.length, b.length);

	for (int i = 0; i < length; i++)
	{
		uint8 x = (uint8) a.data[i];
		uint8 y = (uint8) b.data[i];

		if (x == y)
			continue;
		if (x >= 0xEE && y >= 0xEE && (x >= 0xF0) != (y >= 0xF0))
			return x >= 0xF0 ? -1 : 1;
		return x < y ? -1 : 1;
	}
	return a.length < b.length ? -1 : a.length > b.length;
}

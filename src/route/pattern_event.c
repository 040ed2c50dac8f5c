/*
 * pattern_event.c
 *		The leaves of an event that some pattern asks for.
 *
 * Walks the event beside the tree of paths: what no path leads to is not looked at.  Reads jsonb's
 * entries (utils/jsonb.h) one after the other, without an iterator's copies and allocations.
 * What a view has grown to is kept for the next event, unless it was unusually large.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "core/compat.h"
#include "route/pattern_internal.h"

#define KEPT_LEAVES	  256 /* of a path, from one event to the next */
#define KEPT_ELEMENTS 4096

typedef struct Walk
{
	EventView *view;
	int element; /* the innermost around, -1: none */
} Walk;

static void walk_object(Walk *walk, PathNode *node, const JsonbContainer *object);

EventView *
event_view_make(PathTable *paths)
{
	EventView *view = palloc0(sizeof(EventView));

	view->context = CurrentMemoryContext;
	view->paths = paths;
	view->scratch =
		AllocSetContextCreate(CurrentMemoryContext, "event pattern match", ALLOCSET_SMALL_SIZES);
	view->element_room = 16;
	view->elements = palloc(view->element_room * sizeof(Element));
	view->array_room = 16;
	view->arrays = palloc(view->array_room * sizeof(Array));
	return view;
}

void
event_view_begin(EventView *view)
{
	if (view->list_count < view->paths->count)
	{
		int count = view->paths->count;

		if (view->lists != NULL)
		{
			for (int i = 0; i < view->list_count; i++)
			{
				if (view->lists[i].leaves != NULL)
					pfree(view->lists[i].leaves);
			}
			pfree(view->lists);
			pfree(view->touched);
		}
		view->lists = MemoryContextAllocZero(view->context, count * sizeof(LeafList));
		view->touched = MemoryContextAlloc(view->context, count * sizeof(int));
		view->list_count = count;
		view->touched_count = 0;
	}
	for (int i = 0; i < view->touched_count; i++)
	{
		LeafList *list = &view->lists[view->touched[i]];

		list->count = 0;
		if (list->room > KEPT_LEAVES)
		{
			pfree(list->leaves);
			list->leaves = NULL;
			list->room = 0;
		}
	}
	if (view->element_room > KEPT_ELEMENTS)
	{
		view->element_room = 16;
		view->elements = repalloc(view->elements, view->element_room * sizeof(Element));
	}
	if (view->array_room > KEPT_ELEMENTS)
	{
		view->array_room = 16;
		view->arrays = repalloc(view->arrays, view->array_room * sizeof(Array));
	}
	view->touched_count = 0;
	view->leaves = 0;
	view->element_count = 0;
	view->array_count = 0;
	view->too_deep = false;
	/* What an error left. */
	MemoryContextReset(view->scratch);
}

static Leaf *
add_leaf(EventView *view, const PathNode *node, int element, LeafKind kind)
{
	LeafList *list = &view->lists[node->id];
	Leaf *leaf;

	if (list->count == list->room)
	{
		int room = Max(2, list->room * 2);

		if (list->leaves == NULL)
			list->leaves = MemoryContextAlloc(view->context, room * sizeof(Leaf));
		else
			list->leaves = repalloc_huge(list->leaves, room * sizeof(Leaf));
		list->room = room;
	}
	if (list->count == 0)
		view->touched[view->touched_count++] = node->id;
	leaf = &list->leaves[list->count++];
	leaf->kind = kind;
	leaf->sequence = view->leaves++;
	leaf->element = element;
	leaf->address_known = false;
	leaf->judged = 0;
	return leaf;
}

static inline void
add_number(EventView *view, const PathNode *node, int element, Numeric value)
{
	Leaf *leaf = add_leaf(view, node, element, LEAF_NUMBER);

	leaf->string = str_make((const char *) value, 0);
	if (!number_read(value, &leaf->number))
		leaf->kind = LEAF_OTHER;
}

static int
add_array(EventView *view)
{
	Array *array;

	if (view->array_count == view->array_room)
	{
		view->array_room *= 2;
		view->arrays = repalloc_huge(view->arrays, view->array_room * sizeof(Array));
	}
	array = &view->arrays[view->array_count];
	array->end = 0;
	array->scalars = false;
	array->last_field = -1;
	array->chosen = -1;
	return view->array_count++;
}

static int
add_element(EventView *view, int parent, int array, int index)
{
	Element *element;

	if (view->element_count == view->element_room)
	{
		view->element_room *= 2;
		view->elements = repalloc_huge(view->elements, view->element_room * sizeof(Element));
	}
	element = &view->elements[view->element_count];
	element->parent = parent;
	element->array = array;
	element->index = index;
	element->begin = view->leaves;
	element->end = view->leaves;
	return view->element_count++;
}

/* Length of an entry that begins at "offset". */
static inline uint32
entry_length(JEntry entry, uint32 offset)
{
	return JBE_HAS_OFF(entry) ? JBE_OFFLENFLD(entry) - offset : JBE_OFFLENFLD(entry);
}

/* A scalar; false: it is an object or array. */
static inline bool
take_scalar(Walk *walk, const PathNode *node, JEntry entry, char *base, uint32 offset,
			uint32 length)
{
	if (JBE_ISCONTAINER(entry))
		return false;
	if (!node->wanted)
		return true;
	if (JBE_ISSTRING(entry))
		add_leaf(walk->view, node, walk->element, LEAF_STRING)->string =
			str_make(base + offset, length);
	else if (JBE_ISNUMERIC(entry))
		add_number(walk->view, node, walk->element, (Numeric) (base + INTALIGN(offset)));
	else
		add_leaf(walk->view, node, walk->element,
				 JBE_ISBOOL_TRUE(entry)	   ? LEAF_TRUE
				 : JBE_ISBOOL_FALSE(entry) ? LEAF_FALSE
										   : LEAF_NULL);
	return true;
}

static void
walk_array(Walk *walk, PathNode *node, const JsonbContainer *container)
{
	EventView *view = walk->view;
	int count = JsonContainerSize(container);
	char *base = (char *) &container->children[count];
	uint32 offset = 0;
	int outer = walk->element;
	int array;

	if (stack_is_too_deep())
	{
		view->too_deep = true;
		return;
	}
	array = add_array(view);
	for (int i = 0; i < count; i++)
	{
		JEntry entry = container->children[i];
		uint32 length = entry_length(entry, offset);

		if (take_scalar(walk, node, entry, base, offset, length))
		{
			/* It belongs to no element. */
			view->arrays[array].scalars = true;
		}
		else
		{
			const JsonbContainer *inner = (JsonbContainer *) (base + INTALIGN(offset));

			walk->element = add_element(view, outer, array, i);
			if (JsonContainerIsArray(inner))
				walk_array(walk, node, inner);
			else
				walk_object(walk, node, inner);
			view->elements[walk->element].end = view->leaves;
			walk->element = outer;
		}
		JBE_ADVANCE_OFFSET(offset, entry);
	}
	view->arrays[array].end = view->leaves;
}

static inline void
walk_value(Walk *walk, PathNode *node, JEntry entry, char *base, uint32 offset)
{
	if (!take_scalar(walk, node, entry, base, offset, entry_length(entry, offset)))
	{
		const JsonbContainer *inner = (JsonbContainer *) (base + INTALIGN(offset));

		if (JsonContainerIsArray(inner))
			walk_array(walk, node, inner);
		else
			walk_object(walk, node, inner);
	}
}

/* Keys without dots in them: both sides are sorted alike, so they are merged. */
static void
merge_object(Walk *walk, PathNode *node, const JsonbContainer *object, int count, char *base)
{
	uint32 offset = 0;
	int child = 0;
	int i = 0;

	if (!node->sorted)
		path_sort_children(node);
	while (i < count && child < node->children)
	{
		int length = entry_length(object->children[i], offset);
		Str segment = node->child[child]->segment;
		int order = length - segment.length;

		if (order == 0)
			order = memcmp(base + offset, segment.data, length);
		if (order == 0)
			walk_value(walk, node->child[child], object->children[count + i], base,
					   getJsonbOffset(object, count + i));
		if (order >= 0)
			child++;
		if (order <= 0)
		{
			offset += length;
			i++;
		}
	}
}

static void
walk_object(Walk *walk, PathNode *node, const JsonbContainer *object)
{
	const PathTable *paths = walk->view->paths;
	int count = JsonContainerSize(object);
	char *base = (char *) &object->children[count * 2];
	uint32 key_offset = 0;
	uint32 offset;

	if (node->children == 0 || count == 0)
		return;
	if (stack_is_too_deep())
	{
		walk->view->too_deep = true;
		return;
	}
	/* All keys stand together, before the values. */
	offset = getJsonbOffset(object, count);
	if (node->children <= count * 4 && memchr(base, '.', offset) == NULL)
	{
		merge_object(walk, node, object, count, base);
		return;
	}
	for (int i = 0; i < count; i++)
	{
		JEntry entry = object->children[count + i];
		Str key = str_make(base + key_offset, entry_length(object->children[i], key_offset));
		PathNode *child = path_find(paths, node, key);

		if (child != NULL)
			walk_value(walk, child, entry, base, offset);
		key_offset += key.length;
		JBE_ADVANCE_OFFSET(offset, entry);
	}
}

/* The leaves of an object that is at a path. */
void
event_view_object(EventView *view, PathNode *node, const JsonbContainer *object)
{
	Walk walk = {view, -1};

	walk_object(&walk, node, object);
}

/* One leaf; node: NULL when nobody asks for it. */
void
event_view_string(EventView *view, PathNode *node, const char *data, int length)
{
	if (node != NULL && node->wanted)
		add_leaf(view, node, -1, LEAF_STRING)->string = str_make(data, length);
}

void
event_view_number(EventView *view, PathNode *node, Numeric value)
{
	if (node != NULL && node->wanted)
		add_number(view, node, -1, value);
}

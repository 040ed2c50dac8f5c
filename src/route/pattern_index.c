/*
 * pattern_index.c
 *		Makes the index of a set of patterns, and looks events up in it.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "route/pattern_index.h"

#define KIND_BIT(kind) ((uint32) 1 << (kind))

/* One field's ways, chosen among those of each of its alternatives. */
typedef struct Choice
{
	Access *accesses;
	int count;
	int room;
	double cost;
} Choice;

static Bucket *
find_bucket(const PatternIndex *index, uint64 key)
{
	uint32 slot = (uint32) (key >> 32) & index->mask;

	while (index->buckets[slot].used > 0)
	{
		if (index->buckets[slot].key == key)
			return &index->buckets[slot];
		slot = (slot + 1) & index->mask;
	}
	return NULL;
}

static Bucket *
make_bucket(PatternIndex *index, uint64 key)
{
	Bucket *bucket = find_bucket(index, key);
	uint32 slot;

	if (bucket != NULL)
		return bucket;
	if ((uint32) index->bucket_count * 2 > index->mask)
	{
		Bucket *old = index->buckets;
		uint32 count = index->mask + 1;

		index->mask = count * 2 - 1;
		index->buckets = palloc_extended((Size) (index->mask + 1) * sizeof(Bucket),
										 MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
		for (uint32 i = 0; i < count; i++)
		{
			if (old[i].used == 0)
				continue;
			slot = (uint32) (old[i].key >> 32) & index->mask;
			while (index->buckets[slot].used > 0)
				slot = (slot + 1) & index->mask;
			index->buckets[slot] = old[i];
		}
		pfree(old);
	}
	slot = (uint32) (key >> 32) & index->mask;
	while (index->buckets[slot].used > 0)
		slot = (slot + 1) & index->mask;
	bucket = &index->buckets[slot];
	bucket->key = key;
	bucket->first = -1;
	index->bucket_count++;
	return bucket;
}

static void
add_range(PathIndex *path, const Range *range, int rule)
{
	if (path->range_count == path->range_room)
	{
		path->range_room = Max(8, path->range_room * 2);
		if (path->ranges == NULL)
			path->ranges = palloc(path->range_room * sizeof(RangeEntry));
		else
			path->ranges = repalloc_huge(path->ranges, path->range_room * sizeof(RangeEntry));
	}
	path->ranges[path->range_count].range = range;
	path->ranges[path->range_count].rule = rule;
	path->range_count++;
}

static int
compare_low(const void *a, const void *b)
{
	const Range *x = ((const RangeEntry *) a)->range;
	const Range *y = ((const RangeEntry *) b)->range;

	if (!x->has_low || !y->has_low)
		return x->has_low - y->has_low;
	return number_compare(&x->low, &y->low);
}

static inline bool
higher(const Range *a, const Range *b)
{
	return b->has_high && (!a->has_high || number_compare(&a->high, &b->high) > 0);
}

/* Fills in "highest" for entries first to last; returns that of all of them, NULL of none. */
static const Range *
build_tree(RangeEntry *entries, int first, int last)
{
	int middle = first + (last - first) / 2;
	const Range *left;
	const Range *right;
	const Range *highest;

	if (first > last)
		return NULL;
	highest = entries[middle].range;
	left = build_tree(entries, first, middle - 1);
	right = build_tree(entries, middle + 1, last);
	if (left != NULL && higher(left, highest))
		highest = left;
	if (right != NULL && higher(right, highest))
		highest = right;
	entries[middle].highest = highest;
	return highest;
}

static void
find_ranges(const RangeEntry *entries, int first, int last, const Number *number,
			CandidateFunction candidate, void *arg)
{
	while (first <= last)
	{
		int middle = first + (last - first) / 2;
		const RangeEntry *entry = &entries[middle];

		if (entry->highest->has_high && number_compare(number, &entry->highest->high) > 0)
			return;
		find_ranges(entries, first, middle - 1, number, candidate, arg);
		if (entry->range->has_low && number_compare(number, &entry->range->low) < 0)
			return;
		if (!entry->range->has_high || number_compare(number, &entry->range->high) <= 0)
			candidate(arg, entry->rule);
		first = middle + 1;
	}
}

static void
count_candidate(void *arg, int rule)
{
	++*(int *) arg;
}

static void
finish_ranges(PathIndex *path)
{
	int found = 0;
	int samples = Min(path->range_count, 16);

	if (path->range_count == 0)
		return;
	qsort(path->ranges, path->range_count, sizeof(RangeEntry), compare_low);
	(void) build_tree(path->ranges, 0, path->range_count - 1);
	for (int i = 0; i < samples; i++)
	{
		const Range *range = path->ranges[(int64) i * path->range_count / samples].range;

		find_ranges(path->ranges, 0, path->range_count - 1,
					range->has_low ? &range->low : &range->high, count_candidate, &found);
	}
	path->overlap = (double) found / samples;
}

/* Calls a function for the ways of each alternative of a field. */
typedef void (*AccessFunction)(PatternIndex *index, const Field *field, const Access *accesses,
							   int count, void *arg);

static void
each_alternative(PatternIndex *index, const Field *field, AccessFunction function, void *arg)
{
	Access accesses[MAX_ACCESSES];

	for (int i = 0; i < field->list.string_count; i++)
	{
		accesses[0] = access_of_string(field->path, field->list.strings[i]);
		function(index, field, accesses, 1, arg);
	}
	for (int i = 0; i < field->list.count; i++)
	{
		int count = access_of_matcher(field->path, &field->list.matchers[i], accesses);

		function(index, field, accesses, count, arg);
	}
}

static void
count_accesses(PatternIndex *index, const Field *field, const Access *accesses, int count,
			   void *arg)
{
	for (int i = 0; i < count; i++)
	{
		if (accesses[i].kind == ACCESS_RANGE)
			add_range(&index->paths[field->path->id], accesses[i].range, 0);
		else
			make_bucket(index, accesses[i].key)->used++;
	}
}

static double
access_cost(PatternIndex *index, const Field *field, const Access *access)
{
	double used = access->kind == ACCESS_RANGE ? index->paths[field->path->id].overlap
											   : find_bucket(index, access->key)->used;

	return used * access->share;
}

/* Takes the best of an alternative's ways. */
static void
choose_access(PatternIndex *index, const Field *field, const Access *accesses, int count, void *arg)
{
	Choice *choice = arg;
	int best = 0;
	double cost = access_cost(index, field, &accesses[0]);

	for (int i = 1; i < count; i++)
	{
		double other = access_cost(index, field, &accesses[i]);

		if (other < cost)
		{
			best = i;
			cost = other;
		}
	}
	if (choice->count == choice->room)
	{
		choice->room = Max(8, choice->room * 2);
		if (choice->accesses == NULL)
			choice->accesses = palloc(choice->room * sizeof(Access));
		else
			choice->accesses = repalloc_huge(choice->accesses, choice->room * sizeof(Access));
	}
	choice->accesses[choice->count++] = accesses[best];
	choice->cost += cost;
}

static void
add_length(LengthSet *set, int length)
{
	int at = set->count;

	for (int i = 0; i < set->count; i++)
	{
		if (set->lengths[i] == length)
			return;
	}
	if (set->count == set->room)
	{
		set->room = Max(4, set->room * 2);
		if (set->lengths == NULL)
			set->lengths = palloc(set->room * sizeof(int));
		else
			set->lengths = repalloc(set->lengths, set->room * sizeof(int));
	}
	while (at > 0 && set->lengths[at - 1] > length)
	{
		set->lengths[at] = set->lengths[at - 1];
		at--;
	}
	set->lengths[at] = length;
	set->count++;
}

static void
enter_rule(PatternIndex *index, const Field *field, const Access *access, int rule)
{
	PathIndex *path = &index->paths[field->path->id];
	Bucket *bucket;

	path->kinds |= KIND_BIT(access->kind);
	switch (access->kind)
	{
		case ACCESS_RANGE:
			add_range(path, access->range, rule);
			return;
		case ACCESS_PREFIX:
		case ACCESS_SUFFIX:
		case ACCESS_PREFIX_FOLD:
		case ACCESS_SUFFIX_FOLD:
			add_length(&path->lengths[access->kind], access->length);
			break;
		case ACCESS_GRAM:
			path->gram_lengths |= 1 << access->length;
			break;
		case ACCESS_CIDR:
			if (access->family == 4)
				path->bits4 |= (uint32) 1 << access->length;
			else
				path->bits6[access->length / 64] |= UINT64CONST(1) << (access->length % 64);
			break;
		default:
			break;
	}
	if (index->posting_count == index->posting_room)
	{
		index->posting_room *= 2;
		index->postings =
			repalloc_huge(index->postings, (Size) index->posting_room * sizeof(Posting));
	}
	bucket = find_bucket(index, access->key);
	index->postings[index->posting_count].rule = rule;
	index->postings[index->posting_count].next = bucket->first;
	bucket->first = index->posting_count++;
}

PatternIndex *
pattern_index_make(const PathTable *paths, Rule *const *rules, int count)
{
	PatternIndex *index = palloc0(sizeof(PatternIndex));
	Choice best = {NULL, 0, 0, 0};
	Choice choice = {NULL, 0, 0, 0};

	index->path_count = paths->count;
	index->paths = palloc0(paths->count * sizeof(PathIndex));
	index->mask = 255;
	index->buckets = palloc0((index->mask + 1) * sizeof(Bucket));
	index->posting_room = 64;
	index->postings = palloc(index->posting_room * sizeof(Posting));
	index->always = palloc_extended(Max(count, 1) * sizeof(int), MCXT_ALLOC_HUGE);

	/* How often is each key used? */
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		for (int j = 0; j < rules[i]->count; j++)
			each_alternative(index, rules[i]->fields[j], count_accesses, NULL);
	}
	for (int i = 0; i < index->path_count; i++)
	{
		finish_ranges(&index->paths[i]);
		index->paths[i].range_count = 0;
	}
	for (int i = 0; i < count; i++)
	{
		const Field *field = NULL;

		CHECK_FOR_INTERRUPTS();
		for (int j = 0; j < rules[i]->count; j++)
		{
			if (rules[i]->fields[j]->list.absence)
				continue;
			choice.count = 0;
			choice.cost = 0;
			each_alternative(index, rules[i]->fields[j], choose_access, &choice);
			if (field == NULL || choice.cost < best.cost)
			{
				Choice swap = best;

				best = choice;
				choice = swap;
				field = rules[i]->fields[j];
			}
		}
		if (field == NULL)
			index->always[index->always_count++] = i;
		for (int j = 0; field != NULL && j < best.count; j++)
			enter_rule(index, field, &best.accesses[j], i);
	}
	for (int i = 0; i < index->path_count; i++)
		finish_ranges(&index->paths[i]);
	return index;
}

static inline void
look_up(PatternIndex *index, uint64 key, CandidateFunction candidate, void *arg)
{
	const Bucket *bucket = find_bucket(index, key);

	if (bucket == NULL)
		return;
	for (int i = bucket->first; i >= 0; i = index->postings[i].next)
		candidate(arg, index->postings[i].rule);
}

static void
look_up_affixes(PatternIndex *index, const PathIndex *entry, const PathNode *path, AccessKind kind,
				Str value, CandidateFunction candidate, void *arg)
{
	const LengthSet *set = &entry->lengths[kind];
	bool suffix = kind == ACCESS_SUFFIX || kind == ACCESS_SUFFIX_FOLD;

	for (int i = 0; i < set->count && set->lengths[i] <= value.length; i++)
	{
		int length = set->lengths[i];

		look_up(index,
				access_key(kind, path, suffix ? value.data + value.length - length : value.data,
						   length),
				candidate, arg);
	}
}

static void
look_up_string(PatternIndex *index, const PathIndex *entry, const PathNode *path, Leaf *leaf,
			   CandidateFunction candidate, void *arg)
{
	Str value = leaf->string;
	uint32 kinds = entry->kinds;

	if (kinds & KIND_BIT(ACCESS_STRING))
		look_up(index, access_key(ACCESS_STRING, path, value.data, value.length), candidate, arg);
	if (kinds & KIND_BIT(ACCESS_PREFIX))
		look_up_affixes(index, entry, path, ACCESS_PREFIX, value, candidate, arg);
	if (kinds & KIND_BIT(ACCESS_SUFFIX))
		look_up_affixes(index, entry, path, ACCESS_SUFFIX, value, candidate, arg);
	if (kinds &
		(KIND_BIT(ACCESS_FOLD) | KIND_BIT(ACCESS_PREFIX_FOLD) | KIND_BIT(ACCESS_SUFFIX_FOLD)))
	{
		Str key;

		if (index->fold_room < value.length * FOLD_KEY_GROWTH)
		{
			if (index->fold != NULL)
				pfree(index->fold);
			index->fold = NULL;
			index->fold_room = 0;
			index->fold = palloc_extended(value.length * FOLD_KEY_GROWTH, MCXT_ALLOC_HUGE);
			index->fold_room = value.length * FOLD_KEY_GROWTH;
		}
		key = str_make(index->fold, fold_key(value, index->fold));
		if (kinds & KIND_BIT(ACCESS_FOLD))
			look_up(index, access_key(ACCESS_FOLD, path, key.data, key.length), candidate, arg);
		if (kinds & KIND_BIT(ACCESS_PREFIX_FOLD))
			look_up_affixes(index, entry, path, ACCESS_PREFIX_FOLD, key, candidate, arg);
		if (kinds & KIND_BIT(ACCESS_SUFFIX_FOLD))
			look_up_affixes(index, entry, path, ACCESS_SUFFIX_FOLD, key, candidate, arg);
	}
	if (kinds & KIND_BIT(ACCESS_GRAM))
	{
		for (int length = 1; length <= GRAM_LENGTH; length++)
		{
			if ((entry->gram_lengths & (1 << length)) == 0)
				continue;
			for (int at = 0; at + length <= value.length; at++)
				look_up(index, access_key(ACCESS_GRAM, path, value.data + at, length), candidate,
						arg);
		}
	}
}

static void
look_up_address(PatternIndex *index, const PathIndex *entry, const PathNode *path,
				const Address *address, CandidateFunction candidate, void *arg)
{
	Address network;

	if (address->family == 0)
		return;
	if (entry->kinds & KIND_BIT(ACCESS_ADDRESS))
		look_up(index, access_address_key(ACCESS_ADDRESS, path, address, 0), candidate, arg);
	if ((entry->kinds & KIND_BIT(ACCESS_CIDR)) == 0)
		return;
	/* From the longest to the shortest, masking a bit more each time. */
	network = *address;
	for (int bits = address->family == 4 ? 31 : 127; bits >= 0; bits--)
	{
		network.bytes[bits / 8] &= (uint8) (0xFF00 >> (bits % 8));
		if (address->family == 4 ? (entry->bits4 >> bits) & 1
								 : (entry->bits6[bits / 64] >> (bits % 64)) & 1)
			look_up(index, access_address_key(ACCESS_CIDR, path, &network, bits), candidate, arg);
	}
}

static void
look_up_leaf(PatternIndex *index, const PathIndex *entry, const PathNode *path, Leaf *leaf,
			 CandidateFunction candidate, void *arg)
{
	char kind = leaf->kind;

	switch (leaf->kind)
	{
		case LEAF_STRING:
			look_up_string(index, entry, path, leaf, candidate, arg);
			if (entry->kinds & (KIND_BIT(ACCESS_ADDRESS) | KIND_BIT(ACCESS_CIDR)))
				look_up_address(index, entry, path, leaf_address(leaf), candidate, arg);
			break;
		case LEAF_NUMBER:
			if (entry->kinds & KIND_BIT(ACCESS_NUMBER))
				look_up(index, access_number_key(path, &leaf->number), candidate, arg);
			if (entry->kinds & KIND_BIT(ACCESS_RANGE))
				find_ranges(entry->ranges, 0, entry->range_count - 1, &leaf->number, candidate,
							arg);
			break;
		default:
			if (entry->kinds & KIND_BIT(ACCESS_KIND))
				look_up(index, access_key(ACCESS_KIND, path, &kind, 1), candidate, arg);
			break;
	}
}

void
pattern_index_find(PatternIndex *index, EventView *view, CandidateFunction candidate, void *arg)
{
	for (int i = 0; i < index->always_count; i++)
		candidate(arg, index->always[i]);
	for (int i = 0; i < view->touched_count; i++)
	{
		int id = view->touched[i];
		const PathIndex *entry = &index->paths[id];
		const PathNode *path = view->paths->nodes[id];
		LeafList *list = &view->lists[id];

		if (entry->kinds == 0)
			continue;
		if (entry->kinds & KIND_BIT(ACCESS_ANY))
			look_up(index, access_key(ACCESS_ANY, path, "", 0), candidate, arg);
		if (entry->kinds == KIND_BIT(ACCESS_ANY))
			continue;
		for (int j = 0; j < list->count; j++)
			look_up_leaf(index, entry, path, &list->leaves[j], candidate, arg);
	}
}

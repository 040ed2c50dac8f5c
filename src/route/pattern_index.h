/*
 * pattern_index.h
 *		Which rules of a set an event may match.  Private to pattern_set.c and pattern_index*.c.
 *
 * Each rule is entered under one of its fields, the one that is expected to bring it up least
 * often, and there under each of the field's alternatives.  An event's leaves are looked up, and
 * what comes up is then compared exactly.  So a look-up may find too much, never too little.
 */
#ifndef BEHAVIOR_PATTERN_INDEX_H
#define BEHAVIOR_PATTERN_INDEX_H

#include "route/pattern_internal.h"

/* Under which property of a leaf. */
typedef enum AccessKind
{
	ACCESS_STRING,
	ACCESS_NUMBER,
	ACCESS_KIND, /* true, false or null */
	ACCESS_ADDRESS,
	ACCESS_PREFIX,
	ACCESS_SUFFIX,
	ACCESS_FOLD,
	ACCESS_PREFIX_FOLD,
	ACCESS_SUFFIX_FOLD,
	ACCESS_GRAM, /* a few bytes anywhere */
	ACCESS_CIDR,
	ACCESS_ANY, /* whatever it is */
	ACCESS_RANGE
} AccessKind;

#define GRAM_LENGTH 4

/* Rules under one key. */
typedef struct Bucket
{
	uint64 key;
	int used;  /* fields that could use it, and so whether there is such a bucket */
	int first; /* posting, -1: none */
} Bucket;

typedef struct Posting
{
	int rule;
	int next;
} Posting;

typedef struct RangeEntry
{
	const Range *range;
	const Range *highest; /* of those below it in the tree */
	int rule;
} RangeEntry;

/* Lengths that are in use, ascending. */
typedef struct LengthSet
{
	int *lengths;
	int count;
	int room;
} LengthSet;

/* What there is to look up at a path. */
typedef struct PathIndex
{
	uint32 kinds; /* bit of each AccessKind that is in use */
	uint8 gram_lengths;
	uint32 bits4; /* of CIDRs */
	uint64 bits6[2];
	LengthSet lengths[ACCESS_GRAM]; /* of ACCESS_PREFIX and those like it */
	RangeEntry *ranges;				/* sorted by their lower end: a balanced tree */
	int range_count;
	int range_room;
	double overlap; /* ranges that hold a number that is an end of one, on average */
} PathIndex;

typedef struct PatternIndex
{
	PathIndex *paths; /* by id */
	int path_count;
	Bucket *buckets;
	uint32 mask;
	int bucket_count;
	Posting *postings;
	int posting_count;
	int posting_room;
	int *always; /* rules that no leaf leads to */
	int always_count;
	char *fold; /* room for fold_key() */
	int fold_room;
} PatternIndex;

/* One way to find a leaf that an alternative accepts. */
typedef struct Access
{
	AccessKind kind;
	uint64 key;
	int length;			/* of prefixes, suffixes and grams; bits of a CIDR */
	int family;			/* of a CIDR */
	const Range *range; /* of ACCESS_RANGE */
	double share;		/* of the leaves, a guess */
} Access;

#define MAX_ACCESSES 24

/* The ways for one matcher, any of which will do; their number. */
extern int access_of_matcher(const PathNode *path, const Matcher *matcher, Access *accesses);
extern Access access_of_string(const PathNode *path, Str string);

/* Makes the index, in the current context. */
extern PatternIndex *pattern_index_make(const PathTable *paths, Rule *const *rules, int count);

/* Calls back for rules that the leaves may match; the same rule may come several times. */
typedef void (*CandidateFunction)(void *arg, int rule);
extern void
pattern_index_find(PatternIndex *index, EventView *view, CandidateFunction candidate, void *arg);

/* Shared by both sides: what a text is looked up under. */
extern int access_round_length(int length);

static inline uint64
access_key(AccessKind kind, const PathNode *path, const char *data, int length)
{
	return hash_text(hash_step(kind, path->id), data, length);
}

static inline uint64
access_number_key(const PathNode *path, const Number *number)
{
	return number_hash(number, hash_step(ACCESS_NUMBER, path->id));
}

static inline uint64
access_address_key(AccessKind kind, const PathNode *path, const Address *address, int bits)
{
	uint64 hash = hash_step(hash_step(kind, path->id), bits * 8 + address->family);

	return hash_text(hash, (const char *) address->bytes, sizeof(address->bytes));
}

#endif

/*
 * pattern_internal.h
 *		What the parts of event patterns share.  Private to src/route/pattern_*.c and
 * event_pattern.c.
 *
 * Words: a path is the keys that lead to a value, joined by dots; a leaf of an event is a scalar
 * with its path; a field of a pattern is a path with the list of alternatives that one leaf has to
 * satisfy; a rule is one conjunction of fields, of which a pattern has several when it uses $or; a
 * matcher is one alternative.
 *
 *	pattern_compile.c	jsonb to rules; all errors of a pattern
 *	pattern_matcher.c	does a matcher accept a leaf?
 *	pattern_number.c	numbers as numeric keeps them: exact comparison
 *	pattern_fold.c		upper and lower case
 *	pattern_event.c		the leaves of an event that some pattern asks for
 *	pattern_match.c		does an event match a rule?  Arrays and absence
 *	pattern_set.c		many patterns, found by what an event has; pattern_index.c its index
 *	pattern_explain.c	why it does or does not match
 */
#ifndef BEHAVIOR_PATTERN_INTERNAL_H
#define BEHAVIOR_PATTERN_INTERNAL_H

#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "route/event_pattern.h"

/* A string that is not terminated. */
typedef struct Str
{
	const char *data;
	int length;
} Str;

/* A number: 0.digits × 10000^exponent, digits of base 10000 without zeros at either end. */
typedef struct Number
{
	const int16 *digits; /* maybe not aligned as such */
	int count;			 /* 0: the number zero */
	int exponent;
	bool negative;
} Number;

/* An address; of IPv4 the first 4 bytes. */
typedef struct Address
{
	uint8 bytes[16];
	uint8 family; /* 4 or 6; 0: it is none */
} Address;

/*
 * Paths.  All that a set of patterns asks for, as a tree of their segments: what stands between
 * dots.  A key of an event that has dots in it is several segments.
 */
typedef struct PathNode
{
	int id;
	struct PathNode *parent; /* NULL: the root */
	Str segment;
	uint64 lengths;			 /* bit n % 64: a child's segment is n bytes long */
	struct PathNode **child; /* by length and bytes, as jsonb sorts keys, when sorted */
	int children;
	int child_room;
	bool sorted;
	bool wanted; /* a field has this path */
	Str name;	 /* the whole path, when wanted */
} PathNode;

typedef struct PathTable
{
	PathNode **nodes; /* by id; [0] is the root */
	int count;
	int room;
	int *slots; /* hash table of (parent, segment): id, 0 for none */
	uint32 slot_mask;
	uint32 fields; /* so many have been numbered */
} PathTable;

/* An element of an array that is an object or array: a leaf in it belongs with others in it. */
typedef struct Element
{
	int parent; /* element around its array, -1: none */
	int array;
	int index;
	int begin; /* leaves in it: begin <= sequence < end */
	int end;
} Element;

typedef struct Array
{
	int end;		/* leaves in it are below this */
	bool scalars;	/* has leaves that are in no element of it */
	int last_field; /* of the rule being matched: the last one that has leaves in it */
	int chosen;		/* element, -1: none */
} Array;

typedef enum LeafKind
{
	LEAF_STRING,
	LEAF_NUMBER,
	LEAF_TRUE,
	LEAF_FALSE,
	LEAF_NULL,
	LEAF_OTHER /* what no matcher knows: numbers that are none */
} LeafKind;

typedef struct Leaf
{
	LeafKind kind;
	int sequence; /* leaves in the order of the event */
	int element;  /* innermost, -1: none */
	bool address_known;
	bool accepted; /* by the field "judged" */
	uint32 judged; /* number of the field that judged it last, 0: none */
	Str string;	   /* of a number: where it stands, without a length */
	Number number;
	Address address;
} Leaf;

/* The leaves of one path. */
typedef struct LeafList
{
	Leaf *leaves;
	int count;
	int room;
} LeafList;

/* An event, as far as the patterns of a PathTable ask for it. */
typedef struct EventView
{
	MemoryContext context;
	PathTable *paths;
	LeafList *lists; /* by path */
	int list_count;
	int *touched; /* paths that have leaves */
	int touched_count;
	int leaves;
	Element *elements;
	int element_count;
	int element_room;
	Array *arrays;
	int array_count;
	int array_room;
	int64 work;			   /* done for the rule being matched (pattern_match.c) */
	bool too_deep;		   /* what lay too deep for the stack was left out */
	MemoryContext scratch; /* of one rule_matches() */
} EventView;

/* Matchers. */
typedef enum MatcherKind
{
	MATCH_STRING, /* exactly; only in anything-but: elsewhere in MatcherList.strings */
	MATCH_NUMBER,
	MATCH_TRUE,
	MATCH_FALSE,
	MATCH_NULL,
	MATCH_EXISTS,
	MATCH_PREFIX,
	MATCH_SUFFIX,
	MATCH_FOLD, /* equals-ignore-case */
	MATCH_PREFIX_FOLD,
	MATCH_SUFFIX_FOLD,
	MATCH_GLOB,
	MATCH_RANGE,
	MATCH_ADDRESS,
	MATCH_CIDR,
	MATCH_NOT
} MatcherKind;

/* A character of a pattern that ignores case. */
typedef struct FoldChar
{
	Str lower;
	Str upper;
} FoldChar;

typedef struct FoldString
{
	FoldChar *chars;
	int count;
	bool ascii; /* lower holds all of it */
	Str lower;
	Str key; /* fold_key() of whatever it accepts */
} FoldString;

/* What stands between the asterisks of a wildcard: pieces[0] begins and the last one ends the
 * string, so that there is one more than asterisks. */
typedef struct Glob
{
	Str *pieces;
	int count;
} Glob;

typedef struct Range
{
	bool has_low;
	bool has_high;
	bool open_low;
	bool open_high;
	Number low;
	Number high;
} Range;

typedef struct MatcherList MatcherList;

typedef struct Matcher
{
	MatcherKind kind;
	int bits;	  /* of a CIDR */
	int position; /* among the field's alternatives */
	union
	{
		Str string;
		Number number;
		FoldString fold;
		Glob glob;
		Range range;
		Address address;	 /* of a CIDR: without the host's bits */
		MatcherList *except; /* MATCH_NOT: none of these */
	};
} Matcher;

struct MatcherList
{
	Str *strings; /* sorted: literals, any of which will do */
	int string_count;
	Matcher *matchers;
	int count;
	bool absence; /* exists false is among the alternatives */
};

typedef struct Field
{
	PathNode *path;
	int depth;	   /* so many $or around it */
	uint32 number; /* among all of the table of paths, from 1 */
	MatcherList list;
	const char *shown;			  /* where it stands in the pattern */
	JsonbContainer *alternatives; /* as they were written */
} Field;

typedef struct Rule
{
	Field **fields; /* by path, in the order of UTF-16 */
	int count;
} Rule;

struct EventPattern
{
	PathTable *paths;
	Rule *rules;
	int count;
	Field **fields; /* all, in the pattern's order */
	int field_count;
	EventView *view;
};

/* pattern_path.c */
extern PathTable *path_table_make(void);
extern PathNode *path_make(PathTable *table, PathNode *parent, Str key);
extern PathNode *path_child(const PathTable *table, const PathNode *parent, Str segment);
/* The same for a key with dots in it; NULL when no path begins so. */
extern PathNode *path_find(const PathTable *table, const PathNode *parent, Str key);
extern void path_sort_children(PathNode *node);
extern int path_compare(Str a, Str b);

/* pattern_compile.c: adds the pattern's rules to "pattern", whose table of paths is there. */
extern void pattern_compile_into(EventPattern *pattern, Jsonb *source);

/* pattern_matcher.c */
extern bool matcher_accepts(const Matcher *matcher, Leaf *leaf);
extern bool matcher_list_accepts(const MatcherList *list, Leaf *leaf);
extern void matcher_list_sort(MatcherList *list);
extern bool glob_accepts(const Glob *glob, Str value);
extern bool address_plausible(Str text); /* made of what addresses are made of */
extern bool address_parse(Str text, Address *address);
extern bool address_in(const Address *address, const Address *network, int bits);
extern const Address *leaf_address(Leaf *leaf);

/* pattern_number.c */
extern bool number_read(Numeric value, Number *number); /* false: NaN or infinite */
extern int number_compare(const Number *a, const Number *b);
extern uint64 number_hash(const Number *number, uint64 seed);
extern bool number_survives_binary64(Numeric value);

/* pattern_fold.c */
extern void fold_compile(Str text, FoldString *fold);
/* How many bytes of value from its start (or before its end) fold accepts; -1: it does not. */
extern int fold_match_start(const FoldString *fold, Str value);
extern int fold_match_end(const FoldString *fold, Str value);
/* A text that is the same for all that a FoldString accepts; room: FOLD_KEY_GROWTH bytes a byte of
 * text. */
extern int fold_key(Str text, char *out);
#define FOLD_KEY_GROWTH 3 /* scripts/fold-table checks that */

/* pattern_event.c */
extern EventView *event_view_make(PathTable *paths);
extern void event_view_begin(EventView *view);
extern void event_view_object(EventView *view, PathNode *node, const JsonbContainer *object);
extern void event_view_string(EventView *view, PathNode *node, const char *data, int length);
extern void event_view_number(EventView *view, PathNode *node, Numeric value);

static inline LeafList *
event_view_leaves(EventView *view, const PathNode *path)
{
	return &view->lists[path->id];
}

/* pattern_match.c */
extern bool rule_matches(const Rule *rule, EventView *view);
/* The rule field by field, going on where one fails: matched[i] and a reason, for explain_match. */
typedef enum FieldVerdict
{
	FIELD_MATCHED,
	FIELD_ABSENT,		/* matched: exists false */
	FIELD_ELSEWHERE,	/* matched: exists false, there are values but in other elements */
	FIELD_NO_VALUE,		/* no leaf */
	FIELD_NOT_ACCEPTED, /* no leaf is accepted */
	FIELD_OTHER_ELEMENT /* some are, but in other elements than those of fields before */
} FieldVerdict;
extern bool rule_explain(const Rule *rule, EventView *view, FieldVerdict *verdicts);

/* A hash of bytes, for tables in memory. */
static inline uint64
hash_step(uint64 hash, uint64 word)
{
	hash = (hash ^ word) * UINT64CONST(0x9FB21C651E98DF25);
	return hash ^ (hash >> 29);
}

static inline uint64
hash_text(uint64 hash, const char *data, int length)
{
	uint64 word = 0;
	uint32 low;
	uint32 high;

	hash = hash_step(hash, length);
	if (length >= 8)
	{
		const char *last = data + length - 8;

		for (; data < last; data += 8)
		{
			memcpy(&word, data, 8);
			hash = hash_step(hash, word);
		}
		memcpy(&word, last, 8);
		return hash_step(hash, word);
	}
	/* In pieces that may overlap, rather than byte by byte. */
	if (length >= 4)
	{
		memcpy(&low, data, 4);
		memcpy(&high, data + length - 4, 4);
		word = (uint64) high << 32 | low;
	}
	else if (length > 0)
		word = (uint64) (uint8) data[0] << 16 | (uint64) (uint8) data[length / 2] << 8 |
			   (uint8) data[length - 1];
	return hash_step(hash, word);
}

static inline bool
str_equal(Str a, Str b)
{
	return a.length == b.length && memcmp(a.data, b.data, a.length) == 0;
}

static inline Str
str_make(const char *data, int length)
{
	Str str = {data, length};

	return str;
}

#endif

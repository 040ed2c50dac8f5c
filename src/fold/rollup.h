/*
 * rollup.h
 *		Derived tables declared by the SQL query that they answer.
 *
 * From the query, which is kept as a real view (the definition), come:
 *
 *	partial	one SELECT that turns events into one row for each group: key columns k_1..n,
 *			partial results s_1..m
 *	merge	how two partial results become one: the fold's MERGE and the live view use the same text
 *
 *	final	the query's own select list over keys and finished aggregates a_1..p
 *
 * Files: rollup_query.c (what a query means), rollup_refuse.c (what it may not
 * say), rollup_replace.c (what to say instead), rollup_shown.c (expressions in messages),
 * rollup_sql.c (texts), rollup_catalog.c (rows and cached plans), rollup_key.c (hash of the keys),
 * rollup_define.c (create, alter, drop), rollup_scan.c (how events come into a plan),
 * rollup_count.c (groups of which only the size is asked for), rollup_fold.c, rollup_tail.c,
 * rollup_build.c, rollup_swap.c, rollup_adopt.c, rollup_verify.c.
 *
 * Locks: projection row, then the row in behavior._rollup, then the rollup's
 * relations.  Who builds beside holds only the row in _rollup until the swap.
 */
#ifndef BEHAVIOR_ROLLUP_H
#define BEHAVIOR_ROLLUP_H

#include "executor/spi.h"
#include "nodes/parsenodes.h"
#include "utils/snapshot.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#include "log/log_row.h"

typedef enum RollupMerge
{
	MERGE_COUNT, /* a + b, NULL counts as 0 */
	MERGE_ADD,
	MERGE_LEAST,
	MERGE_GREATEST,
	MERGE_AND,
	MERGE_OR,
	MERGE_BIT_AND,
	MERGE_BIT_OR,
	MERGE_AGGREGATE /* by an aggregate over both */
} RollupMerge;

/* A column of the state: k_n or s_n. */
typedef struct RollupColumn
{
	char *sql;		 /* over _event */
	char *label;	 /* of a key: the query's own name for it */
	char *type_name; /* qualified, with modifier, and COLLATE where it is not the type's own */
	Oid type;
	int32 typmod;
	Oid collation;
	RollupMerge merge; /* of a partial */
	char *merge_aggregate;
	char *compare; /* inexact: what verify compares instead, a function's name; else NULL */
	char *counts;  /* of a partial that counts events: which, a condition over _event; else NULL */
} RollupColumn;

/* What a definition means.  All in one memory context; texts are for search_path "pg_catalog,
 * pg_temp". */
typedef struct RollupShape
{
	int nkeys;
	RollupColumn *keys;
	int npartials;
	RollupColumn *partials;
	int nfinals;
	char **finals;	   /* a_n over s_n */
	char *select_list; /* over k_n and a_n */
	char *where;	   /* over _event, NULL when there is none */
	int time_key;	   /* 1-based: first key of type timestamptz, 0 for none */
	int bucket_key; /* 1-based: first key that is time_bucket(constant, occurred_at ...), 0 for none
					 */
	char *bucket_width;	   /* its width as text */
	bool reads[LOG_NATTS]; /* columns of behavior.log that it looks at */
	List *types;		   /* text *: only events of these types pass its WHERE; NIL: of any type */
} RollupShape;

/* A row of behavior._rollup. */
typedef struct RollupRow
{
	char *name;
	Oid relation;
	Oid folded;
	Oid definition;
	Oid storage;
	Oid token_table;
	pg_uuid_t token;
	bool built;
	Oid next_definition; /* InvalidOid: nothing is built beside */
	Oid next_storage;
} RollupRow;

typedef struct RollupKeyHasher RollupKeyHasher;

/* The name of the events that a partial query reads. */
#define ROLLUP_EVENTS "_events"

/* What a backend keeps of a definition and a state table that take part in folding. */
typedef struct RollupPlan
{
	Oid definition; /* hash key, with storage */
	Oid storage;
	bool valid;
	int in_use;
	MemoryContext context;
	RollupShape *shape;
	RollupKeyHasher *hasher;
	TupleDesc desc;		/* key_hash, keys, partials */
	SPIPlanPtr partial; /* over the ephemeral relation ROLLUP_EVENTS */
	bool counts;		/* it returns keys of events, which rollup_count.c counts */
	bool sorts;			/* it sorts events into groups: one group's states are held at a time */
	bool large_states;	/* a state while groups are made may be of any size */
	int64 groups;		/* that the last evaluation brought */
	SPIPlanPtr merge;	/* from the ephemeral relation _partials; NULL: not made yet */
} RollupPlan;

/* rollup_query.c */
extern RollupShape *rollup_shape(Query *query);
extern Query *rollup_definition_query(Oid definition);
extern List *rollup_target_list(Query *query);
extern Node *rollup_event_where(Query *query);
extern int rollup_event_rtindex(Query *query);
extern bool rollup_aggregate_kind(Aggref *aggref, RollupMerge *merge, bool *is_average,
								  bool *exact_float, char **merge_aggregate, char **compare);

/* rollup_refuse.c: raises 0A000 with the replacement for what a rollup cannot keep. */
extern void rollup_check(Query *query);

/* rollup_replace.c: a hint on what to write instead of an expression that is not immutable. */
extern char *rollup_replacement(Node *node, List *dpcontext);

/* rollup_shown.c: an expression the way the caller might have written it. */
extern char *rollup_shown(Node *expression, List *dpcontext);

/* rollup_sql.c */
extern char *rollup_partial_sql(const RollupShape *shape, const char *from);
extern char *rollup_keys_sql(const RollupShape *shape, const char *from);
extern char *rollup_merge_sql(const RollupShape *shape, const char *storage);
extern char *rollup_merge_expression(const RollupColumn *column, const char *a, const char *b);
extern char *rollup_storage_sql(const RollupShape *shape, const char *storage);
extern char *rollup_live_sql(const RollupShape *shape, const char *definition, const char *storage,
							 const char *token_table);
extern char *
rollup_folded_sql(const RollupShape *shape, const char *definition, const char *storage);
extern const char *rollup_events_sql; /* the columns of behavior.event from _events */

/* rollup_catalog.c */
extern RollupRow *rollup_row_by_name(const char *name, Snapshot snapshot);
extern RollupRow *rollup_row_by_definition(Oid definition, Snapshot snapshot);
extern RollupRow *rollup_row_by_relation(Oid relation, Snapshot snapshot);
extern List *rollup_rows(Snapshot snapshot);
extern bool rollup_lock(const char *name, bool projection_too);
extern char *rollup_qualified(Oid relid);
extern RollupPlan *
rollup_plan(Oid definition, Oid storage); /* call as the owner, with SPI connected */
extern SPIPlanPtr rollup_partial_plan(RollupPlan *plan);
extern SPIPlanPtr rollup_merge_plan(RollupPlan *plan);
extern void rollup_check_complete(Oid definition, Oid storage, const RollupRow *row);
extern void rollup_run(const char *sql); /* as behavior's owner */

/* rollup_key.c */
extern void rollup_check_key_type(Oid type, Oid collation, const char *expression);
extern RollupKeyHasher *rollup_key_hasher(TupleDesc desc, int first, int count, int time_key);
extern void rollup_key_hash(RollupKeyHasher *hasher, const Datum *values, const bool *isnull,
							pg_uuid_t *result);
extern bool rollup_keys_are_bytes(const RollupKeyHasher *hasher);

/* rollup_scan.c */
extern void rollup_scan_begin(void);
extern void rollup_scan_end(void);

/* rollup_count.c */
typedef struct RollupCounter RollupCounter;
typedef void (*RollupCounted)(const Datum *values, const bool *isnull, void *arg);
extern bool rollup_can_count(const RollupShape *shape, const RollupKeyHasher *hasher);
extern RollupCounter *rollup_counter(TupleDesc desc, int nkeys);
extern void rollup_count(RollupCounter *counter, TupleTableSlot *event);
extern void rollup_counted(RollupCounter *counter, RollupCounted callback, void *arg);

/* rollup_fold.c */
/* Events that one rollup's query cannot evaluate. */
typedef void (*RollupPoison)(TupleTableSlot *event, ErrorData *error, void *arg);
extern bool rollup_is_poison(int sqlstate);
extern Oid rollup_reading_owner(const RollupRow *row);
extern Tuplestorestate *
rollup_evaluate(RollupPlan *plan, Tuplestorestate *events, TupleDesc desc, int64 count);
extern Tuplestorestate *rollup_evaluate_sql(RollupPlan *plan, const char *sql);
extern void rollup_fold_events(const RollupRow *row, Oid definition, Oid storage,
							   Tuplestorestate *events, TupleDesc desc, int64 count, bool beside);
extern void rollup_fold_again(const RollupRow *row, Oid definition, Oid storage,
							  Tuplestorestate *events, TupleDesc desc, int64 count, bool beside);
extern Tuplestorestate *rollup_events(int kilobytes);
extern void rollup_good_events(Oid owner, Oid definition, Oid storage, Tuplestorestate *events,
							   TupleDesc desc, int64 count, Tuplestorestate *good, int64 *ngood);

/* rollup_swap.c: the end of a build */
extern void rollup_as_owner(const RollupRow *row, const char *sql);
extern void rollup_apply_differences(const RollupRow *row);
extern bool rollup_lock_views(const RollupRow *row, int tries);
extern bool rollup_readers_have_left(const RollupRow *row);
extern bool rollup_swaps_views(const RollupRow *row);
extern void rollup_swap_views(RollupRow *row);

/* rollup_define.c */
extern void rollup_ddl(const char *sql); /* as the current user */
extern Oid rollup_make_storage(const RollupShape *shape, Oid namespace, const char *relation);
extern bool rollup_views_replaceable(const RollupRow *row, Query *query);
extern char *rollup_projection_name(Oid namespace, const char *relation);
extern void rollup_forget(const char *name);
extern void rollup_bury_dropped(Oid namespace); /* rollup_adopt.c */
extern void rollup_register(const RollupRow *row, int64 tick);

#endif

/*
 * route_table.h
 *		All subscriptions as the router knows them, with their patterns compiled.
 *
 * Kept in a backend until a row of the catalog is another one.  That is told by the places and
 * transactions of all rows, which costs little, and holds after rollbacks and for rows that were
 * written by whatever means.
 */
#ifndef BEHAVIOR_ROUTE_TABLE_H
#define BEHAVIOR_ROUTE_TABLE_H

#include "route/event_pattern.h"
#include "route/queue.h"
#include "route/subscription.h"

#define CHANNEL_PREFIX "behavior_"

/* A subscription as the router knows it; its number in the pattern set is its place. */
typedef struct Route
{
	int64 id;
	char *channel;
	TimestampTz start_at; /* DT_NOBEGIN: none */
	int64 joined_tick;	  /* -1: not yet */
	int64 created_tick;
	BatchSet *skip_batches;
	char *error;	 /* its pattern does not compile, so it is not in the set; NULL: it does */
	bool note_error; /* the catalog says something else */

	/* Of the step. */
	EventRef *refs; /* not queued yet */
	int nrefs;
	bool matched;
} Route;

typedef struct RouteTable
{
	MemoryContext context; /* NULL: nothing */
	uint64 fingerprint;	   /* of the catalog that it was made of; 0: to be made anew */
	int count;
	Route *routes;
	PatternSet *patterns;
} RouteTable;

/* Tells one state of the catalog from another. */
extern uint64 route_table_fingerprint(Snapshot snapshot);

/* Reads and compiles all subscriptions; on error the table is what it was. */
extern void route_table_load(RouteTable *table, Snapshot snapshot, uint64 print);
extern void route_table_forget(RouteTable *table);

/*
 * Writes down which subscriptions are set aside, since their pattern does not compile, and which no
 * longer are, with a WARNING.  A row that somebody is deleting is left alone.
 */
extern void route_table_note_errors(RouteTable *table);

#endif

/*
 * key_generation.h
 *		The list of key generations and the tables that hold them.
 *
 * Internal to event_key*.c.  A generation is a row of behavior._key_generation and one partition
 * of behavior._key and one of behavior._key_run (hot, sealed), or one of behavior._key_page and
 * one of behavior._key_filter (packed), named after its number.
 *
 * Locks, but for the switch of core/lock.h on behavior._key, in the order in which they are taken:
 *
 * KEY_LOCK_MAINTENANCE	exclusive, to the end of the transaction: one maintainer at a time.
 * KEY_LOCK_FIRST_USE	exclusive, to the end of the transaction: makes what exists once.
 * the switch			shared while a flush uses the list and the tables in it,
 *						let go before it waits for a transaction.  Exclusive, to
 *						the end of a short transaction, for whoever changes the list.
 *						So whoever holds it shared sees the list at rest.
 * 0 .. KEY_BUCKETS - 1	exclusive: the keys of this hash.  A holder
 *						waits for nothing but buffers and file extension.
 *
 * The switch is a lock on a relation, RowShareLock and ExclusiveLock, since each statement takes it
 * shared: such a lock stays with the backend (the "fast path" of the lock manager) as long as
 * nobody wants it exclusively, where senders would meet at one partition of the table of locks.
 * On behavior._key_switch, a composite type that is nothing but that: no command of maintenance
 * locks one, where a REINDEX CONCURRENTLY that waits would hold up whoever changes the list, and
 * he the senders; and nobody but its owner can keep a lock on it that conflicts with ours.
 *
 * A sender keeps RowExclusiveLock on the hot partition that it wrote to until its transaction
 * ends: whoever gets ShareLock on a sealed one knows that no open transaction has keys there.
 */
#ifndef BEHAVIOR_KEY_GENERATION_H
#define BEHAVIOR_KEY_GENERATION_H

#include "datatype/timestamp.h"
#include "storage/buf.h"
#include "storage/itemptr.h"
#include "storage/lockdefs.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#define KEY_BUCKETS			 64
#define KEY_LOCK_FIRST_USE	 65
#define KEY_LOCK_MAINTENANCE 66

typedef enum KeyState
{
	KEY_STATE_HOT,	  /* takes inserts */
	KEY_STATE_SEALED, /* takes no more; open transactions may have keys in it */
	KEY_STATE_PACKED, /* rows of sorted keys and a filter; all committed */
	KEY_STATE_DROPPED /* no longer looked at; its tables are to go */
} KeyState;

typedef struct KeyGeneration
{
	int generation;
	KeyState state;
	int level;						/* of a packed one: by size, from 1 */
	int64 keys;						/* of a packed one */
	int64 filter_blocks;			/* of a packed one: Bloom filter blocks */
	TimestampTz oldest_received_at; /* no key in it was received before */
	TimestampTz newest_received_at; /* nor after; DT_NOEND while it is hot */
	ItemPointerData tid;			/* of its row */
} KeyGeneration;

/* Which table of a generation. */
typedef enum KeyTable
{
	KEY_TABLE_KEY,
	KEY_TABLE_RUN,
	KEY_TABLE_PAGE,
	KEY_TABLE_FILTER
} KeyTable;

/* The list, ascending, in the current memory context.  NULL snapshot: SnapshotSelf. */
extern KeyGeneration *key_generation_list(Snapshot snapshot, int *count);

/* A generation and its tables.  Those of a dropped one are not looked up. */
typedef struct KeyGenerationTables
{
	KeyGeneration generation;
	Oid relid;						/* keys, or pages when packed; invalid: it is missing */
	Oid run_relid;					/* not of a packed one */
	Oid filter_relid;				/* packed only */
	BlockNumber filter_file_blocks; /* what its file has; invalid: not looked at yet */
	Oid index_relid;				/* of relid, to be searched; invalid: not looked at yet */
	bool only_index;				/* it has no other */
	bool any;						/* the table of keys has had a row */
	Buffer *filter_buffers;			/* where its blocks were seen last, 0: not yet; may be NULL */
	int filter_bits_offset;			/* of the bits in each of those pages */
} KeyGenerationTables;

/* The same list with the tables. */
extern KeyGenerationTables *key_generation_tables(Snapshot snapshot, int *count);

/*
 * What key_generation_tables(NULL) returns, kept by the backend until it changes.  To be called
 * under the switch; stays in place until the next call.
 */
extern KeyGenerationTables *key_generation_known(int *count);

/* Whether nothing has changed since. */
extern bool key_generation_still_known(void);

/* The switch, see above. */
extern Oid key_switch_lock(LOCKMODE mode);
extern void key_switch_unlock(Oid relid, LOCKMODE mode);

/* Makes room, in what is kept, for where the blocks of a packed generation's filter are. */
extern void key_generation_keep_buffers(KeyGenerationTables *tables);

/* Makes the first generation in the caller's transaction, unless somebody else just did. */
extern void key_generation_first_use(void);

/* Writes a new row; changes one; removes one.  Under the switch, exclusive, or for the first. */
extern void key_generation_insert(const KeyGeneration *row);
extern void key_generation_update(KeyGeneration *row);
extern void key_generation_delete(KeyGeneration *row);

/* OID of a generation's table, InvalidOid when there is none. */
extern Oid key_table_oid(KeyTable table, int generation);

/*
 * OID of the index of such a table that may be searched, InvalidOid while a restore has not made it
 * yet.  There may be others: while it is rebuilt by REINDEX CONCURRENTLY, or made by somebody.
 */
extern Oid key_table_index_oid(Relation rel);
extern int key_table_index_count(Relation rel);

/* Makes and attaches an empty table; its index is made by key_table_make_index(). */
extern Oid key_table_make(KeyTable table, int generation);
extern void key_table_make_index(KeyTable table, int generation);

/* Makes all that a hot generation needs. */
extern void key_table_make_hot(int generation);

/* Drops a generation's tables; false, with nothing done, when a reader's lock is in the way. */
extern bool key_table_drop_all(int generation);

#endif

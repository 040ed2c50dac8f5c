/*
 * key_hash_index.c
 *		A short look into a hot generation's index before it is scanned.
 *
 * Nearly every key that is claimed is new.  To learn that by an index scan costs 0.7 us: the scan
 * key, the scan's own lists of matches, and the access method's indirections.  This looks for the
 * key's 32 bits of hash in its bucket and stops there, by the access method's own functions
 * and rules (access/hash/README): the primary page stays pinned while its overflow pages are
 * walked, one page locked at a time, so no split or squeeze of the bucket can come between.
 *
 * Where the bucket is being filled by a split that has not ended, its entries may still be in
 * the old bucket: then the answer is "perhaps", and the scan knows what to do.
 */
#include "postgres.h"

#include "access/hash.h"
#include "catalog/pg_am_d.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

#include "ingest/key_hash_index.h"

static bool
page_has(Page page, uint32 hash)
{
	OffsetNumber offset = _hash_binsearch(page, hash);
	IndexTuple entry;

	if (offset > PageGetMaxOffsetNumber(page))
		return false;
	entry = (IndexTuple) PageGetItem(page, PageGetItemId(page, offset));
	return _hash_get_indextuple_hashkey(entry) == hash;
}

bool
key_hash_index_may_hold(Relation index, const uint8 *key)
{
	uint32 hash;
	Buffer primary;
	Buffer buffer;
	Page page;
	HashPageOpaque opaque;
	bool found;

	if (index->rd_rel->relam != HASH_AM_OID)
		return true;

	hash = _hash_datum2hashkey(index, PointerGetDatum(key));
	primary = _hash_getbucketbuf_from_hashkey(index, hash, HASH_READ, NULL);
	buffer = primary;
	page = BufferGetPage(buffer);
	opaque = HashPageGetOpaque(page);
	found = H_BUCKET_BEING_POPULATED(opaque) || page_has(page, hash);

	while (!found && BlockNumberIsValid(opaque->hasho_nextblkno))
	{
		BlockNumber next = opaque->hasho_nextblkno;

		if (buffer == primary)
			LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
		else
			_hash_relbuf(index, buffer);
		CHECK_FOR_INTERRUPTS();
		buffer = _hash_getbuf(index, next, HASH_READ, LH_OVERFLOW_PAGE);
		page = BufferGetPage(buffer);
		opaque = HashPageGetOpaque(page);
		found = page_has(page, hash);
	}

	_hash_relbuf(index, buffer);
	if (buffer != primary)
		_hash_dropbuf(index, primary);
	return found;
}

-- Idempotency keys.  One generation is hot and takes inserts; older ones are sealed, then packed into
-- pages of sorted keys with a Bloom filter in front.  See event_key.h for who may do what under which lock.
CREATE TABLE behavior._key_generation (
	generation			int PRIMARY KEY,
	state				text NOT NULL CHECK (state IN ('hot', 'sealed', 'packed')),
	level				int NOT NULL DEFAULT 0,		-- 0: as it was written; 1, 2: merged
	keys				bigint NOT NULL DEFAULT 0,	-- of a packed generation
	sealed_xid			xid8,						-- when sealed: transactions older than this may still add to it
	newest_received_at	timestamptz					-- newest key, known once sealed
);
SELECT pg_catalog.pg_extension_config_dump('behavior._key_generation', '');
COMMENT ON TABLE behavior._key_generation IS 'generations of idempotency keys';

CREATE TABLE behavior._key (
	key			uuid NOT NULL,		-- SipHash-2-4-128 of source and event_id
	fingerprint	bigint NOT NULL,	-- of the payload: tells a conflict from a duplicate
	batch_id	bigint NOT NULL,
	generation	int NOT NULL
) PARTITION BY LIST (generation);
SELECT pg_catalog.pg_extension_config_dump('behavior._key', '');
COMMENT ON TABLE behavior._key IS 'idempotency keys of the hot generation and of those not yet packed';

CREATE TABLE behavior._key_page (
	first_key	uuid NOT NULL,
	page		int NOT NULL,		-- 0 .. n-1 within the generation, in the order of the keys
	keys		bytea NOT NULL,		-- see event_key_pack.c
	generation	int NOT NULL
) PARTITION BY LIST (generation);
SELECT pg_catalog.pg_extension_config_dump('behavior._key_page', '');
COMMENT ON TABLE behavior._key_page IS 'packed keys: a few hundred sorted ones a row';

CREATE TABLE behavior._key_filter (
	segment		int NOT NULL,		-- 0 .. n-1 within the generation
	bits		bytea NOT NULL,
	generation	int NOT NULL
) PARTITION BY LIST (generation);
SELECT pg_catalog.pg_extension_config_dump('behavior._key_filter', '');
COMMENT ON TABLE behavior._key_filter IS 'blocked Bloom filter of each packed generation';
REVOKE ALL ON behavior._key_generation, behavior._key, behavior._key_page, behavior._key_filter FROM PUBLIC;

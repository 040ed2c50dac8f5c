-- Idempotency keys.  One generation is hot and takes inserts; older ones are sealed, then packed into
-- pages of sorted keys with a Bloom filter in front.  See event_key.h for who may do what under which lock.
CREATE TABLE behavior._key_generation (
	generation			int PRIMARY KEY,
	state				text NOT NULL CHECK (state IN ('hot', 'sealed', 'packed', 'dropped')),
	level				int NOT NULL DEFAULT 0,		-- 0: as it was written; 1 and up: packed, by size
	keys				bigint NOT NULL DEFAULT 0,	-- of a packed generation
	filter_blocks		bigint NOT NULL DEFAULT 0,	-- of a packed generation: blocks of its Bloom filter
	oldest_received_at	timestamptz NOT NULL,		-- no key in it was received before
	newest_received_at	timestamptz					-- nor after; NULL while it is hot
);
SELECT pg_catalog.pg_extension_config_dump('behavior._key_generation', '');
COMMENT ON TABLE behavior._key_generation IS 'generations of idempotency keys';

CREATE TYPE behavior._key_switch AS ();
COMMENT ON TYPE behavior._key_switch IS 'is locked: shared by statements that send events, exclusively by whoever changes the list of generations';

CREATE TABLE behavior._key (
	key			uuid NOT NULL,		-- SipHash-2-4-128 of source and event_id
	fingerprint	bigint NOT NULL,	-- of the payload: tells a conflict from a duplicate
	batch_id	bigint NOT NULL,
	generation	int NOT NULL
) PARTITION BY LIST (generation);
SELECT pg_catalog.pg_extension_config_dump('behavior._key', '');
COMMENT ON TABLE behavior._key IS 'idempotency keys of the hot generation and of those not yet packed';

CREATE TABLE behavior._key_run (
	part		uuid NOT NULL,		-- the row's identity, see key_run.h
	keys		bytea NOT NULL,		-- see key_page.h
	generation	int NOT NULL
) PARTITION BY LIST (generation);
ALTER TABLE behavior._key_run ALTER keys SET STORAGE PLAIN;
SELECT pg_catalog.pg_extension_config_dump('behavior._key_run', '');
COMMENT ON TABLE behavior._key_run IS 'idempotency keys of large flushes, of the same generations as those in behavior._key';

CREATE TABLE behavior._key_page (
	first_key	uuid NOT NULL,
	page		int NOT NULL,		-- 0 .. n-1 within the generation, in the order of the keys
	keys		bytea NOT NULL,		-- see key_page.h
	generation	int NOT NULL
) PARTITION BY LIST (generation);
ALTER TABLE behavior._key_page ALTER keys SET STORAGE PLAIN;
SELECT pg_catalog.pg_extension_config_dump('behavior._key_page', '');
COMMENT ON TABLE behavior._key_page IS 'packed keys: a few hundred sorted ones a row';

CREATE TABLE behavior._key_filter (
	segment		int NOT NULL,		-- 0 .. n-1 within the generation: alone in the heap block of that number
	bits		bytea NOT NULL,		-- see key_page.h
	generation	int NOT NULL
) PARTITION BY LIST (generation);
ALTER TABLE behavior._key_filter ALTER bits SET STORAGE PLAIN;
SELECT pg_catalog.pg_extension_config_dump('behavior._key_filter', '');
COMMENT ON TABLE behavior._key_filter IS 'blocked Bloom filter of each packed generation';
REVOKE ALL ON behavior._key_generation, behavior._key, behavior._key_run, behavior._key_page, behavior._key_filter FROM PUBLIC;

-- For tests.
CREATE FUNCTION behavior._key_claim(source text, event_ids text[], fingerprints bigint[], batch_id bigint,
	OUT ordinal int, OUT verdict text, OUT batch_id bigint) RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'behavior__key_claim';
REVOKE ALL ON FUNCTION behavior._key_claim(text, text[], bigint[], bigint) FROM PUBLIC;
COMMENT ON FUNCTION behavior._key_claim(text, text[], bigint[], bigint) IS 'claims keys for a batch as a sending statement would; verdict: new, duplicate or conflict';

CREATE FUNCTION behavior._key_find(source text, event_id text) RETURNS bigint
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'behavior__key_find';
REVOKE ALL ON FUNCTION behavior._key_find(text, text) FROM PUBLIC;
COMMENT ON FUNCTION behavior._key_find(text, text) IS 'the batch that has a key, or NULL';

CREATE FUNCTION behavior._key_maintain() RETURNS boolean
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'behavior__key_maintain';
REVOKE ALL ON FUNCTION behavior._key_maintain() FROM PUBLIC;
COMMENT ON FUNCTION behavior._key_maintain() IS 'one step of maintenance of the key generations, alone in its transaction; true: commit and call again';

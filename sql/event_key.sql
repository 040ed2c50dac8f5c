-- Idempotency keys: claiming, generations, packing.  A claim shows ordinal, verdict and the batch that has the key.
SET behavior.key_generation_size = 1000;

-- Claims numbered keys, each with its number as fingerprint; counts the verdicts.
CREATE FUNCTION claim_range(first int, last int, batch bigint, OUT verdict text, OUT keys bigint, OUT batches text)
RETURNS SETOF record LANGUAGE sql AS $$
	SELECT c.verdict, count(*), string_agg(DISTINCT c.batch_id::text, ',')
	FROM behavior._key_claim('range', (SELECT array_agg('key ' || i) FROM generate_series(first, last) i),
		(SELECT array_agg(i::bigint) FROM generate_series(first, last) i), batch) c
	GROUP BY 1 ORDER BY 1
$$;
CREATE VIEW generations AS
	SELECT row_number() OVER (ORDER BY generation) AS n, state, level, keys FROM behavior._key_generation;

-- Inside one claim the first wins, in the order of the rows and not of the keys.
SELECT * FROM behavior._key_claim('s', ARRAY['b', 'a', 'b', 'a', 'b', 'c'], ARRAY[1, 2, 1, 3, 4, 5], 10);
-- Across claims.
SELECT * FROM behavior._key_claim('s', ARRAY['a', 'a', 'd', 'b'], ARRAY[2, 3, 6, 1], 11);
-- Source and id are kept apart by their lengths; a key belongs to its source.
SELECT * FROM behavior._key_claim('sa', ARRAY['', 'b'], ARRAY[1, 1], 12);
SELECT * FROM behavior._key_claim('s', ARRAY['ab'], ARRAY[1], 13);
SELECT behavior._key_find('s', 'd') AS d, behavior._key_find('sa', 'b') AS b, behavior._key_find('sa', 'd') AS none;
SELECT * FROM behavior._key_claim('s', '{}', '{}', 14);

-- What is rolled back is free again; what an enclosing transaction has is known.
BEGIN;
SELECT verdict FROM behavior._key_claim('t', ARRAY['outer'], ARRAY[1], 20);
SAVEPOINT a;
SELECT verdict FROM behavior._key_claim('t', ARRAY['inner', 'outer'], ARRAY[1, 1], 21);
SAVEPOINT b;
SELECT verdict FROM behavior._key_claim('t', ARRAY['inner', 'innermost'], ARRAY[1, 1], 22);
RELEASE b;
SELECT behavior._key_find('t', 'innermost');
ROLLBACK TO a;
SELECT verdict, batch_id FROM behavior._key_claim('t', ARRAY['inner', 'innermost', 'outer'], ARRAY[1, 1, 2], 23) ORDER BY ordinal;
COMMIT;
BEGIN;
SELECT verdict FROM behavior._key_claim('t', ARRAY['gone'], ARRAY[1], 24);
ROLLBACK;
SELECT behavior._key_find('t', 'gone') AS gone, behavior._key_find('t', 'inner') AS inner;
SELECT verdict FROM behavior._key_claim('t', ARRAY['gone'], ARRAY[1], 25);
-- An error in a subtransaction frees its keys too.
DO $$
BEGIN
	BEGIN
		PERFORM behavior._key_claim('t', ARRAY['caught'], ARRAY[1], 26);
		RAISE EXCEPTION 'no';
	EXCEPTION WHEN raise_exception THEN
		NULL;
	END;
END
$$;
SELECT verdict FROM behavior._key_claim('t', ARRAY['caught'], ARRAY[1], 27);

-- A transaction that was rolled back leaves nothing that could be packed.
BEGIN;
SELECT * FROM claim_range(1, 3000, 30);
ROLLBACK;
SELECT * FROM claim_range(1, 1500, 31);

-- Maintenance does nothing in a transaction that is not its own.
BEGIN;
SELECT behavior._key_maintain();
COMMIT;
SELECT * FROM generations;
-- One step a transaction: seal.
SELECT behavior._key_maintain() FROM generate_series(1, 3);
SELECT * FROM generations;
-- Sealed keys are still known, new ones go into the hot generation.
SELECT * FROM claim_range(1001, 2000, 32);
-- Pack, then drop what was packed, then nothing.
SELECT behavior._key_maintain();
SELECT * FROM generations;
SELECT behavior._key_maintain();
SELECT behavior._key_maintain();
SELECT * FROM generations;
SELECT * FROM claim_range(1, 3000, 33);
SELECT ordinal, verdict, batch_id FROM behavior._key_claim('range', ARRAY['key 1', 'key 1500', 'key 1501'], ARRAY[0, 0, 1501], 34);
SELECT behavior._key_find('range', 'key 1'), behavior._key_find('range', 'key 1501'), behavior._key_find('range', 'key 3001');

-- Levels: more generations are merged into one, and that into a second.
CREATE PROCEDURE maintain() LANGUAGE plpgsql AS $$
BEGIN
	COMMIT;
	WHILE behavior._key_maintain() LOOP
		COMMIT;
	END LOOP;
END
$$;
CALL maintain();
SELECT * FROM claim_range(3001, 6000, 35);
CALL maintain();
SELECT * FROM generations;
SELECT * FROM claim_range(6001, 12000, 36);
CALL maintain();
SELECT * FROM claim_range(12001, 14000, 37);
CALL maintain();
SELECT * FROM generations;
SELECT * FROM claim_range(1, 14500, 38);

-- In every bucket and every page: each key with its fingerprint and its batch.
SELECT verdict, count(*), min(batch_id), max(batch_id)
FROM behavior._key_claim('range', (SELECT array_agg('key ' || i) FROM generate_series(1, 14500) i),
	(SELECT array_agg((i + 1)::bigint) FROM generate_series(1, 14500) i), 39)
GROUP BY 1;
SELECT count(*) FILTER (WHERE behavior._key_find('range', 'key ' || i) =
	CASE WHEN i <= 1500 THEN 31 WHEN i <= 2000 THEN 32 WHEN i <= 3000 THEN 33 WHEN i <= 6000 THEN 35
		WHEN i <= 12000 THEN 36 WHEN i <= 14000 THEN 37 ELSE 38 END)
FROM generate_series(1, 14500) i;

-- Extreme batch ids and fingerprints survive packing.
SELECT verdict FROM behavior._key_claim('extreme', ARRAY['min', 'max', 'zero'], ARRAY[-9223372036854775808, 9223372036854775807, 0], 9223372036854775807);
SELECT verdict FROM behavior._key_claim('extreme', ARRAY['one'], ARRAY[1], 1);
SELECT * FROM claim_range(20001, 60000, 40);
CALL maintain();
SELECT state FROM generations;
SELECT verdict, batch_id FROM behavior._key_claim('extreme', ARRAY['min', 'max', 'zero', 'one'], ARRAY[-9223372036854775808, 9223372036854775807, 1, 1], 41) ORDER BY ordinal;

-- At most 32 bytes a packed key, index and filter included.
SELECT (SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits
		WHERE inhparent IN ('behavior._key_page'::regclass, 'behavior._key_filter'::regclass)) /
	(SELECT sum(keys) FROM behavior._key_generation) <= 32 AS small;

-- A filter whose rows have moved says "perhaps" instead of "no".
DO $$
BEGIN
	EXECUTE format('UPDATE %s SET segment = segment', (SELECT inhrelid::regclass FROM pg_inherits
		WHERE inhparent = 'behavior._key_filter'::regclass ORDER BY pg_relation_size(inhrelid) DESC LIMIT 1));
END
$$;
SELECT format('VACUUM %s', inhrelid::regclass) FROM pg_inherits
WHERE inhparent = 'behavior._key_filter'::regclass ORDER BY pg_relation_size(inhrelid) DESC LIMIT 1 \gset vacuum_
\o /dev/null
SELECT :'vacuum_format' \gexec
\o
SELECT * FROM claim_range(19001, 21000, 42);

-- Of all keys aborted no generation remains but the hot one.
BEGIN;
SELECT * FROM claim_range(100001, 103000, 50);
ROLLBACK;
SELECT sum(keys) AS before FROM generations \gset
CALL maintain();
SELECT sum(keys) - :before AS packed_since FROM generations;

-- Tables are the extension owner's alone, whatever the session's defaults say; and the sender need own nothing.
SELECT count(*) AS foreign_tables FROM pg_class c
WHERE oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent IN
	('behavior._key'::regclass, 'behavior._key_page'::regclass, 'behavior._key_filter'::regclass))
	AND (relowner <> (SELECT extowner FROM pg_extension WHERE extname = 'behavior')
		OR EXISTS (SELECT FROM aclexplode(relacl) WHERE grantee = 0));
SELECT has_function_privilege('pg_monitor', oid, 'EXECUTE') AS public_may, proname
FROM pg_proc WHERE pronamespace = 'behavior'::regnamespace AND proname LIKE '\_key\_%' ORDER BY 2;

-- Errors have codes.
\set VERBOSITY sqlstate
SELECT * FROM behavior._key_claim('s', ARRAY['a'], ARRAY[1, 2], 1);
SELECT * FROM behavior._key_claim('s', ARRAY['a', NULL], ARRAY[1, 2], 1);

-- As in the middle of a restore: no list yet, no index yet.
BEGIN;
DELETE FROM behavior._key_generation;
SELECT verdict FROM behavior._key_claim('s', ARRAY['zz'], ARRAY[1], 1);
ROLLBACK;
BEGIN;
TRUNCATE behavior._instance;
SELECT verdict FROM behavior._key_claim('s', ARRAY['zz'], ARRAY[1], 1);
ROLLBACK;
SELECT verdict FROM behavior._key_claim('s', ARRAY['a'], ARRAY[2], 1);

-- A new extension is a new database: other seed, no keys.
DROP VIEW generations;
DROP FUNCTION claim_range;
\set VERBOSITY terse
DROP EXTENSION behavior;
CREATE EXTENSION behavior;

BEGIN READ ONLY;
SELECT behavior._key_find('s', 'a');
COMMIT;
SELECT count(*) FROM behavior._instance;
SELECT verdict FROM behavior._key_claim('s', ARRAY['a'], ARRAY[1], 1);
SELECT relname FROM pg_class WHERE relnamespace = 'behavior'::regnamespace AND relname ~ '^_key_\d' ORDER BY 1;

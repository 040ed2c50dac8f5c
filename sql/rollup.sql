-- Rollups: what they answer, live and folded, against the same query over the events.
\set VERBOSITY terse
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE SCHEMA r;
SET search_path = r, public;

-- Differences both ways between a rollup and its own query over behavior.event; folded: against the folded relation.
CREATE FUNCTION differences(name text, folded boolean DEFAULT false) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	query text;
	relation text;
	result bigint;
BEGIN
	SELECT rtrim(r.query, ';'), r.relation::text || CASE WHEN folded THEN '_folded' ELSE '' END INTO STRICT query, relation
	FROM behavior.rollup r WHERE r.name = differences.name;
	EXECUTE format('SELECT count(*) FROM ((SELECT * FROM %2$s EXCEPT ALL %1$s) UNION ALL (%1$s EXCEPT ALL SELECT * FROM %2$s)) d',
		query, relation) INTO result;
	RETURN result;
END
$$;

-- A source of events: late, far apart, with NULL and very long keys.
CREATE FUNCTION send(first int, last int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO behavior.event (event_id, source, type, user_id, anonymous_id, occurred_at, sequence, properties)
	SELECT 'e' || i, CASE WHEN i % 7 = 0 THEN 'app' ELSE 'web' END, (ARRAY['View', 'Buy', 'Add'])[1 + i % 3],
		CASE WHEN i % 4 > 0 THEN 'u' || i % 13 END, CASE WHEN i % 3 > 0 THEN 'd' || i % 17 END,
		'2026-03-28 20:00+00'::timestamptz + (i * 7919 % 3000) * interval '37 seconds', i,
		jsonb_build_object('page', CASE WHEN i % 5 > 0 THEN repeat(chr(97 + i % 3), 1 + (i % 2) * 9000) END,
			'value', i * 0.1, 'ok', i % 2 = 0, 'n', CASE WHEN i % 6 > 0 THEN i END, 'scale', (ARRAY['1.0', '1.00', '1', '2'])[1 + i % 4])
	FROM generate_series(first, last) i
$$;

-- On an empty log a rollup is current at once.
SELECT behavior.create_rollup('total', $$
	SELECT count(*) AS events, count(user_id) AS known, sum(sequence) AS sum, avg(sequence) AS average,
		min(occurred_at), max(type), bool_and(type <> 'x'), bool_or(type = 'Buy'), every(source = 'web'),
		bit_and(sequence), bit_or(sequence::int),
		count(*) FILTER (WHERE type = 'Buy')::numeric / nullif(count(*), 0) AS rate
	FROM behavior.event $$);
SELECT name, relation, storage, state, progress, events_set_aside FROM behavior.rollup;
SELECT * FROM total;
SELECT * FROM total_folded;
SELECT behavior.create_rollup('pages', $$
	SELECT behavior.time_bucket('1 hour', occurred_at, 'Europe/Berlin') AS bucket, properties ->> 'page' AS page, type,
		count(*) AS n, sum((properties ->> 'value')::numeric) AS value, avg((properties ->> 'n')::int) AS n_average
	FROM behavior.event GROUP BY 1, page, type $$);
SELECT behavior.create_rollup('r.keys', 'SELECT user_id, anonymous_id, actor FROM behavior.event WHERE source = ''app'' GROUP BY user_id, 2, 3');
SELECT behavior.create_rollup('hidden', 'SELECT count(*) + 1 AS n FROM behavior.event GROUP BY type, source;');
SELECT behavior.create_rollup('spans', 'SELECT type, avg(received_at - occurred_at), sum(received_at - occurred_at), max(received_at - occurred_at) FROM behavior.event GROUP BY 1');
-- Values that are equal and look different are one key.
SELECT behavior.create_rollup('kinds', $$
	SELECT (properties ->> 'scale')::numeric AS scale, properties -> 'ok' AS ok, (properties ->> 'ok')::boolean AS yes,
		-((properties ->> 'n')::float8 * 0) AS zero, make_interval(hours => 24 * (sequence % 2)::int) AS span, ARRAY[type, NULL] AS types,
		decode(md5(type), 'hex') AS bytes, type::varchar(2) AS short, type::char(9) AS padded, type COLLATE "POSIX" AS collated,
		'constant' AS constant, count(*)
	FROM behavior.event GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 $$);
SELECT behavior.create_rollup('on_top', 'SELECT upper(type) || source AS t, lower(type), count(*) * 2 + length(upper(type)) AS c FROM behavior.event GROUP BY upper(type), source, lower(type)');

SELECT send(1, 1000);
SELECT name, differences(name) FROM behavior.rollup ORDER BY name COLLATE "C";
SELECT count(*) FROM pages_folded;
CALL behavior.tick();
SELECT name, differences(name), differences(name, true) FROM behavior.rollup ORDER BY name COLLATE "C";
-- Late events of old buckets; half of them folded, half of them tail.
SELECT send(1001, 2000);
CALL behavior.tick();
SELECT send(2001, 2500);
SELECT name, differences(name) FROM behavior.rollup ORDER BY name COLLATE "C";
SELECT events, known, sum, average, min, max, bool_and, bool_or, every, bit_and, bit_or, round(rate, 4) FROM total;
SELECT events FROM total_folded;
SELECT count(*), max(length(page)) FROM pages;
SELECT page IS NULL AS page_is_null, type, sum(n), sum(value) FROM pages GROUP BY 1, 2 ORDER BY 1, 2;
SELECT scale, count(*), sum(count) FROM kinds GROUP BY 1 ORDER BY 1;
-- Own uncommitted events count, and go with the transaction; so does a tick.
BEGIN;
SELECT send(2501, 2600);
SELECT events FROM total;
CALL behavior.tick();
SELECT events FROM total_folded;
SELECT send(2601, 2610);
SELECT events FROM total;
SELECT name, differences(name) FROM behavior.rollup WHERE name IN ('pages', 'hidden') ORDER BY 1;
ROLLBACK;
SELECT events FROM total;
SELECT events FROM total_folded;
CALL behavior.tick();
SELECT name, differences(name), differences(name, true) FROM behavior.rollup ORDER BY name COLLATE "C";
SELECT * FROM behavior.verify();

-- A condition on a key reaches the state.
SET enable_seqscan = off;
DO $$
DECLARE
	line text;
	found boolean := false;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN SELECT type, sum(n) FROM r.pages WHERE bucket >= ''2026-03-29 12:00+00'' GROUP BY 1' LOOP
		found := found OR line ~ 'Index Cond: \(k_1 >=';
	END LOOP;
	IF NOT found THEN
		RAISE WARNING 'the condition does not reach the index';
	END IF;
END
$$;
RESET enable_seqscan;

-- verify() sees what does not belong; with bounds, only cells that start there.
UPDATE _pages_state SET s_1 = s_1 + 1 WHERE k_1 = '2026-03-29 10:00+00' AND k_3 = 'Buy' AND k_2 IS NULL;
DELETE FROM _pages_state WHERE k_1 = '2026-03-29 12:00+00' AND k_3 = 'Buy' AND k_2 IS NULL;
SELECT projection, key, folded ->> 's_1: count(*)' AS folded, recomputed ->> 's_1: count(*)' AS recomputed FROM behavior._verify_rollup('pages', NULL, NULL) ORDER BY key::text;
SELECT key ->> 'bucket' AS bucket FROM behavior._verify_rollup('pages', '2026-03-29 11:00+00', '2026-03-29 13:00+00');
SELECT count(*) FROM behavior._verify_rollup('pages', '2026-03-29 13:00+00', NULL);
SELECT behavior.rebuild('pages');
CALL behavior.tick();
SELECT count(*) FROM behavior.verify('pages');
SELECT differences('pages'), differences('pages', true);

-- Names.
SELECT behavior.create_rollup('total', 'SELECT count(*) FROM behavior.event', true);
\set VERBOSITY sqlstate
SELECT behavior.create_rollup('total', 'SELECT count(*) FROM behavior.event');
SELECT behavior.create_rollup('nowhere.total', 'SELECT count(*) FROM behavior.event');
SELECT behavior.create_rollup('pg_temp.total', 'SELECT count(*) FROM behavior.event');
\set VERBOSITY terse
SELECT behavior.create_rollup('public.total', 'SELECT count(*) FROM behavior.event');
SELECT behavior.create_rollup(repeat('x', 63), 'SELECT count(*) FROM behavior.event');
SELECT behavior.create_rollup('"Odd ""name"', 'SELECT count(*) FROM behavior.event -- with a comment');
CALL behavior.tick();
SELECT name, relation, state, (SELECT c.relname FROM pg_class c WHERE c.oid = r.storage) AS storage FROM behavior.rollup r WHERE relation::text ~ 'x|Odd|public' ORDER BY name COLLATE "C";
SELECT * FROM "Odd ""name";
-- Renaming columns, functions and relations does no harm.
CREATE FUNCTION r.kind(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT left($1, 1)';
SELECT behavior.create_rollup('renamed', 'SELECT r.kind(type) AS kind, count(*) FROM behavior.event GROUP BY 1');
CALL behavior.tick();
ALTER FUNCTION r.kind(text) RENAME TO sort;
ALTER VIEW renamed RENAME TO after;
ALTER TABLE _renamed_state RENAME TO _after;
ALTER VIEW after SET SCHEMA public;
SELECT send(2701, 2710);
SELECT name, relation, differences(name) FROM behavior.rollup WHERE name = 'renamed';
CALL behavior.tick();
SELECT differences('renamed');
SELECT * FROM behavior.verify('renamed');

-- Dropping.
SELECT behavior.drop_rollup('renamed');
\set VERBOSITY sqlstate
SELECT behavior.drop_rollup('renamed');
SELECT behavior.drop_rollup('pg_class');
SELECT behavior.drop_rollup('behavior.activity');
\set VERBOSITY terse
SELECT behavior.drop_rollup('renamed', if_exists => true);
CREATE VIEW above AS SELECT type, sum(n) FROM pages GROUP BY 1;
\set VERBOSITY sqlstate
SELECT behavior.drop_rollup('pages');
\set VERBOSITY terse
SELECT behavior.drop_rollup('pages', cascade => true);
-- Without asking us: the next tick cleans up.
DROP VIEW hidden;
DROP TABLE _kinds_state CASCADE;
CALL behavior.tick();
SELECT name FROM behavior.rollup ORDER BY name COLLATE "C";
SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'r'::regnamespace AND relname ~ 'pages|hidden|kinds|renamed' ORDER BY 1;
SELECT behavior.create_rollup('kinds', 'SELECT count(*) FROM behavior.event');
CALL behavior.tick();
SELECT * FROM kinds_folded;
SELECT * FROM behavior.verify();

-- Constants mean what they meant to whoever wrote them, whatever the settings of then and now.
SET timezone = 'Asia/Kolkata';
SET datestyle = 'SQL, DMY';
SET intervalstyle = 'sql_standard';
SELECT behavior.create_rollup('constants', $$
	SELECT type, max(occurred_at) - timestamptz '01/06/2030 00:00+00' AS since, interval '-1 days +02:03:04' AS i
	FROM behavior.event WHERE occurred_at >= timestamptz '01/06/2024 00:00+00' AND type = 'Constant' GROUP BY 1 $$);
RESET timezone;
RESET datestyle;
RESET intervalstyle;
INSERT INTO behavior.event (type, occurred_at) VALUES ('Constant', '2024-05-31 20:00+00'), ('Constant', '2024-06-01 12:00+00');
CALL behavior.tick();
SELECT count(*), max(since) = timestamptz '2024-06-01 12:00+00' - timestamptz '2030-06-01 00:00+00' AS same, max(i) = interval '-1 days +02:03:04' FROM constants;
SELECT behavior.drop_rollup('constants');

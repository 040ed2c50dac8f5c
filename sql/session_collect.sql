-- Sessions collected as runs: events of a tick in any order, in one chunk of memory or many.
SET timezone = 'UTC';
SET datestyle = 'ISO';

-- Visits of 40 visitors over three days, cut up by pauses around the timeout; times that are equal, and keys that
-- come from names, texts and properties of all lengths, compressed ones too.
SELECT setseed(0.7);
CREATE TABLE sent AS
	SELECT i, CASE WHEN i % 7 = 0 THEN i || repeat('-long-', 30) ELSE 'e' || i END AS event_id,
		CASE WHEN i % 50 = 0 THEN 'shop' || repeat('s', 200) ELSE 'shop' END AS source,
		CASE WHEN i % 11 = 0 THEN 'Type ' || i % 1000 WHEN i % 3 = 0 THEN 'View' ELSE 'Clicked' END AS type,
		CASE WHEN random() < 0.2 THEN 'u' || (random() * 5)::int END AS user_id,
		CASE WHEN random() < 0.95 THEN repeat('v', (random() * 39)::int) || 'v' END AS anonymous_id,
		'2024-06-01 00:00+00'::timestamptz + (random() * 4000)::int * interval '1 minute' AS occurred_at,
		CASE WHEN random() < 0.5 THEN (random() * 2)::int END AS sequence,
		CASE (random() * 7)::int
			WHEN 0 THEN jsonb_build_object('page', '/' || i, 'n', i)
			WHEN 1 THEN jsonb_build_object('page', '')
			WHEN 2 THEN jsonb_build_object('path', i)
			WHEN 3 THEN jsonb_build_object('url', '/' || repeat('path/', 20) || i, 'utm_source', 's' || i, 'a', repeat('a', 200))
			WHEN 4 THEN jsonb_build_object('page', repeat('deep/', 2000) || i, 'referrer', i)
			WHEN 5 THEN jsonb_build_object('utm_source', 's' || i, 'utm_term', jsonb_build_array(i))
			ELSE '{}' END AS properties
	FROM generate_series(1, 3000) i;
CREATE PROCEDURE send(name text, ordering text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('INSERT INTO behavior.event (event_id, source, type, user_id, anonymous_id, occurred_at, sequence, properties)
		SELECT event_id, %L || source, type, user_id, anonymous_id, occurred_at, sequence, properties FROM sent ORDER BY %s', name, ordering);
END
$$;
CALL send('a', 'occurred_at');
CALL behavior.tick();
CALL send('b', 'occurred_at DESC, i');
CALL behavior.tick();
CALL send('c', 'hashint4(i)');
CALL behavior.tick();
CALL send('d', 'extract(minute FROM occurred_at), i');
CALL behavior.tick();
SELECT count(*) > 1000 AS many, sum(events) FROM behavior.session WHERE source LIKE 'ashop%';
SELECT count(*) FROM behavior.verify('sessions');

-- A tick that memory holds in several chunks, and one that it does not hold: 2 MB each, three of them.
SET maintenance_work_mem = '1MB';
CREATE PROCEDURE send_many(name text, n int, ordering text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('INSERT INTO behavior.event (event_id, source, type, anonymous_id, occurred_at, properties)
		SELECT ''e'' || i, %L, ''View'', ''v'' || i %% 50, ''2024-07-01 00:00+00''::timestamptz + i * interval ''1 second'', jsonb_build_object(''page'', ''/'' || i, ''text'', repeat(''t'', 200))
		FROM generate_series(1, %s) i ORDER BY %s', name, n, ordering);
END
$$;
SELECT pg_stat_force_next_flush();	-- what follows is counted from naught
BEGIN;
CALL send_many('few chunks', 9000, 'i');
CALL behavior.tick();
SELECT pg_stat_get_xact_tuples_inserted('behavior._session'::regclass) AS inserted, pg_stat_get_xact_tuples_updated('behavior._session'::regclass) AS updated;
COMMIT;
SELECT pg_stat_force_next_flush();	-- what follows is counted from naught
BEGIN;
CALL send_many('many chunks', 18000, 'i');
CALL behavior.tick();
SELECT pg_stat_get_xact_tuples_inserted('behavior._session'::regclass) AS inserted, pg_stat_get_xact_tuples_updated('behavior._session'::regclass) > 0 AS updated;
COMMIT;
CALL send_many('shuffled', 18000, 'hashint4(i)');
CALL behavior.tick();
SELECT source, count(*), sum(events) AS events, sum(page_views) AS page_views FROM behavior.session WHERE visitor LIKE 'v_%' AND source NOT LIKE '_shop%' GROUP BY source ORDER BY source COLLATE "C";
RESET maintenance_work_mem;

-- A fold that fails leaves nothing, also of what it had collected, and the next one is whole: this index has no
-- room for the first page of the last of many visitors.
CREATE INDEX no_room ON behavior._session (exit_page);
CALL send_many('fails', 500, 'i');
INSERT INTO behavior.event (event_id, source, type, anonymous_id, occurred_at, properties)
SELECT 'long', 'fails', 'View', 'long', '2024-07-01 00:00+00', jsonb_build_object('page', string_agg(md5(i::text), '')) FROM generate_series(1, 300) i;
SET client_min_messages = error;
CALL behavior.tick();
SELECT count(*) FROM behavior.session WHERE source = 'fails';
SELECT state, error LIKE 'index row%' AS too_long FROM behavior.projection WHERE name = 'sessions';
DROP INDEX behavior.no_room;
CALL behavior.tick();
RESET client_min_messages;
SELECT count(*), sum(events) FROM behavior.session WHERE source = 'fails';
SELECT count(*) FROM behavior.verify('sessions');

-- A rebuild reads the rows where they lie, and keeps nothing of them.
SELECT behavior.rebuild('sessions');
CREATE TABLE before AS SELECT * FROM behavior.session;
CALL behavior.tick();
SELECT count(*) FROM (SELECT * FROM before EXCEPT ALL SELECT * FROM behavior.session) x;
SELECT count(*) FROM (SELECT * FROM behavior.session EXCEPT ALL SELECT * FROM before) x;
DROP TABLE sent, before;
DROP PROCEDURE send;
DROP PROCEDURE send_many;

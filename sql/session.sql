-- Sessions: a function of the set of events, in whatever order and batches they arrive.
\set VERBOSITY sqlstate
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';

CREATE TABLE visit (event_id text, source text DEFAULT 'shop', type text DEFAULT 'PageView', user_id text, anonymous_id text,
	at time, sequence bigint, properties jsonb DEFAULT '{}', context jsonb);
CREATE FUNCTION send(ids text[]) RETURNS void LANGUAGE sql AS $$
	INSERT INTO behavior.event (event_id, source, type, user_id, anonymous_id, occurred_at, sequence, properties, context)
	SELECT event_id, source, type, user_id, anonymous_id, '2024-05-01'::date + at, sequence, properties, context
	FROM visit WHERE event_id = ANY (ids) ORDER BY array_position(ids, event_id)
$$;
CREATE VIEW short AS SELECT visitor, user_id, started_at::time AS started, duration, events, entry_type AS entry, exit_type AS exit
	FROM behavior.session;

-- A login in the middle does not cut a visit: the visitor is the device; user_id is the last one seen.
INSERT INTO visit (event_id, type, user_id, anonymous_id, at) VALUES
	('l1', 'PageView', NULL, 'device', '10:00'), ('l2', 'Login', 'ann', 'device', '10:10'), ('l3', 'Buy', 'ann', 'device', '10:20'),
	('l4', 'Logout', NULL, 'device', '10:30'), ('l5', 'PageView', 'bob', NULL, '10:40'), ('l6', 'PageView', NULL, NULL, '10:50');
SELECT send('{l1,l2,l3,l4,l5,l6}');
CALL behavior.tick();
SELECT * FROM short ORDER BY visitor;
SELECT event_id, s.visitor FROM behavior.event_session e LEFT JOIN behavior.session s USING (session_id) ORDER BY event_id;
-- The id can be computed by anyone.
SELECT session_id = behavior.session_id('shop', 'device', 'l1') AS same FROM behavior.session WHERE visitor = 'device';
SELECT behavior.session_id('shop', 'device', 'l1');

-- Exactly the timeout apart is still one session; sources are apart.
INSERT INTO visit (event_id, source, anonymous_id, at) VALUES
	('t1', 'shop', 't', '10:00'), ('t2', 'shop', 't', '10:30'), ('t3', 'shop', 't', '11:00:00.000001'), ('t4', 'app', 't', '10:15');
SELECT send('{t1,t2,t3,t4}');
CALL behavior.tick();
SELECT s.source, s.started_at::time, s.ended_at::time, s.events FROM behavior.session s WHERE visitor = 't' ORDER BY source, started_at;

-- Ignored types neither open, extend nor count.
INSERT INTO visit (event_id, type, anonymous_id, at) VALUES
	('i1', 'identify', 'i', '10:00'), ('i2', 'PageView', 'i', '10:05'), ('i3', 'group', 'i', '10:20'), ('i4', 'PageView', 'i', '10:40'), ('i5', 'alias', 'j', '10:00');
SELECT send('{i1,i2,i3,i4,i5}');
CALL behavior.tick();
SELECT * FROM short WHERE visitor IN ('i', 'j') ORDER BY started;
SELECT event_id, session_id IS NOT NULL AS has_session FROM behavior.event_session WHERE anonymous_id IN ('i', 'j') ORDER BY event_id;

-- A late event extends a session, opens one before it, or bridges two; old ids keep resolving.
INSERT INTO visit (event_id, anonymous_id, at) VALUES
	('b1', 'b', '10:00'), ('b2', 'b', '10:20'), ('b3', 'b', '11:15'), ('b4', 'b', '11:30'), ('b5', 'b', '10:45'), ('b6', 'b', '09:40'), ('b7', 'b', '08:00');
SELECT send('{b1,b3}');
CALL behavior.tick();
SELECT * FROM short WHERE visitor = 'b' ORDER BY started;
SELECT send('{b2}');
CALL behavior.tick();
SELECT send('{b4}');
CALL behavior.tick();
SELECT * FROM short WHERE visitor = 'b' ORDER BY started;
SELECT send('{b5}');
CALL behavior.tick();
SELECT * FROM short WHERE visitor = 'b' ORDER BY started;
SELECT send('{b6}');
CALL behavior.tick();
SELECT send('{b7}');
CALL behavior.tick();
SELECT * FROM short WHERE visitor = 'b' ORDER BY started;
SELECT id AS once_began_with, behavior.session_id('shop', 'b', 'b6') = a.merged_into AS leads_to_b6
FROM unnest('{b1,b3}'::text[]) AS id JOIN behavior.session_alias a ON a.session_id = behavior.session_id('shop', 'b', id) ORDER BY id;
SELECT count(*) FROM behavior.session_alias;

-- Order: time, then sequence with NULL first, then event_id by bytes.
INSERT INTO visit (event_id, type, anonymous_id, at, sequence) VALUES
	('o2', 'null', 'o', '10:00', NULL), ('o1', 'null b', 'o', '10:00', NULL), ('O1', 'null a', 'o', '10:00', NULL), ('o0', 'one', 'o', '10:00', 1), ('o3', 'two', 'o', '10:00', 2);
SELECT send('{o3,o1,o0,O1,o2}');
CALL behavior.tick();
SELECT entry_type, exit_type, type_counts FROM behavior.session WHERE visitor = 'o';

-- Pages and properties: of the first event that has any, in the order of time and not of arrival.
INSERT INTO visit (event_id, type, anonymous_id, at, properties, context) VALUES
	('p1', 'Open', 'p', '10:00', '{"page": null, "other": 1}', NULL),
	('p2', 'View', 'p', '10:01', '{"path": 42, "url": "u2", "utm_source": null}', '{"campaign": {"name": "spring", "source": "news", "utm_term": "t"}}'),
	('p3', 'View', 'p', '10:02', '{"page": {"no": "scalar"}, "url": "u3", "utm_source": "late"}', NULL),
	('p4', 'Close', 'p', '10:03', '{"page": true, "referrer": ["x"]}', NULL);
SELECT send('{p4}');
CALL behavior.tick();
SELECT entry_page, exit_page, page_views, entry_properties FROM behavior.session WHERE visitor = 'p';
SELECT send('{p3}');
CALL behavior.tick();
SELECT entry_page, exit_page, page_views, entry_properties FROM behavior.session WHERE visitor = 'p';
SELECT send('{p1,p2}');
CALL behavior.tick();
SELECT entry_page, exit_page, page_views, entry_properties FROM behavior.session WHERE visitor = 'p';
SELECT * FROM behavior.verify('sessions');

-- Verify sees what is wrong.
BEGIN;
UPDATE behavior._session SET events = events + 1 WHERE visitor = 'o';
DELETE FROM behavior._session WHERE visitor = 'i' AND entry_type = 'PageView' AND started_at > '2024-05-01 10:30+00';
UPDATE behavior.session_alias SET merged_into = session_id;
SELECT projection, count(*), count(key ->> 'session_alias') AS aliases, count(folded) AS folded, count(recomputed) AS recomputed
FROM behavior.verify() WHERE projection = 'sessions' GROUP BY projection;
SELECT count(*) FROM behavior.verify('sessions', '2024-05-01 10:00+00', '2024-05-01 10:30+00');
SELECT count(*) FROM behavior.verify('sessions', '2024-05-01 11:00+00');
DELETE FROM behavior.session_alias;
DELETE FROM behavior._session WHERE started_at > '2024-05-01 09:00+00';
SELECT count(*), sum((recomputed ->> 'events')::int) AS events, count(folded) AS folded FROM behavior.verify('sessions');
SELECT count(*) FROM behavior.verify('sessions', '2024-05-01 11:00+00');
ROLLBACK;

-- Any order and any split into batches give the same rows as all at once, and old ids resolve in one lookup.
SELECT setseed(0.42);
CREATE TABLE traffic AS
	SELECT 'e' || i AS event_id, (ARRAY['shop', 'app'])[1 + i % 2] AS source,
		(ARRAY['View', 'Click', 'Buy', 'identify'])[1 + (random() * 3)::int] AS type,
		CASE WHEN random() < 0.3 THEN 'u' || (random() * 3)::int END AS user_id,
		CASE WHEN random() < 0.9 THEN 'v' || (random() * 6)::int END AS anonymous_id,
		'2024-06-01 00:00+00'::timestamptz + (random() * 2000)::int * interval '1 minute' AS occurred_at,
		CASE WHEN random() < 0.5 THEN (random() * 3)::int END AS sequence,
		CASE WHEN random() < 0.4 THEN jsonb_build_object('page', '/' || i) WHEN random() < 0.4 THEN jsonb_build_object('utm_source', 's' || i) ELSE '{}' END AS properties
	FROM generate_series(1, 400) i;
CREATE TABLE ever (round int, session_id uuid);
CREATE PROCEDURE send_shuffled(round int, ticks int) LANGUAGE plpgsql AS $$
BEGIN
	CREATE TEMP TABLE shuffled ON COMMIT DROP AS
		SELECT t.*, (random() * (ticks - 1))::int AS part FROM traffic t ORDER BY random();
	FOR p IN 0..ticks - 1 LOOP
		INSERT INTO behavior.event (event_id, source, type, user_id, anonymous_id, occurred_at, sequence, properties)
		SELECT event_id, source || round, type, user_id, anonymous_id, occurred_at, sequence, properties FROM shuffled WHERE part = p AND event_id < 'e5';
		INSERT INTO behavior.event (event_id, source, type, user_id, anonymous_id, occurred_at, sequence, properties)
		SELECT event_id, source || round, type, user_id, anonymous_id, occurred_at, sequence, properties FROM shuffled WHERE part = p AND event_id >= 'e5';
		CALL behavior.tick();
		INSERT INTO ever SELECT round, session_id FROM behavior.session WHERE source IN ('shop' || round, 'app' || round);
	END LOOP;
END
$$;
BEGIN; CALL send_shuffled(0, 1); COMMIT;
BEGIN; CALL send_shuffled(1, 5); COMMIT;
BEGIN; CALL send_shuffled(2, 25); COMMIT;
BEGIN; CALL send_shuffled(3, 60); COMMIT;
CREATE VIEW comparable AS SELECT right(source, 1)::int AS round, left(source, -1) AS source, visitor, user_id, started_at, ended_at, duration, events, page_views,
	entry_type, entry_page, exit_type, exit_page, entry_properties, type_counts FROM behavior.session WHERE source ~ '\d$';
SELECT round, count(*) > 20 AS many, sum(events) > 200 AS events FROM comparable GROUP BY round ORDER BY round;
SELECT r AS round,
	(SELECT count(*) FROM (SELECT source, visitor, user_id, started_at, ended_at, duration, events, page_views, entry_type, entry_page, exit_type, exit_page, entry_properties, type_counts FROM comparable WHERE round = 0
		EXCEPT ALL SELECT source, visitor, user_id, started_at, ended_at, duration, events, page_views, entry_type, entry_page, exit_type, exit_page, entry_properties, type_counts FROM comparable WHERE round = r) x) AS missing,
	(SELECT count(*) FROM (SELECT source, visitor, user_id, started_at, ended_at, duration, events, page_views, entry_type, entry_page, exit_type, exit_page, entry_properties, type_counts FROM comparable WHERE round = r
		EXCEPT ALL SELECT source, visitor, user_id, started_at, ended_at, duration, events, page_views, entry_type, entry_page, exit_type, exit_page, entry_properties, type_counts FROM comparable WHERE round = 0) x) AS unexpected
FROM generate_series(1, 3) r ORDER BY r;
-- Every id that a session ever had is a living one or leads to one; none is both.
SELECT count(DISTINCT e.session_id) > count(DISTINCT s.session_id) AS some_died,
	count(*) FILTER (WHERE (s.session_id IS NULL) = (t.session_id IS NULL)) AS wrong
FROM ever e LEFT JOIN behavior.session s USING (session_id)
	LEFT JOIN (behavior.session_alias a JOIN behavior.session t ON t.session_id = a.merged_into) ON a.session_id = e.session_id;
SELECT count(*) FROM behavior.verify('sessions');
SELECT count(*) FROM behavior.event_session WHERE (session_id IS NULL) IS DISTINCT FROM (coalesce(anonymous_id, user_id) IS NULL OR type IN ('identify', 'group', 'alias'));

-- Event ids and sequences of every kind, all at one moment: what rows keep of them orders events that come later.
CREATE VIEW ids AS SELECT row_number() OVER (ORDER BY sequence NULLS FIRST, event_id COLLATE "C") AS n, * FROM (
	SELECT id AS event_id, NULL::bigint AS sequence FROM unnest(ARRAY['00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff',
		'a81bc81b-dead-4e5d-abff-90865d1e13b1', 'A81BC81B-DEAD-4E5D-ABFF-90865D1E13B1', 'a81bc81bdead4e5dabff90865d1e13b1', 'a81bc81b-dead-4e5d-abff-90865d1e13b',
		'a81bc81b-dead-4e5d-abff-90865d1e13bg', 'a81bc81b_dead_4e5d_abff_90865d1e13b1', '{a81bc81b-dead-4e5d-abff-90865d1e13}', 'x', 'é', repeat('long', 60)]) id
	UNION ALL SELECT repeat(s::text, 2), s FROM unnest('{-9223372036854775808,-300,-64,-1,0,1,63,64,16384,9223372036854775807}'::bigint[]) s) x;
CREATE PROCEDURE send_ids(visitor text, ascending boolean) LANGUAGE plpgsql AS $$
DECLARE i record;
BEGIN
	FOR i IN SELECT * FROM ids ORDER BY CASE WHEN ascending THEN n ELSE -n END LOOP
		INSERT INTO behavior.event (event_id, source, type, anonymous_id, user_id, occurred_at, sequence, properties)
		VALUES (i.event_id, visitor, 'type ' || i.n % 3, visitor, 'u' || i.n, '2024-07-01 10:00+00', i.sequence, jsonb_build_object('page', i.n, 'utm_source', 's' || i.n));
		CALL behavior.tick();
	END LOOP;
END
$$;
BEGIN; CALL send_ids('up', true); CALL send_ids('down', false); COMMIT;
SELECT visitor, user_id, events, entry_type, entry_page, exit_type, exit_page, entry_properties, type_counts FROM behavior.session WHERE visitor IN ('up', 'down') ORDER BY 1;
SELECT count(DISTINCT merge) FROM behavior._session WHERE visitor IN ('up', 'down');
SELECT count(*) FROM behavior.verify('sessions');
-- Nothing is believed of what is packed: whole, cut short at each byte, and with bytes that are none of it.
SELECT behavior._session_type_counts('\x02000501ac02', 'a', 'b'), behavior._session_type_counts('\x00', 'a', 'b'), behavior._session_type_counts('\x01047a7a07', 'a', 'b');
CREATE FUNCTION refused(merge bytea) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM behavior._session_type_counts(merge, 'a', 'b');
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
SELECT behavior._session_type_counts('\x03000504c3a908019601', 'a', 'b');
SELECT n, refused(substr('\x03000504c3a908019601'::bytea, 1, n)) FROM generate_series(0, 10) n;
SELECT refused('\x0103ff01') AS encoding, refused('\x01030001') AS zero, refused('\x0100ffffffffffffffffffff01') AS number, refused('\x0100ffffffffffffffffff01') AS negative,
	refused('\xffffffff0f') AS types, refused('\x01ffffffff0f01') AS name;

-- Rows wider than a page's share, and a visitor with many types.
INSERT INTO behavior.event (event_id, source, type, anonymous_id, occurred_at, properties)
SELECT 'w' || i, 'wide', 'type ' || i, 'w', '2024-05-01 10:00+00'::timestamptz + i * interval '1 second',
	jsonb_build_object('page', (SELECT string_agg(md5((i * 1000 + j)::text), '') FROM generate_series(1, 400) j), 'utm_source', repeat('s', 5000))
FROM generate_series(1, 300) i;
CALL behavior.tick();
INSERT INTO behavior.event (event_id, source, type, anonymous_id, occurred_at)
SELECT 'x' || i, 'wide', 'type ' || i, 'w', '2024-05-01 10:10+00'::timestamptz + i * interval '1 second' FROM generate_series(1, 600) i;
CALL behavior.tick();
SELECT source, events, page_views, length(entry_page), length(exit_page), (SELECT count(*) FROM jsonb_object_keys(type_counts)) AS types
FROM behavior.session WHERE source = 'wide';
SELECT session_id = behavior.session_id('wide', 'w', 'w1') AS found FROM behavior.session WHERE session_id = behavior.session_id('wide', 'w', 'w1');
SELECT count(*) FROM behavior.verify('sessions');
DROP VIEW short, comparable, ids;
DROP TABLE visit, traffic, ever;
DROP FUNCTION send, refused;
DROP PROCEDURE send_shuffled, send_ids;

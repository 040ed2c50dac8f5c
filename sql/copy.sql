-- COPY into behavior.event: text, csv, binary, WHERE, an export that reads back in, errors in the middle.
\set VERBOSITY terse
SET timezone = 'UTC';

COPY behavior.event (event_id, type, user_id, occurred_at, sequence, properties, context) FROM STDIN;
t1	PageView	u1	2024-05-01 10:00:00+00	1	{"page": "/a", "quote": "say \\"hi\\"", "path": "c:\\\\x"}	\N
t2	PageView	\N	\N	\N	\N	{"ip": "::1"}
t3		u1	\N	\N	\N	\N
t1	PageView	u1	2024-05-01 10:00:00+00	1	{"page": "/a", "quote": "say \\"hi\\"", "path": "c:\\\\x"}	{"retry": 1}
\N	NoId	\N	\N	\N	\N	\N
\.
SELECT received, accepted, duplicates, conflicts, dead_letters FROM behavior.last_batch();
SELECT event_id, type, user_id, occurred_at = received_at AS clock, sequence, properties, context FROM behavior.event WHERE event_id LIKE 't%' ORDER BY 1;

COPY behavior.event (event_id, type, properties) FROM STDIN WITH (FORMAT csv, HEADER);
event_id,type,properties
c1,Csv,"{""a"": ""1,2"",
""b"": ""second line""}"
"",Csv,{}
c3,Csv,
c4,"",{}
\.
SELECT event_id, properties FROM behavior.event WHERE type = 'Csv' ORDER BY 1;
SELECT reason, detail, payload FROM behavior.dead_letter ORDER BY dead_letter_id;

\echo -- WHERE: rows that are filtered out were not sent
COPY behavior.event (event_id, type, sequence) FROM STDIN WHERE sequence % 2 = 0 AND type <> 'skip';
w1	x	1
w2	x	2
w4	skip	4
w6	x	6
\.
SELECT received, accepted FROM behavior.last_batch();

\echo -- all columns: an export reads back in, and is the same events
CREATE TABLE before AS SELECT * FROM behavior.event;
SELECT current_setting('data_directory') || '/behavior_copy_test' AS file \gset
COPY (SELECT * FROM behavior.event ORDER BY event_id) TO :'file';
COPY behavior.event FROM :'file';
SELECT received = duplicates + conflicts AS known, duplicates, conflicts = (SELECT count(*) FROM before WHERE occurred_at = received_at) AS given_time FROM behavior.last_batch();
COPY (SELECT 'text-' || event_id, source, type, user_id, anonymous_id, occurred_at, sequence, properties, context, actor, received_at, batch_id, tick_id FROM before WHERE event_id ~ '^.\d$') TO :'file';
COPY behavior.event FROM :'file';
COPY (SELECT 'csv-' || event_id, source, type, user_id, anonymous_id, occurred_at, sequence, properties, context, actor, received_at, batch_id, tick_id FROM before WHERE event_id ~ '^.\d$') TO :'file' WITH (FORMAT csv);
COPY behavior.event FROM :'file' WITH (FORMAT csv);
COPY (SELECT 'binary-' || event_id, source, type, user_id, anonymous_id, occurred_at, sequence, properties, context, actor, received_at, batch_id, tick_id FROM before WHERE event_id ~ '^.\d$') TO :'file' WITH (FORMAT binary);
COPY behavior.event FROM :'file' WITH (FORMAT binary);
SELECT form, count(*), count(*) FILTER (WHERE (e.source, e.type, e.user_id, e.occurred_at, e.sequence, e.properties, e.context) IS NOT DISTINCT FROM (b.source, b.type, b.user_id, b.occurred_at, b.sequence, b.properties, b.context)) AS same,
		count(*) FILTER (WHERE e.batch_id = b.batch_id) AS same_batch
	FROM (VALUES ('text-'), ('csv-'), ('binary-')) f (form), before b JOIN behavior.event e ON e.event_id LIKE '%' || b.event_id
	WHERE e.event_id = form || b.event_id GROUP BY form ORDER BY form;

\echo -- the same event through COPY and INSERT is one event
INSERT INTO behavior.event (event_id, type, user_id, occurred_at, sequence, properties)
	VALUES ('t1', 'PageView', 'u1', '2024-05-01 12:00:00+02', 1, '{"page": "/a", "path": "c:\\x", "quote": "say \"hi\""}');
SELECT received, duplicates FROM behavior.last_batch();

\echo -- a value that does not parse is an error of COPY itself, and nothing of it stays
\set VERBOSITY sqlstate
COPY behavior.event (event_id, type, properties) FROM STDIN;
x1	Broken	{}
x2	Broken	{broken
\.
COPY behavior.event (event_id, type, occurred_at) FROM STDIN;
x1	Broken	2024-01-01
x2	Broken	noon
\.
COPY behavior.event (event_id, type) FROM STDIN;
x1	Broken
x2	Broken	surplus
\.
SET behavior.on_invalid = error;
COPY behavior.event (event_id, type) FROM STDIN;
x1	Broken
x2	\N
\.
RESET behavior.on_invalid;
\set VERBOSITY terse
SELECT count(*) FROM behavior.event WHERE type = 'Broken';
BEGIN;
COPY behavior.event (event_id, type) FROM STDIN;
y1	RolledBack
\.
ROLLBACK;
COPY behavior.event (event_id, type) FROM STDIN;
\.
SELECT behavior.last_batch() IS NULL AS nothing_sent;

\echo -- a COPY of many flushes into several days, with duplicates within it, is one batch
COPY (SELECT 'm' || i % 20000, 'Many', '2024-01-01'::timestamptz + i % 20000 % 10 * interval '1 day', pg_catalog.jsonb_build_object('n', i % 20000) FROM generate_series(1, 30000) i) TO :'file';
COPY behavior.event (event_id, type, occurred_at, properties) FROM :'file';
SELECT received, accepted, duplicates, conflicts FROM behavior.last_batch();
SELECT count(*), count(DISTINCT event_id), count(DISTINCT batch_id), count(DISTINCT occurred_at) FROM behavior.event WHERE type = 'Many';

\echo -- a trigger of another table that sends while that table is copied into
CREATE TABLE orders (id int);
CREATE FUNCTION on_order() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	id text;
BEGIN
	INSERT INTO behavior.event (type, sequence) VALUES ('Order', new.id) RETURNING event_id INTO STRICT id;
	IF id IS NULL THEN RAISE 'no event_id'; END IF;
	RETURN new;
END $$;
CREATE TRIGGER on_order BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION on_order();
COPY orders FROM STDIN;
1
2
3
\.
SELECT count(*), count(DISTINCT batch_id) FROM behavior.event WHERE type = 'Order';
\echo -- a default that sends while behavior.event is copied into
CREATE FUNCTION default_type() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	id text;
BEGIN
	INSERT INTO behavior.event (type) VALUES ('Inner') RETURNING event_id INTO STRICT id;
	RETURN CASE WHEN id IS NULL THEN 'lost' ELSE 'Outer' END;
END $$;
ALTER VIEW behavior.event ALTER COLUMN type SET DEFAULT default_type();
COPY behavior.event (event_id) FROM STDIN;
o1
o2
\.
ALTER VIEW behavior.event ALTER COLUMN type DROP DEFAULT;
SELECT received, accepted FROM behavior.last_batch();
SELECT type, count(*), count(DISTINCT batch_id) FROM behavior.event WHERE type IN ('Inner', 'Outer', 'lost') GROUP BY 1 ORDER BY 1;

\echo -- a role that may only send
CREATE ROLE regress_copy_sender;
GRANT INSERT ON behavior.event TO regress_copy_sender;
SET ROLE regress_copy_sender;
COPY behavior.event (event_id, type) FROM STDIN;
z1	Copied
\.
RESET ROLE;
DROP OWNED BY regress_copy_sender;
DROP ROLE regress_copy_sender;
SELECT count(*) FROM behavior.event WHERE event_id = 'z1';
SET session_replication_role = replica;
COPY behavior.event (event_id, type) FROM STDIN;
z2	Copied
\.
RESET session_replication_role;
SELECT count(*) FROM behavior.event WHERE event_id = 'z2';

-- A key is accepted once; a known key with the same payload is a duplicate, with another one a conflict.
\set VERBOSITY terse
SET client_min_messages = warning;
SET timezone = 'UTC';

-- sends one event and says what became of it
CREATE FUNCTION send(event_id text, type text DEFAULT 'T', source text DEFAULT NULL, user_id text DEFAULT NULL, anonymous_id text DEFAULT NULL,
	occurred_at timestamptz DEFAULT NULL, sequence bigint DEFAULT NULL, properties jsonb DEFAULT NULL, context jsonb DEFAULT NULL)
	RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	b behavior.batch;
BEGIN
	INSERT INTO behavior.event (event_id, type, source, user_id, anonymous_id, occurred_at, sequence, properties, context)
		VALUES (send.event_id, send.type, send.source, send.user_id, send.anonymous_id, send.occurred_at, send.sequence, send.properties, send.context);
	b := behavior.last_batch();
	RETURN CASE WHEN b.received <> 1 THEN 'wrong' WHEN b.accepted = 1 THEN 'accepted' WHEN b.duplicates = 1 THEN 'duplicate'
		WHEN b.conflicts = 1 THEN 'conflict' WHEN b.dead_letters = 1 THEN 'dead letter' END;
END $$;

\echo -- the same again, and each part of the payload in turn
SELECT send('a'), send('a'), send('a', type => 'U'), send('a', user_id => 'u'), send('a', anonymous_id => 'd'),
	send('a', sequence => 0), send('a', properties => '{"x": null}'), send('a', occurred_at => '2024-01-01 00:00+00');
SELECT send('b', user_id => 'same'), send('b', anonymous_id => 'same') AS user_is_not_device, send('b', user_id => 'same');
\echo -- what is not compared: context, source given or defaulted, '' for NULL, the empty object
SELECT send('a', context => '{"sent_at": 1}'), send('a', source => 'default'), send('a', source => ''), send('a', user_id => '', anonymous_id => ''), send('a', properties => '{}');
\echo -- another source is another key
SELECT send('a', source => 'other'), send('a', source => 'other');
SELECT send('bc', source => 'a'), send('c', source => 'ab') AS lengths_count;
\echo -- occurred_at counts when it is given
SELECT send('c', occurred_at => '2024-01-01 00:00+00'), send('c', occurred_at => '2024-01-01 01:00+01') AS same_instant,
	send('c', occurred_at => '2024-01-01 00:00:00.000001+00') AS microsecond, send('c') AS left_out;
\echo -- jsonb by jsonb equality
SELECT send('d', properties => '{"a": 1, "b": [1, 2.0, "x", null, true], "c": {"d": 100}}'),
	send('d', properties => '{"c": {"d": 1e2}, "b": [1.000, 2, "x", null, true], "a": 1.0}'),
	send('d', properties => '{"a": 2, "a": 1, "b": [1, 2, "x", null, true], "c": {"d": 100.00}}') AS last_key_wins;
SELECT send('d', properties => p) AS verdict, p FROM (VALUES
	('{"a": "1", "b": [1, 2, "x", null, true], "c": {"d": 100}}'::jsonb),
	('{"a": 1, "b": [2, 1, "x", null, true], "c": {"d": 100}}'),
	('{"a": 1, "b": [1, 2, "x", null, false], "c": {"d": 100}}'),
	('{"a": 1, "b": [1, 2, "x", "null", true], "c": {"d": 100}}'),
	('{"a": 1, "b": [1, 2, "x", null, true], "c": {"d": 100, "e": {}}}'),
	('{"a": 1, "b": [1, 2, "x", null, true], "c": {"d": 100.0000000001}}'),
	('{"a": 1, "b": [[1, 2], "x", null, true], "c": {"d": 100}}'),
	('{"A": 1, "b": [1, 2, "x", null, true], "c": {"d": 100}}')) v (p);
SELECT send('e', properties => '{"a": {"b": "x"}}'), send('e', properties => '{"a": {"b": "x"}}'), send('e', properties => '{"a": {"c": "x"}}'), send('e', properties => '{"a": ["b", "x"]}');
SELECT send('f', properties => '{"ab": "c"}'), send('f', properties => '{"a": "bc"}'), send('f', properties => '{"ab": "c"}');
SELECT send('g', properties => '{"a": 0}'), send('g', properties => '{"a": -0.000}'), send('g', properties => '{"a": false}'), send('g', properties => '{"a": null}'), send('g', properties => '{"a": {}}'), send('g', properties => '{"a": []}');

\echo -- fingerprints agree with jsonb equality over many values, and do not depend on how a value came about
CREATE TABLE docs AS
	SELECT pg_catalog.row_number() OVER () AS id, pg_catalog.jsonb_build_object('v', v, 'w', w) AS doc
	FROM (VALUES ('1'::jsonb), ('1.0'), ('10e-1'), ('"1"'), ('true'), ('null'), ('[]'), ('[1]'), ('[1.00]'), ('[[1]]'), ('{}'), ('{"a": 1}'), ('{"a": 1.0}'), ('{"a": [1, "b"]}'), ('12345678901234567890.5'), ('12345678901234567890.50')) a (v),
		(VALUES ('1'::jsonb), ('1.0'), ('"1"'), ('{"k": {"l": [1, 2, {"m": 3.10}]}}'), ('{"k": {"l": [1.0, 2.00, {"m": 3.1}]}}'), ('""')) b (w);
WITH sent AS (
	SELECT x.id AS x, y.id AS y, x.doc = y.doc AS equal,
		send('pair-' || x.id || '-' || y.id, properties => x.doc) AS first, send('pair-' || x.id || '-' || y.id, properties => y.doc) AS second
	FROM docs x JOIN docs y ON (y.id * 7 + x.id) % 5 = 0)
SELECT equal, first, second, count(*) FROM sent GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
CREATE TABLE wide AS SELECT pg_catalog.jsonb_object_agg('key' || i, CASE i % 4 WHEN 0 THEN to_jsonb(i) WHEN 1 THEN to_jsonb(i::text) WHEN 2 THEN 'null' ELSE pg_catalog.jsonb_build_array(i, i::text) END) AS doc FROM generate_series(1, 200) i;
SELECT send('wide', properties => doc), send('wide', properties => (doc - 'key8') || '{"key8": 8.0}'), send('wide', properties => doc || '{"key8": 9}'), send('wide', properties => doc - 'key200') FROM wide;

\echo -- inside one statement the first row wins
INSERT INTO behavior.event (event_id, type) VALUES ('h', 'first'), ('h', 'first'), ('h', 'second'), ('i', 'x'), ('h', 'first');
SELECT received, accepted, duplicates, conflicts FROM behavior.last_batch();
SELECT event_id, type FROM behavior.event WHERE event_id IN ('h', 'i') ORDER BY 1;
INSERT INTO behavior.event (event_id, type) SELECT 'j' || (i % 3000), 'x' FROM generate_series(0, 9999) i;
SELECT received, accepted, duplicates FROM behavior.last_batch();
INSERT INTO behavior.event (event_id, type) SELECT 'j' || (i % 3000), CASE WHEN i % 10 = 0 THEN 'y' ELSE 'x' END FROM generate_series(0, 2999) i;
SELECT received, accepted, duplicates, conflicts FROM behavior.last_batch();

\echo -- a key that was rolled back is free
BEGIN;
SELECT send('k');
SAVEPOINT s;
SELECT send('l'), send('k');
ROLLBACK TO s;
SELECT send('l', type => 'other'), send('l', type => 'other');
ROLLBACK;
SELECT send('k', type => 'free'), send('l', type => 'free');

\echo -- generated ids are counted and never collide
INSERT INTO behavior.event (type) SELECT 'g' FROM generate_series(1, 5000);
SELECT count(DISTINCT event_id) FROM behavior.event WHERE type = 'g';

\echo -- each conflict is a dead letter with the payload that was refused
SELECT event_id, source, reason, payload FROM behavior.dead_letter WHERE event_id IN ('a', 'c', 'h') ORDER BY dead_letter_id;
\echo -- the log holds each key once
SELECT source, event_id, count(*) FROM behavior.event GROUP BY 1, 2 HAVING count(*) > 1;
SELECT count(*) = (SELECT sum(accepted) FROM behavior.batch) AS all_counted FROM behavior.event;
SELECT count(*) AS wrong FROM behavior.batch WHERE received <> accepted + duplicates + conflicts + dead_letters;

-- behavior.event: what can be sent, what comes back, what is refused.
\set VERBOSITY terse
SET timezone = 'UTC';

\echo -- defaults and RETURNING
INSERT INTO behavior.event (event_id, source, type, user_id, anonymous_id, occurred_at, sequence, properties, context)
	VALUES ('e1', 'web', 'PageView', 'u1', 'd1', '2024-05-01 12:00:00.123456+02', 7, '{"page": "/a", "n": 1.50}', '{"ip": "::1"}')
	RETURNING event_id, source, type, user_id, anonymous_id, occurred_at, sequence, properties, context, actor, tick_id;
INSERT INTO behavior.event (type) VALUES ('Minimal')
	RETURNING event_id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$' AS random_id,
		source, type, user_id, anonymous_id, occurred_at = received_at AS same_clock,
		pg_catalog.clock_timestamp() - received_at < '1 minute' AS now, sequence, properties, context, actor, batch_id > 0 AS batch;
SELECT event_id ~ '^[0-9a-f-]{36}$' AS random_id, source, type, occurred_at = received_at AS same_clock, properties
	FROM behavior.event WHERE type = 'Minimal';
INSERT INTO behavior.event (event_id, type, anonymous_id) VALUES ('e2', 'x', 'd2'), ('e3', 'x', NULL)
	RETURNING event_id, actor;
SET behavior.default_source = 'shop';
INSERT INTO behavior.event (event_id, type, source) VALUES ('e4', 'x', NULL), ('e5', 'x', ''), ('e6', 'x', 'app') RETURNING event_id, source;
RESET behavior.default_source;
SELECT event_id, source FROM behavior.event WHERE event_id IN ('e4', 'e5', 'e6') ORDER BY 1;

\echo -- explicit NULLs and empty ids
INSERT INTO behavior.event VALUES (NULL, NULL, 'AllNull', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO behavior.event (type, user_id, anonymous_id) VALUES ('EmptyIds', '', '')
	RETURNING user_id IS NULL AND anonymous_id IS NULL AND actor IS NULL AS all_null;
SELECT type, source, user_id, anonymous_id, sequence, properties, context FROM behavior.event WHERE type IN ('AllNull', 'EmptyIds') ORDER BY 1;

\echo -- read-only columns are ignored
INSERT INTO behavior.event (event_id, type, user_id, actor, received_at, batch_id, tick_id)
	VALUES ('e7', 'x', 'u7', 'somebody', '2000-01-01', 1, 99) RETURNING actor, received_at > '2020-01-01' AS now, batch_id > 1 AS own, tick_id;

\echo -- INSERT ... SELECT, prepared statements, DEFAULT VALUES, ON CONFLICT, EXPLAIN
INSERT INTO behavior.event (event_id, type, properties) SELECT 's' || i, 'Bulk', pg_catalog.jsonb_build_object('i', i) FROM generate_series(1, 5000) i;
SELECT received, accepted, duplicates, conflicts, dead_letters, tick_id FROM behavior.last_batch();
SELECT count(*), sum((properties->>'i')::int), count(DISTINCT batch_id) FROM behavior.event WHERE type = 'Bulk';
PREPARE send (text, text, jsonb) AS INSERT INTO behavior.event (event_id, type, properties) VALUES ($1, $2, $3) RETURNING event_id, properties;
EXECUTE send ('p1', 'Prepared', '{"a": [1, {"b": null}]}');
EXECUTE send ('p2', 'Prepared', NULL);
DEALLOCATE send;
INSERT INTO behavior.event (event_id, type) VALUES ('e1', 'x'), ('e8', 'x') ON CONFLICT DO NOTHING;
INSERT INTO behavior.event (event_id, type) VALUES ('e8', 'x') ON CONFLICT DO NOTHING RETURNING event_id;
SELECT received, accepted, duplicates FROM behavior.last_batch();
DO $$ BEGIN EXECUTE 'EXPLAIN (ANALYZE) INSERT INTO behavior.event (event_id, type) VALUES (''explained'', ''x'')'; END $$;
SELECT count(*) FROM behavior.event WHERE event_id = 'explained';

\echo -- large values: stored out of line, and taken from toasted columns
SET behavior.max_event_size = '1MB';
CREATE TABLE toasted AS SELECT 'big' AS id, pg_catalog.jsonb_build_object('text', pg_catalog.string_agg(pg_catalog.md5(i::text), '')) AS properties FROM generate_series(1, 10000) i;
INSERT INTO behavior.event (event_id, type, properties, context) SELECT id, 'Large', properties, properties FROM toasted RETURNING pg_catalog.length(properties->>'text');
SELECT e.properties = t.properties AND e.context = t.properties AS same FROM behavior.event e, toasted t WHERE e.type = 'Large';
INSERT INTO behavior.event (event_id, type, properties) SELECT id, 'Large', properties FROM toasted;
SELECT received, duplicates FROM behavior.last_batch();
RESET behavior.max_event_size;

\echo -- every reason for a dead letter at this door
TRUNCATE behavior.dead_letter;
SET behavior.max_past = '1d';
SET client_min_messages = warning;
INSERT INTO behavior.event (event_id, type) VALUES ('', 'x'), ('r1', ''), ('r2', NULL), (NULL, NULL);
INSERT INTO behavior.event (event_id, source, type, user_id, anonymous_id) VALUES
	(repeat('i', 256), 's', 't', NULL, NULL), ('r3', repeat('s', 256), 't', NULL, NULL), ('r4', 's', repeat('t', 256), NULL, NULL),
	('r5', 's', 't', repeat('ü', 128), NULL), ('r6', 's', 't', NULL, repeat('a', 256)),
	(repeat('i', 255), repeat('s', 255), repeat('t', 255), repeat('u', 255), repeat('ü', 127));
INSERT INTO behavior.event (event_id, type, properties, context) VALUES
	('r7', 'x', '[1]', NULL), ('r8', 'x', '"text"', NULL), ('r9', 'x', 'null', NULL), ('r10', 'x', NULL, '[]'), ('r11', 'x', '{}', '1');
INSERT INTO behavior.event (event_id, type, occurred_at) VALUES
	('r12', 'x', 'infinity'), ('r13', 'x', '-infinity'), ('r14', 'x', now() + interval '2 hours'), ('r15', 'x', now() - interval '2 days'), ('r16', 'x', now() + interval '59 minutes');
INSERT INTO behavior.event (event_id, type, properties) SELECT 'r17', 'x', pg_catalog.jsonb_build_object('a', repeat('x', 300000));
INSERT INTO behavior.event (event_id, type, sequence) VALUES ('r16', 'x', 2);
RESET client_min_messages;
SELECT dead_letter_id - min(dead_letter_id) OVER () + 1 AS n, stage, reason, left(source, 3) AS source, left(type, 3) AS type, left(event_id, 4) AS event_id,
	CASE WHEN reason NOT IN ('in_future', 'too_old') THEN left(regexp_replace(detail, '\d{4,}', 'n'), 60) END AS detail
	FROM behavior.dead_letter ORDER BY dead_letter_id;
SELECT event_id, payload FROM behavior.dead_letter WHERE event_id IN ('', 'r2', 'r7', 'r9', 'r10', 'r12') ORDER BY dead_letter_id;
SELECT payload::jsonb - 'occurred_at' AS payload FROM behavior.dead_letter WHERE reason = 'id_conflict';
SELECT count(*) AS batches_without_match FROM (
	SELECT b.batch_id FROM behavior.batch b LEFT JOIN behavior.dead_letter d USING (batch_id)
	WHERE b.received - b.accepted - b.duplicates > 0 GROUP BY b.batch_id, b.conflicts, b.dead_letters
	HAVING count(d.dead_letter_id) NOT IN (0, b.conflicts + b.dead_letters)) unmatched;
INSERT INTO behavior.event (event_id, type, occurred_at) VALUES ('r18', 'x', now() + interval '2 hours'), ('r18', NULL, NULL), ('ok', 'x', NULL), ('ok', 'y', NULL);
SELECT received, accepted, duplicates, conflicts, dead_letters FROM behavior.last_batch();
RESET behavior.max_past;

\echo -- on_invalid = error
SET behavior.on_invalid = error;
\set VERBOSITY default
\set SHOW_CONTEXT never
INSERT INTO behavior.event (event_id, type) VALUES ('n1', 'x'), ('n2', NULL), ('n3', 'x');
INSERT INTO behavior.event (event_id, source, type, properties) VALUES ('n4', 'web', 'x', '{"secret": 1}'), ('n5', 'web', 'x', '["secret"]');
INSERT INTO behavior.event (event_id, source, type, user_id) VALUES ('n4', 'web', 'x', repeat('long ', 60));
INSERT INTO behavior.event (event_id, source, type, properties) VALUES ('e1', 'web', 'PageView', '{"secret": 1}');
INSERT INTO behavior.event (type, occurred_at) VALUES ('x', 'infinity');
\set VERBOSITY sqlstate
INSERT INTO behavior.event (type, occurred_at) VALUES ('x', now() + interval '1 year');
SET behavior.max_past = '1h';
INSERT INTO behavior.event (type, occurred_at) VALUES ('x', now() - interval '1 year');
RESET behavior.max_past;
\set VERBOSITY terse
RESET behavior.on_invalid;
SELECT count(*) FROM behavior.event WHERE event_id ~ '^n\d';

\echo -- refused
\set VERBOSITY default
UPDATE behavior.event SET type = 'y' WHERE event_id = 'e1';
UPDATE behavior.event SET type = 'y' WHERE false;
DELETE FROM behavior.event WHERE event_id = 'e1';
\set VERBOSITY sqlstate
DELETE FROM behavior.event;
TRUNCATE behavior.event;
MERGE INTO behavior.event e USING (SELECT 'e1' AS id) s ON e.event_id = s.id WHEN MATCHED THEN DELETE;
INSERT INTO behavior.event (event_id, type) VALUES ('e1', 'x') ON CONFLICT (event_id) DO NOTHING;
INSERT INTO behavior.event (event_id, type, properties) VALUES ('e9', 'x', '{broken');
INSERT INTO behavior.event (event_id, type, occurred_at) VALUES ('e9', 'x', 'yesterdayish');

\echo -- the functions behind the triggers serve nobody else
CREATE VIEW mine AS SELECT * FROM behavior.event;
CREATE TRIGGER t INSTEAD OF INSERT ON mine FOR EACH ROW EXECUTE FUNCTION behavior._event_row();
INSERT INTO mine (event_id, type) VALUES ('forged', 'x');
DROP TRIGGER t ON mine;
CREATE TRIGGER t BEFORE INSERT ON mine FOR EACH STATEMENT EXECUTE FUNCTION behavior._door_begin();
INSERT INTO mine (event_id, type) VALUES ('through', 'x');
DROP TRIGGER t ON mine;
\echo -- an own view on top of it may send
INSERT INTO mine (event_id, type) VALUES ('through', 'x') RETURNING event_id;
SELECT count(*) FROM behavior.event WHERE event_id = 'through';
SELECT behavior._event_row();

\echo -- session_replication_role = replica
SET session_replication_role = replica;
INSERT INTO behavior.event (event_id, type) VALUES ('replica', 'x') RETURNING event_id, source;
DELETE FROM behavior.event;
RESET session_replication_role;
SELECT count(*) FROM behavior.event WHERE event_id = 'replica';

\echo -- isolation levels
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO behavior.event (event_id, type) VALUES ('rr', 'x');
SELECT count(*) FROM behavior.event WHERE event_id = 'rr';
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
INSERT INTO behavior.event (event_id, type) VALUES ('ser', 'x'), ('rr', 'x');
SELECT received, accepted, duplicates FROM behavior.last_batch();
COMMIT;
BEGIN READ ONLY;
INSERT INTO behavior.event (event_id, type) VALUES ('ro', 'x');
ROLLBACK;

\echo -- a role that may only send
CREATE ROLE regress_event_sender;
GRANT INSERT ON behavior.event TO regress_event_sender;
SET ROLE regress_event_sender;
SET behavior.correlation_id = 'job 17';
INSERT INTO behavior.event (event_id, type) VALUES ('sent', 'x'), ('sent2', NULL);
SELECT role, correlation_id, received, accepted, dead_letters FROM behavior.last_batch();
INSERT INTO behavior.event (event_id, type) VALUES ('sent3', 'x') RETURNING event_id;
SELECT 1 FROM behavior.event;
SELECT 1 FROM behavior.log;
SELECT 1 FROM behavior.batch;
SELECT 1 FROM behavior.dead_letter;
SELECT behavior.find_event('sent');
INSERT INTO behavior.log (event_id) VALUES ('x');
DELETE FROM behavior.event;
RESET ROLE;
RESET behavior.correlation_id;
DROP OWNED BY regress_event_sender;
DROP ROLE regress_event_sender;
SELECT count(*) FROM behavior.event WHERE event_id LIKE 'sent%';

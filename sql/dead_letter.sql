-- behavior.dead_letter: whatever was refused is kept, and nothing in it can raise.
\set VERBOSITY sqlstate
SET timezone = 'UTC';

\echo -- columns
SELECT behavior._dead_letter('ingest', 1, 'web', 'PageView', 'e1', '{"a": 1', 'unexpected end') IS NOT NULL AS stored;
SELECT dead_letter_id > 0 AS numbered, batch_id, failed_at <= clock_timestamp() AS dated, stage, reason, detail, errors, source, type, event_id,
	payload, projection, attempts, redriven_at
	FROM behavior.dead_letter;
SELECT behavior._dead_letter('fold', 15, NULL, NULL, NULL, NULL, NULL) IS NOT NULL AS stored;
SELECT stage, reason, detail, source, type, event_id, payload FROM behavior.dead_letter ORDER BY dead_letter_id DESC LIMIT 1;
TRUNCATE behavior.dead_letter;

\echo -- bytes that text cannot hold
SELECT behavior._dead_letter('ingest', 11, 's', 't', 'e', payload, 'said before') IS NOT NULL AS stored
	FROM (VALUES ('\x610062'::bytea), ('\xff'), ('\x61c3'), ('\xc3a9'), ('\xeda080'), ('\xf0908d88'), ('\xf8888080'), ('\x')) v (payload);
SELECT payload, detail FROM behavior.dead_letter ORDER BY dead_letter_id;
TRUNCATE behavior.dead_letter;

\echo -- long payloads and fields are cut between characters
SELECT count(behavior._dead_letter('ingest', 7, repeat('é', 200), repeat('t', 255), repeat('i', 256), payload, NULL))
	FROM (VALUES
		(convert_to(repeat('x', 1048576), 'UTF8')),
		(convert_to(repeat('x', 1048577), 'UTF8')),
		(convert_to(repeat('x', 1048575) || 'é', 'UTF8')),
		(convert_to(repeat('x', 1048573) || '𐍈𐍈', 'UTF8')),
		(decode(repeat('80', 1048580), 'hex'))) v (payload);
SELECT octet_length(payload), right(payload, 4) AS ends, octet_length(source) AS source, octet_length(type) AS type,
	octet_length(event_id) AS event_id, detail
	FROM behavior.dead_letter ORDER BY dead_letter_id;
TRUNCATE behavior.dead_letter;

\echo -- indexes that users add are kept, of every kind
CREATE INDEX ON behavior.dead_letter (lower(reason)) WHERE redriven_at IS NULL;
CREATE INDEX ON behavior.dead_letter USING hash (type);
SELECT count(behavior._dead_letter('ingest', 1 + i % 11, 'web', 't' || i % 7, 'e' || i, '{}', NULL)) FROM generate_series(1, 1000) i;
SET enable_seqscan = off;
SELECT count(*) FROM behavior.dead_letter WHERE lower(reason) = 'malformed_json' AND redriven_at IS NULL;
SELECT count(*) FROM behavior.dead_letter WHERE type = 't3';
SELECT reason FROM behavior.dead_letter WHERE event_id = 'e500';
RESET enable_seqscan;
SELECT count(DISTINCT dead_letter_id) FROM behavior.dead_letter;

\echo -- rolled back with its transaction
BEGIN;
SELECT behavior._dead_letter('ingest', 1, 'web', 't', 'gone', '{}', NULL) IS NOT NULL AS stored;
ROLLBACK;
SELECT count(*) FROM behavior.dead_letter WHERE event_id = 'gone';

\echo -- from the door: as many as the batch says
INSERT INTO behavior.event (event_id, type, occurred_at) VALUES ('ok', 'x', now()), ('bad', '', now()), ('late', 'x', 'infinity');
SELECT b.accepted, b.dead_letters, count(d.*) FROM behavior.last_batch() b
	LEFT JOIN behavior.dead_letter d USING (batch_id) GROUP BY 1, 2;

\echo -- more than are written at once, in one statement, some without an id and some with the same
SET client_min_messages = warning;
INSERT INTO behavior.event (event_id, type, occurred_at)
	SELECT CASE WHEN i % 3 > 0 THEN 'many' || i / 2 END, CASE WHEN i % 5 = 0 THEN 'x' ELSE '' END, now() FROM generate_series(1, 9000) i;
RESET client_min_messages;
SELECT b.received, b.dead_letters, count(d.*), count(DISTINCT d.dead_letter_id) AS ids, count(DISTINCT d.event_id) AS events
	FROM behavior.last_batch() b LEFT JOIN behavior.dead_letter d USING (batch_id) GROUP BY 1, 2;
CREATE TABLE by_table AS SELECT dead_letter_id, ctid AS place, event_id FROM behavior.dead_letter WHERE event_id LIKE 'many%';
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT count(*) FROM by_table t WHERE t.place IS DISTINCT FROM
	(SELECT d.ctid FROM behavior.dead_letter d WHERE d.event_id = t.event_id AND d.dead_letter_id + 0 = t.dead_letter_id);
SELECT count(*) FROM by_table t WHERE t.place IS DISTINCT FROM
	(SELECT d.ctid FROM behavior.dead_letter d WHERE d.dead_letter_id = t.dead_letter_id);
RESET enable_seqscan;
RESET enable_bitmapscan;

\echo -- a statement that is rolled back to a savepoint leaves none, the ones around it stay
BEGIN;
INSERT INTO behavior.event (event_id, type, occurred_at) VALUES ('kept 1', '', now());
SAVEPOINT s;
INSERT INTO behavior.event (event_id, type, occurred_at) SELECT 'undone', '', now() FROM generate_series(1, 3000);
ROLLBACK TO s;
INSERT INTO behavior.event (event_id, type, occurred_at) VALUES ('kept 2', '', now());
COMMIT;
SELECT event_id FROM behavior.dead_letter WHERE event_id IN ('kept 1', 'undone', 'kept 2') ORDER BY dead_letter_id;

\echo -- nobody reads it by default
CREATE ROLE regress_dead_letter;
SET ROLE regress_dead_letter;
SELECT count(*) FROM behavior.dead_letter;
SELECT behavior._dead_letter('ingest', 1, 'web', 't', 'gone', '{}', NULL);
RESET ROLE;
DROP ROLE regress_dead_letter;

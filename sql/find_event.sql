-- behavior.find_event(): what became of an event, by its key.
\set VERBOSITY terse
SET client_min_messages = warning;
SET timezone = 'UTC';
INSERT INTO behavior.event (event_id, source, type, occurred_at) VALUES
	('a', 'web', 'x', '2024-05-01'), ('b', 'web', 'x', '2023-05-01'), ('a', 'app', 'x', NULL), ('d', NULL, 'x', '2024-05-01');
INSERT INTO behavior.event (event_id, source, type, occurred_at) VALUES ('b', 'web', 'y', NULL), ('b', 'web', NULL, NULL), ('c', 'web', '', NULL);
CREATE FUNCTION found(event_id text, source text DEFAULT NULL) RETURNS TABLE (status text, source text, occurred_at timestamptz, fresh boolean, batch boolean, letter boolean) LANGUAGE sql AS $$
	SELECT f.status, f.source, f.occurred_at, f.received_at BETWEEN pg_catalog.now() - interval '10 minutes' AND pg_catalog.clock_timestamp(),
		EXISTS (SELECT FROM behavior.batch b WHERE b.batch_id = f.batch_id), EXISTS (SELECT FROM behavior.dead_letter d WHERE d.dead_letter_id = f.dead_letter_id AND d.batch_id = f.batch_id)
	FROM behavior.find_event(event_id, source) f
$$;
SELECT * FROM found('a', 'web');
SELECT f.occurred_at = e.occurred_at AND f.received_at = e.received_at AS same FROM behavior.find_event('a', 'app') f JOIN behavior.event e USING (batch_id) WHERE e.event_id = 'a' AND e.source = 'app';
SELECT * FROM found('b', 'web');
SELECT * FROM found('c', 'web');
SELECT * FROM found('a');
SELECT * FROM found('d');
SELECT * FROM found('d', '');
SELECT * FROM found('d', 'default');
SET behavior.default_source = 'web';
SELECT * FROM found('a');
RESET behavior.default_source;
SELECT * FROM found(NULL);
SELECT * FROM found('');
SELECT * FROM found('nowhere', 'web');
\echo -- own uncommitted events are found, rolled-back ones are not
BEGIN;
INSERT INTO behavior.event (event_id, type) VALUES ('e', 'x');
SELECT status FROM found('e');
ROLLBACK;
SELECT status FROM found('e');
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO behavior.event (event_id, type) VALUES ('e', 'x');
SELECT status, fresh FROM found('e');
COMMIT;
\echo -- inside a large batch, and by many ids at once
INSERT INTO behavior.event (event_id, type, occurred_at) SELECT 'f' || i, 'x', '2024-01-01'::timestamptz + i * interval '1 hour' FROM generate_series(1, 9000) i;
SELECT status, occurred_at FROM found('f5000');
SELECT count(*) FROM generate_series(1, 10) i, LATERAL behavior.find_event('f' || i * 500) f WHERE f.occurred_at = '2024-01-01'::timestamptz + i * 500 * interval '1 hour';
\echo -- granted by name
CREATE ROLE regress_finder;
SET ROLE regress_finder;
\set VERBOSITY sqlstate
SELECT * FROM behavior.find_event('a', 'web');
\set VERBOSITY terse
RESET ROLE;
GRANT EXECUTE ON FUNCTION behavior.find_event TO regress_finder;
SET ROLE regress_finder;
SELECT status, source FROM behavior.find_event('b', 'web');
RESET ROLE;
DROP OWNED BY regress_finder;
DROP ROLE regress_finder;

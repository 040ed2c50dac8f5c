-- A projection that fails is a WARNING and its own state: the others go on, and it catches up when it can.
\set VERBOSITY sqlstate
CREATE VIEW state AS SELECT name, state, tick_id, lag_events, attempts, error IS NOT NULL AS error, failed_at IS NOT NULL AS failed FROM behavior.projection;
INSERT INTO behavior.event (event_id, type, anonymous_id) VALUES ('a', 'x', 'v');
CALL behavior.tick();
SELECT * FROM state ORDER BY name;

UPDATE behavior._projection SET settings = settings - 'timeout' WHERE name = 'sessions';
INSERT INTO behavior.event (event_id, type, anonymous_id) VALUES ('b', 'x', 'v');
CALL behavior.tick();
SELECT * FROM state ORDER BY name;
INSERT INTO behavior.event (event_id, type, anonymous_id) VALUES ('c', 'x', 'v'), ('d', 'x', 'v');
CALL behavior.tick();
SELECT * FROM state ORDER BY name;
-- What it had folded is as it was: verify compares up to its progress.
SELECT sum(events) FROM behavior.session;
SELECT sum(events) FROM behavior.activity;

-- In a transaction block the failure is the caller's too, and rolls back with it.
BEGIN;
INSERT INTO behavior.event (event_id, type, anonymous_id) VALUES ('e', 'x', 'v');
CALL behavior.tick();
SELECT * FROM state ORDER BY name;
ROLLBACK;
SELECT * FROM state ORDER BY name;

-- Mended, it takes all the ticks that it lacks.
UPDATE behavior._projection SET settings = settings || '{"timeout": 1800}' WHERE name = 'sessions';
CALL behavior.tick();
SELECT * FROM state ORDER BY name;
SELECT sum(events) FROM behavior.session;
SELECT * FROM behavior.verify();

DROP VIEW state;

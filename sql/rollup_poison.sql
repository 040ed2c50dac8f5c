-- An event on which one rollup's query raises: set aside for that rollup alone, and the rest goes on.
SET client_min_messages = warning;
SELECT behavior.create_rollup('prices', $$
	SELECT type, count(*) AS n, sum((properties ->> 'price')::numeric) AS total FROM behavior.event GROUP BY 1 $$);
SELECT behavior.create_rollup('plain', 'SELECT type, count(*) AS n FROM behavior.event GROUP BY 1');
SELECT behavior.create_rollup('division', 'SELECT count(*) AS n, sum(100 / sequence) AS s FROM behavior.event WHERE 1 / (sequence - 500) <= 1');
CREATE FUNCTION picky(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	IF $1 = 'e77' THEN RAISE EXCEPTION 'not that one'; END IF;
	RETURN left($1, 1);
END $$;
SELECT behavior.create_rollup('picky_one', 'SELECT picky(event_id) AS p, count(*) AS n FROM behavior.event GROUP BY 1');

INSERT INTO behavior.event (event_id, type, user_id, sequence, properties)
SELECT 'e' || i, 'Buy', CASE WHEN i % 2 = 0 THEN 'u' END, i - 1,
	jsonb_build_object('price', CASE WHEN i IN (3, 400, 401) THEN 'free' ELSE i::text END)
FROM generate_series(1, 1000) i;
-- The live relation leaves them out as well.
SELECT * FROM prices;
SELECT * FROM plain;
SELECT n FROM division;
SELECT * FROM picky_one;
SELECT count(*) FROM behavior.dead_letter;
CALL behavior.tick();
SELECT * FROM prices;
SELECT * FROM prices_folded;
SELECT * FROM plain_folded;
SELECT n FROM division_folded;
SELECT * FROM picky_one_folded;
SELECT name, state, events_set_aside FROM behavior.rollup ORDER BY name COLLATE "C";
SELECT projection, event_id, stage, reason, detail, source, type, payload::jsonb - 'occurred_at' AS payload FROM behavior.dead_letter ORDER BY projection COLLATE "C", length(event_id), event_id;
SELECT s.projection, s.source, s.event_id, s.dead_letter_id = d.dead_letter_id AS same FROM behavior._set_aside s JOIN behavior.dead_letter d USING (dead_letter_id) ORDER BY s.projection COLLATE "C", length(s.event_id), s.event_id;
SELECT * FROM behavior.verify();
-- Rebuilding finds the same ones, and does not report them twice.
SELECT behavior.rebuild(name) FROM behavior.rollup;
CALL behavior.tick();
SELECT count(*) FROM behavior.dead_letter;
SELECT name, state, progress, events_set_aside FROM behavior.rollup ORDER BY name COLLATE "C";
SELECT * FROM behavior.verify();
-- Nor does a first build that was interrupted behind its walk, and starts again.
UPDATE behavior._rollup SET built = false WHERE name = 'prices';
UPDATE behavior._projection SET state = 'backfilling' WHERE name = 'prices';
UPDATE behavior._set_aside SET projection = projection || chr(1) WHERE projection = 'prices';
CALL behavior.tick();
SELECT count(*) FROM behavior.dead_letter;
SELECT name, state, progress, events_set_aside FROM behavior.rollup WHERE name = 'prices';
SELECT * FROM behavior.verify();
-- For another query they may be good.
SELECT behavior.alter_rollup('prices', $$
	SELECT type, count(*) AS n, sum(behavior.try_numeric(properties ->> 'price')) AS total FROM behavior.event GROUP BY 1 $$);
CALL behavior.tick();
SELECT * FROM prices;
SELECT name, events_set_aside FROM behavior.rollup WHERE name = 'prices';
SELECT count(*) FROM behavior._set_aside WHERE projection LIKE 'prices%';
SELECT * FROM behavior.verify();
-- All of them poison.
INSERT INTO behavior.event (event_id, type, sequence) SELECT 'z' || i, 'Zero', 500 FROM generate_series(1, 5) i;
SELECT n FROM division;
CALL behavior.tick();
SELECT n FROM division_folded;
SELECT name, state, events_set_aside FROM behavior.rollup WHERE name = 'division';
SELECT * FROM behavior.verify();
-- What no event is to blame for stops that rollup alone, until it is put right.
DROP FUNCTION picky(text) CASCADE;
CREATE FUNCTION gone(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT left($1, 1) FROM missing); END $$;
SELECT behavior.create_rollup('broken', 'SELECT gone(type) AS t, count(*) AS n FROM behavior.event GROUP BY 1');
\set VERBOSITY terse
INSERT INTO behavior.event (event_id, type, sequence) VALUES ('last', 'Last', 7);
CALL behavior.tick();
SELECT name, state FROM behavior.projection WHERE kind = 'rollup' ORDER BY name COLLATE "C";
SELECT * FROM plain_folded ORDER BY 1;
CREATE OR REPLACE FUNCTION gone(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN left($1, 1); END $$;
UPDATE behavior._projection SET failed_at = '-infinity' WHERE failed_at IS NOT NULL;
CALL behavior.tick();
SELECT * FROM broken ORDER BY 1;
SELECT name, state FROM behavior.projection WHERE name = 'broken';
SELECT * FROM behavior.verify();

-- A class of errors that the function made up: the event's fault as well.
CREATE FUNCTION own_class(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	IF $1 = 'f2' THEN RAISE EXCEPTION USING ERRCODE = 'U0001', MESSAGE = 'not that one'; END IF;
	RETURN $1;
END $$;
SELECT behavior.create_rollup('own_class', $$ SELECT own_class(event_id) AS id FROM behavior.event WHERE type = 'Own' GROUP BY 1 $$);
CALL behavior.tick();
INSERT INTO behavior.event (event_id, type) VALUES ('f1', 'Own'), ('f2', 'Own'), ('f3', 'Own');
SELECT * FROM own_class ORDER BY 1;
CALL behavior.tick();
SELECT * FROM own_class_folded ORDER BY 1;
SELECT state, events_set_aside FROM behavior.rollup WHERE name = 'own_class';
SELECT * FROM behavior.verify('own_class');
SELECT behavior.drop_rollup('own_class');
-- The events of a tail go to disk where memory is short, and nothing of that stays open.
SELECT behavior.create_rollup('many', $$ SELECT sum((properties ->> 'price')::numeric) AS total FROM behavior.event WHERE type = 'Many' $$);
CALL behavior.tick();
INSERT INTO behavior.event (event_id, type, properties)
SELECT 'm' || i, 'Many', jsonb_build_object('price', CASE WHEN i = 3 THEN 'free' ELSE '1' END) FROM generate_series(1, 4000) i;
SET work_mem = '64kB';
SELECT * FROM many;
RESET work_mem;
SELECT behavior.drop_rollup('many');

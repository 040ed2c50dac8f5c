-- Dead letters of stage fold are folded into their rollup again, and counted once.
SET client_min_messages = warning;
\set VERBOSITY terse
CREATE FUNCTION price(text) RETURNS numeric IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	IF $1 IN ('free', 'gift') THEN RAISE EXCEPTION '% is no price', $1; END IF;
	RETURN $1::numeric;
END $$;
CREATE FUNCTION send(first int, last int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO behavior.event (event_id, source, type, occurred_at, properties)
	SELECT 'e' || i, 'web', 'Buy', timestamptz '2026-01-01 00:00+00' + i * interval '1 second',
		jsonb_build_object('price', CASE i % 10 WHEN 3 THEN 'free' WHEN 7 THEN 'gift' ELSE i::text END)
	FROM generate_series(first, last) i
$$;
CREATE VIEW letters AS SELECT d.event_id, d.reason, d.projection, d.attempts, d.redriven_at IS NOT NULL AS redriven, p.event_id AS previous
	FROM behavior.dead_letter d LEFT JOIN behavior.dead_letter p ON p.dead_letter_id = d.previous ORDER BY d.dead_letter_id;
SELECT behavior.create_rollup('prices', 'SELECT type, count(*) AS n, sum(price(properties ->> ''price'')) AS total FROM behavior.event GROUP BY 1');
SELECT behavior.create_rollup('plain', 'SELECT type, count(*) AS n FROM behavior.event GROUP BY 1');
SELECT send(1, 20);
CALL behavior.tick();
SELECT * FROM prices;
SELECT * FROM letters;
SELECT name, events_set_aside FROM behavior.rollup WHERE name = 'prices';

-- Still broken: set aside again, with a letter that names the one before.
SELECT status, reason FROM behavior.redrive(projection => 'prices', dry_run => true);
SELECT * FROM letters;
SELECT status, reason FROM behavior.redrive(projection => 'prices');
SELECT * FROM letters;
SELECT * FROM prices;
SELECT name, events_set_aside FROM behavior.rollup WHERE name = 'prices';
SELECT s.event_id, NOT d.redriven_at IS NOT NULL AS newest FROM behavior._set_aside s JOIN behavior.dead_letter d USING (dead_letter_id) ORDER BY length(s.event_id), s.event_id;
SELECT projection, key FROM behavior.verify();

-- The fix and redrive in one transaction; the tail holds events of its own meanwhile.
SELECT send(21, 30);
SELECT * FROM prices;
BEGIN;
CREATE OR REPLACE FUNCTION price(text) RETURNS numeric IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	IF $1 = 'gift' THEN RAISE EXCEPTION '% is no price', $1; END IF;
	RETURN CASE $1 WHEN 'free' THEN 0 ELSE $1::numeric END;
END $$;
SELECT status, reason FROM behavior.redrive();
SELECT * FROM prices;
SELECT * FROM prices_folded;
ROLLBACK;
SELECT * FROM prices_folded;
SELECT count(*) FROM behavior._set_aside;
BEGIN;
CREATE OR REPLACE FUNCTION price(text) RETURNS numeric IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	IF $1 = 'gift' THEN RAISE EXCEPTION '% is no price', $1; END IF;
	RETURN CASE $1 WHEN 'free' THEN 0 ELSE $1::numeric END;
END $$;
SELECT status, reason FROM behavior.redrive();
COMMIT;
SELECT * FROM prices_folded;
SELECT name, events_set_aside FROM behavior.rollup WHERE name = 'prices';
SELECT projection, key FROM behavior.verify();
CALL behavior.tick();
SELECT * FROM prices;
SELECT name, events_set_aside FROM behavior.rollup WHERE name = 'prices';
SELECT projection, key FROM behavior.verify();
SELECT * FROM letters;

-- Rebuilt meanwhile: what is not set aside any more counts already.
CREATE OR REPLACE FUNCTION price(text) RETURNS numeric IMMUTABLE LANGUAGE sql AS
	$$ SELECT CASE WHEN $1 IN ('free', 'gift') THEN 0 ELSE $1::numeric END $$;
SELECT behavior.rebuild('prices');
CALL behavior.tick();
SELECT * FROM prices_folded;
SELECT count(*) FROM behavior._set_aside;
SELECT DISTINCT status, reason FROM behavior.redrive();
SELECT * FROM prices_folded;
SELECT projection, key FROM behavior.verify();
SELECT count(*) FROM behavior.redrive();

-- What no event is to blame for leaves the letters as they are.
CREATE OR REPLACE FUNCTION price(text) RETURNS numeric IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'bad'; END $$;
SELECT send(41, 41);
CALL behavior.tick();
CREATE OR REPLACE FUNCTION price(text) RETURNS numeric IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT n FROM missing); END $$;
SELECT status, reason FROM behavior.redrive();
SELECT count(*) FROM behavior._set_aside;
SELECT event_id, redriven FROM letters WHERE NOT redriven;
-- A snapshot for the whole transaction would not see what others have folded.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT status, reason FROM behavior.redrive();
ROLLBACK;
-- The rollup is gone.
SELECT behavior.drop_rollup('prices');
SELECT status, reason FROM behavior.redrive();
SELECT projection, key FROM behavior.verify();

-- Ordered subscriptions.  Events occur minutes ago and are held for an hour, until the window is made shorter than that: so
-- nothing depends on how fast this runs.
\set VERBOSITY sqlstate
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE SCHEMA d;
CREATE TABLE d.effect (n bigint GENERATED ALWAYS AS IDENTITY, call bigint, subscription text, event_id text, late boolean, attempt int);
CREATE SEQUENCE d.call;
CREATE FUNCTION d.handle(deliveries behavior.delivery[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	this bigint := nextval('d.call');
BEGIN
	INSERT INTO d.effect (call, subscription, event_id, late, attempt)
		SELECT this, d.subscription, (d.event).event_id, d.late, d.attempt
		FROM unnest(deliveries) WITH ORDINALITY d ORDER BY d.ordinality;
	IF EXISTS (SELECT FROM unnest(deliveries) d WHERE ((d.event).properties->>'bad')::boolean) THEN
		RAISE 'bad event';
	END IF;
END $$;
CREATE FUNCTION d.handle_all(deliveries behavior.delivery[]) RETURNS void LANGUAGE sql AS $$
	INSERT INTO d.effect (call, subscription, event_id, late, attempt)
	SELECT nextval('d.call'), d.subscription, (d.event).event_id, d.late, d.attempt
	FROM unnest(deliveries) WITH ORDINALITY d ORDER BY d.ordinality
$$;
CREATE TABLE d.clock AS SELECT clock_timestamp() AS at;
CREATE FUNCTION d.send(type text, id text, actor text, minutes_ago numeric, bad boolean DEFAULT false, sequence bigint DEFAULT NULL)
RETURNS void LANGUAGE sql AS $$
	INSERT INTO behavior.event (event_id, type, user_id, occurred_at, sequence, properties)
	VALUES (id, type, actor, (SELECT at FROM d.clock) - minutes_ago * interval '1 minute', sequence, jsonb_build_object('bad', bad))
$$;
CREATE FUNCTION d.got(name text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(event_id || CASE WHEN late THEN ' late' ELSE '' END, ', ' ORDER BY n) FROM d.effect WHERE subscription = name
$$;
CREATE VIEW d.state AS
	SELECT name, state, matched, delivered, failed, dead_letters, late, lag_events FROM behavior.subscription ORDER BY name;
CREATE VIEW d.waiting AS
	SELECT event_id, state, attempts, late, due_at = 'infinity' AS behind FROM behavior._delivery ORDER BY occurred_at, sequence NULLS FIRST, event_id;
SET behavior.retry_delay = '1h';

-- Held, and in order over ticks, ties by sequence and event_id; in batches.
SELECT behavior.create_subscription('o', '{"detail-type": ["O"]}', 'd.handle', ordered => true, reorder_window => '1 hour', batch_size => 3);
CALL behavior.tick();
SELECT d.send('O', 'o1', 'a', 20), d.send('O', 'o4', 'b', 17), d.send('O', 'o3', 'a', 18);
CALL behavior.tick();
SELECT d.send('O', 'o7', 'c', 15, sequence => 2), d.send('O', 'o6', 'b', 15, sequence => 1), d.send('O', 'o5', 'b', 15);
SELECT d.send('O', 'O5', 'c', 15), d.send('O', 'o2', 'c', 19);
CALL behavior.tick();
SELECT d.got('o');
SELECT * FROM d.state;
SELECT behavior.alter_subscription('o', reorder_window => '10 minutes');
CALL behavior.tick();
SELECT d.got('o');
SELECT max(count(*)) OVER () AS largest FROM d.effect GROUP BY call LIMIT 1;
SELECT * FROM d.state;

-- Late: at once, marked and counted.
SELECT d.send('O', 'l1', 'a', 30), d.send('O', 'l2', 'a', 12);
CALL behavior.tick();
SELECT d.got('o');
SELECT * FROM d.state;
-- What comes in time is held as before.
SELECT d.send('O', 'o8', 'a', 5);
CALL behavior.tick();
SELECT * FROM d.waiting;
SELECT behavior.drop_subscription('o');
SELECT count(*) FROM behavior._delivery;

-- While an event of an actor waits to be tried again its later ones wait behind it; others go on.
SELECT behavior.create_subscription('a', '{"detail-type": ["A"]}', 'd.handle', ordered => true, reorder_window => '1 hour');
CALL behavior.tick();
SELECT d.send('A', 'a1', 'a', 30), d.send('A', 'a2', 'a', 29, true), d.send('A', 'b1', 'b', 28), d.send('A', 'a3', 'a', 27),
	d.send('A', 'b2', 'b', 26), d.send('A', 'a4', 'a', 25), d.send('A', 'nobody', NULL, 24);
CALL behavior.tick();
SELECT behavior.alter_subscription('a', reorder_window => '10 minutes');
CALL behavior.tick();
SELECT d.got('a');
SELECT * FROM d.waiting;
-- Late ones: before the one that failed goes at once, behind it waits.
SELECT d.send('A', 'a0', 'a', 31), d.send('A', 'a2b', 'a', 28.5), d.send('A', 'b0', 'b', 31);
CALL behavior.tick();
SELECT d.got('a');
SELECT * FROM d.waiting;
-- Still failing: nothing passes it.
UPDATE behavior._delivery SET due_at = now() WHERE event_id = 'a2';
CALL behavior.tick();
SELECT d.got('a');
SELECT * FROM d.waiting;
-- Those behind go on in order when it has succeeded.
SELECT behavior.alter_subscription('a', handler => 'd.handle_all');
UPDATE behavior._delivery SET due_at = now() WHERE event_id = 'a2';
CALL behavior.tick();
SELECT d.got('a');
SELECT * FROM d.state;
SELECT * FROM d.waiting;
SELECT behavior.drop_subscription('a');

-- And when it is given up.
SELECT behavior.create_subscription('g', '{"detail-type": ["G"]}', 'd.handle', ordered => true, reorder_window => '1 hour', max_attempts => 2);
CALL behavior.tick();
SELECT d.send('G', 'g' || i, 'a', 40 - i, i IN (2, 3)) FROM generate_series(1, 5) i;
CALL behavior.tick();
SELECT behavior.alter_subscription('g', reorder_window => '10 minutes');
SET behavior.retry_delay = 0;
CALL behavior.tick();
SELECT d.got('g');
SELECT projection, event_id, reason, attempts FROM behavior.dead_letter ORDER BY dead_letter_id;
SELECT * FROM d.state;
SELECT behavior.drop_subscription('g');

-- A replay is in order whatever the order of arrival, and so over the seam; what was sent before the subscription and not yet
-- ticked is late, and in order as well.
SELECT d.send('R', 'r' || i, 'a', 600 - 10 * i) FROM unnest('{5,3,9}'::int[]) i;
CALL behavior.tick();
SELECT d.send('R', 'r' || i, 'a', 600 - 10 * i) FROM unnest('{1,8,2}'::int[]) i;
CALL behavior.tick();
SELECT d.send('R', 'r' || i, 'a', 600 - 10 * i) FROM unnest('{7,4,6}'::int[]) i;
SELECT behavior.create_subscription('r', '{"detail-type": ["R"]}', 'd.handle', ordered => true, reorder_window => '5 minutes', start_at => '2020-01-01Z', batch_size => 2);
CALL behavior.tick();
SELECT d.got('r');
SELECT d.send('R', 'late', 'a', 100);
CALL behavior.tick();
SELECT d.got('r');
SELECT * FROM d.state;
SELECT behavior.drop_subscription('r');

-- Before 2000 as well, and from the beginning of time on.
INSERT INTO behavior.event (event_id, type, user_id, occurred_at) VALUES
	('p3', 'P', 'a', '2000-01-01 00:00Z'), ('p1', 'P', 'a', '1969-07-20Z'), ('p4', 'P', 'b', '2010-01-01Z');
CALL behavior.tick();
INSERT INTO behavior.event (event_id, type, user_id, occurred_at) VALUES
	('p2', 'P', 'a', '1999-12-31Z'), ('p3b', 'P', 'c', '2000-01-01 00:00Z'), ('p0', 'P', 'b', '0044-03-15Z BC');
CALL behavior.tick();
SELECT behavior.create_subscription('p', '{"detail-type": ["P"]}', 'd.handle', ordered => true, batch_size => 1, start_at => '-infinity');
CALL behavior.tick();
SELECT d.got('p');
SELECT behavior.drop_subscription('p');

-- No longer ordered: what was held is delivered.
SELECT behavior.create_subscription('n', '{"detail-type": ["N"]}', 'd.handle', ordered => true, reorder_window => '1 hour');
CALL behavior.tick();
SELECT d.send('N', 'n1', 'a', 10), d.send('N', 'n2', 'a', 20);
CALL behavior.tick();
SELECT d.got('n');
SELECT behavior.alter_subscription('n', ordered => false);
CALL behavior.tick();
SELECT count(*) FROM d.effect WHERE subscription = 'n';
SELECT * FROM d.state;
SELECT count(*) FROM behavior._delivery;
DROP SCHEMA d CASCADE;

-- Delivery to handlers: exactly once, batches, failures, order, privileges.  Nothing here depends on the clock: what is to
-- be tried again is due at once, or not at all.
\set VERBOSITY sqlstate
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE ROLE regress_delivery_owner;
CREATE SCHEMA d AUTHORIZATION regress_delivery_owner;
GRANT SELECT, INSERT ON behavior.event TO regress_delivery_owner;
GRANT EXECUTE ON FUNCTION
	behavior.create_subscription(text, jsonb, regproc, int, interval, boolean, interval, int, interval, timestamptz, boolean),
	behavior.alter_subscription(text, jsonb, regproc, int, interval, boolean, interval, int, interval, boolean),
	behavior.drop_subscription(text, boolean), behavior.pause_subscription(text), behavior.resume_subscription(text)
	TO regress_delivery_owner;
SET behavior.retry_delay = 0;

-- One event a minute; bad ones make handlers raise.
CREATE FUNCTION d.send(type text, first int, last int, bad int[] DEFAULT '{}', at timestamptz DEFAULT '2025-01-01Z')
RETURNS void LANGUAGE sql AS $$
	INSERT INTO behavior.event (event_id, type, user_id, occurred_at, properties)
	SELECT type || i, type, 'u' || i % 3, at + i * interval '1 minute',
		jsonb_build_object('n', i, 'bad', i = ANY (bad))
	FROM generate_series(first, last) i
$$;

SET ROLE regress_delivery_owner;
-- Without a unique constraint: an event that took effect twice would stand there twice.
CREATE TABLE d.effect (n bigint GENERATED ALWAYS AS IDENTITY, call bigint, type text, event_id text, who text);
CREATE SEQUENCE d.call;
CREATE FUNCTION d.handle(events behavior.event[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	this bigint := nextval('d.call');
BEGIN
	INSERT INTO d.effect (call, type, event_id, who)
		SELECT this, e.type, e.event_id, current_user
		FROM unnest(events) WITH ORDINALITY e ORDER BY e.ordinality;
	IF EXISTS (SELECT FROM unnest(events) e WHERE (e.properties->>'bad')::boolean) THEN
		RAISE 'bad event' USING ERRCODE = 'D0001';
	END IF;
END $$;
CREATE VIEW d.calls AS
	SELECT type, count(*) AS events, string_agg(event_id, ' ' ORDER BY n) AS ids
	FROM d.effect GROUP BY type, call ORDER BY min(n);
RESET ROLE;
CREATE VIEW d.state AS
	SELECT name, state, matched, delivered, failed, dead_letters, late, lag_events, failing_since IS NOT NULL AS failing, last_error
	FROM behavior.subscription ORDER BY name;
CREATE VIEW d.letters AS
	SELECT projection, reason, event_id, attempts, detail FROM behavior.dead_letter WHERE stage = 'delivery' ORDER BY dead_letter_id;

-- Batches, each event once, as the owner.
SET ROLE regress_delivery_owner;
SELECT behavior.create_subscription('ten', '{"detail-type": ["Ten"]}', 'd.handle', batch_size => 4);
RESET ROLE;
CALL behavior.tick();
SELECT d.send('Ten', 1, 10);
SELECT d.send('Other', 1, 10);
CALL behavior.tick();
SELECT * FROM d.calls;
SELECT DISTINCT who FROM d.effect;
SELECT * FROM d.state;
-- Nothing new, nothing written.
BEGIN;
CALL behavior.tick();
SELECT pg_current_xact_id_if_assigned() IS NULL AS nothing_written;
COMMIT;
SELECT count(*) FROM d.effect;

-- What a handler gets is what the view shows.
SET ROLE regress_delivery_owner;
CREATE TABLE d.event AS SELECT * FROM behavior.event LIMIT 0;
CREATE TABLE d.delivery (subscription text, attempt int, late boolean, hops int, event_id text, known_id boolean);
CREATE FUNCTION d.keep(events behavior.event[]) RETURNS void LANGUAGE sql AS 'INSERT INTO d.event SELECT * FROM unnest(events)';
CREATE FUNCTION d.keep_delivery(deliveries behavior.delivery[]) RETURNS void LANGUAGE sql AS $$
	INSERT INTO d.delivery SELECT subscription, attempt, late, hops, (event).event_id, delivery_id > 0 FROM unnest(deliveries)
$$;
SELECT behavior.create_subscription('keep', '{"detail-type": ["Keep"]}', 'd.keep');
SELECT behavior.create_subscription('keep deliveries', '{"detail-type": ["Keep"]}', 'd.keep_delivery');
RESET ROLE;
CALL behavior.tick();
INSERT INTO behavior.event (event_id, source, type, user_id, anonymous_id, occurred_at, sequence, properties, context) VALUES
	('k1', 'shop', 'Keep', 'u', NULL, '2025-01-01Z', NULL, '{"a": [1, 2.50, "x"]}', NULL),
	('k2', 'app', 'Keep', NULL, 'a', '2024-02-29 12:00Z', 7, '{}', '{"campaign": {"source": "y"}}'),
	('k3', 'app', 'Keep', NULL, NULL, '1969-07-20 20:17Z', 7, jsonb_build_object('long', repeat('behaviour ', 10000)), NULL);
CALL behavior.tick();
SELECT event_id, source, tick_id IS NOT NULL AS has_tick FROM d.event ORDER BY event_id;
(SELECT * FROM d.event EXCEPT ALL SELECT * FROM behavior.event WHERE type = 'Keep')
UNION ALL (SELECT * FROM behavior.event WHERE type = 'Keep' EXCEPT ALL SELECT * FROM d.event);
SELECT * FROM d.delivery ORDER BY event_id;

-- The batch is split until what breaks it is alone; the others go through; that one is tried until max_attempts.
SET ROLE regress_delivery_owner;
TRUNCATE d.effect;
SELECT behavior.create_subscription('poison', '{"detail-type": ["Poison"]}', 'd.handle', batch_size => 8, max_attempts => 3);
RESET ROLE;
CALL behavior.tick();
SELECT d.send('Poison', 1, 20, '{6,13,14}');
SET client_min_messages = error;
CALL behavior.tick();
SET client_min_messages = warning;
SELECT event_id, count(*) FROM d.effect GROUP BY event_id HAVING count(*) > 1;
SELECT string_agg(event_id, ' ' ORDER BY n) FROM d.effect;
SELECT max(events) AS largest FROM d.calls;
SELECT * FROM d.letters;
SELECT payload::jsonb, type, source, batch_id IS NOT NULL AS has_batch FROM behavior.dead_letter WHERE event_id = 'Poison6';
SELECT * FROM d.state WHERE name = 'poison';

-- Waiting for its retry an event shows as failing, and what comes after goes on.  It is said once.
SET behavior.retry_delay = '1h';
SELECT d.send('Poison', 21, 25, '{22}');
CALL behavior.tick();
CALL behavior.tick();
SELECT * FROM d.state WHERE name = 'poison';
SELECT state, attempts, due_at > first_attempt_at + interval '29 min' AS later, error FROM behavior._delivery;
SELECT string_agg(event_id, ' ' ORDER BY n) FROM d.effect WHERE event_id > 'Poison20' AND event_id < 'Poison26';
-- Mended: the next attempt succeeds.
SET ROLE regress_delivery_owner;
CREATE FUNCTION d.handle_all(deliveries behavior.delivery[]) RETURNS void LANGUAGE sql AS $$
	INSERT INTO d.effect (call, type, event_id, who)
	SELECT attempt, (event).type, (event).event_id, current_user FROM unnest(deliveries)
$$;
SELECT behavior.alter_subscription('poison', handler => 'd.handle_all');
RESET ROLE;
UPDATE behavior._delivery SET due_at = now();
CALL behavior.tick();
SELECT call AS attempt, event_id FROM d.effect WHERE event_id = 'Poison22';
SELECT * FROM d.state WHERE name = 'poison';
SET behavior.retry_delay = 0;

-- max_age: given up although there are attempts left.
SET ROLE regress_delivery_owner;
SELECT behavior.create_subscription('old', '{"detail-type": ["Old"]}', 'd.handle', max_age => '1 microsecond', max_attempts => 1000000);
RESET ROLE;
CALL behavior.tick();
SELECT d.send('Old', 1, 2, '{1}');
SET client_min_messages = error;
CALL behavior.tick();
SET client_min_messages = warning;
SELECT reason, event_id, attempts < 1000 AS few, regexp_replace(detail, '\d+ attempts?', 'some attempts') AS detail
FROM d.letters WHERE projection = 'old';

-- When eight in a row fail alone it is not the events: the queue rests.
SET ROLE regress_delivery_owner;
SELECT behavior.create_subscription('rest', '{"detail-type": ["Rest"]}', 'd.handle', batch_size => 1);
RESET ROLE;
CALL behavior.tick();
SET behavior.retry_delay = '1h';
SELECT d.send('Rest', 1, 20, ARRAY(SELECT generate_series(1, 12)));
CALL behavior.tick();
CALL behavior.tick();
SELECT count(*) FROM behavior._delivery;
SELECT * FROM d.state WHERE name = 'rest';
-- One success and it goes on.
UPDATE behavior._delivery SET due_at = now() WHERE event_id = 'Rest3';
SET ROLE regress_delivery_owner;
SELECT behavior.alter_subscription('rest', handler => 'd.handle_all');
RESET ROLE;
CALL behavior.tick();
SELECT * FROM d.state WHERE name = 'rest';
UPDATE behavior._delivery SET due_at = now();
CALL behavior.tick();
SELECT * FROM d.state WHERE name = 'rest';
SET behavior.retry_delay = 0;

-- batch_window: a batch waits until it is full.
SET ROLE regress_delivery_owner;
SELECT behavior.create_subscription('window', '{"detail-type": ["Window"]}', 'd.handle', batch_size => 5, batch_window => '1 hour');
RESET ROLE;
CALL behavior.tick();
SELECT d.send('Window', 1, 4);
CALL behavior.tick();
SELECT * FROM d.calls WHERE type = 'Window';
SELECT d.send('Window', 5, 7);
CALL behavior.tick();
SELECT * FROM d.calls WHERE type = 'Window';
SELECT behavior.alter_subscription('window', batch_window => '0');
CALL behavior.tick();
SELECT * FROM d.calls WHERE type = 'Window';

-- Pause, resume, drop with what waits.
SELECT behavior.create_subscription('pause', '{"detail-type": ["Pause"]}', 'd.handle');
CALL behavior.tick();
SELECT behavior.pause_subscription('pause');
SELECT d.send('Pause', 1, 3);
CALL behavior.tick();
SELECT * FROM d.calls WHERE type = 'Pause';
SELECT * FROM d.state WHERE name = 'pause';
SELECT behavior.resume_subscription('pause');
CALL behavior.tick();
SELECT * FROM d.calls WHERE type = 'Pause';
SELECT behavior.pause_subscription('pause');
SELECT d.send('Pause', 4, 6);
CALL behavior.tick();
SELECT behavior.drop_subscription('pause');
CALL behavior.tick();
SELECT * FROM d.calls WHERE type = 'Pause';

-- In a transaction block all of it belongs to the caller, and rolls back with it.
BEGIN;
SELECT d.send('Ten', 11, 15);
CALL behavior.tick();
SELECT string_agg(event_id, ' ' ORDER BY n) FROM d.effect WHERE type = 'Ten';
SELECT delivered FROM d.state WHERE name = 'ten';
ROLLBACK;
SELECT string_agg(event_id, ' ' ORDER BY n) FROM d.effect WHERE type = 'Ten';
SELECT delivered FROM d.state WHERE name = 'ten';
SELECT d.send('Ten', 11, 15);
CALL behavior.tick();
SELECT string_agg(event_id, ' ' ORDER BY n) FROM d.effect WHERE type = 'Ten';

-- What a handler must not do, or what must not outlive its call.
SET ROLE regress_delivery_owner;
CREATE TABLE d.parent (id int PRIMARY KEY);
CREATE TABLE d.child (id int REFERENCES d.parent DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION d.odd(events behavior.event[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	what text := events[1].properties->>'what';
	c refcursor;
BEGIN
	INSERT INTO d.effect (call, type, event_id, who) VALUES (nextval('d.call'), 'Odd', what, current_user);
	CASE what
		WHEN 'commit' THEN COMMIT;
		WHEN 'rollback' THEN ROLLBACK;
		WHEN 'become somebody else' THEN SET ROLE postgres;
		WHEN 'temporary' THEN CREATE TEMPORARY TABLE left_behind (x int);
		WHEN 'deferred' THEN INSERT INTO d.child VALUES (1);
		WHEN 'tick' THEN CALL behavior.tick();
		WHEN 'cancel' THEN RAISE SQLSTATE '57014';
		WHEN 'shutdown' THEN RAISE SQLSTATE '57P01';
		WHEN 'assert' THEN ASSERT false;
		WHEN 'settings' THEN
			PERFORM set_config('work_mem', '77MB', false), set_config('search_path', 'd', false),
				set_config('behavior.default_source', 'handler', false);
		WHEN 'cursor' THEN OPEN c FOR SELECT * FROM d.effect;
		WHEN 'search_path' THEN INSERT INTO effect (event_id) VALUES ('found without schema');
		WHEN 'send' THEN
			INSERT INTO behavior.event (event_id, type, occurred_at) VALUES ('sent by a handler', 'Ten', '2025-02-01Z');
		WHEN 'caught' THEN
			BEGIN
				PERFORM 1 / 0;
			EXCEPTION WHEN division_by_zero THEN NULL;
			END;
	END CASE;
END $$;
SELECT behavior.create_subscription('odd', '{"detail-type": ["Odd"]}', 'd.odd', batch_size => 1, max_attempts => 1);
RESET ROLE;
GRANT EXECUTE ON PROCEDURE behavior.tick() TO regress_delivery_owner;
CALL behavior.tick();
INSERT INTO behavior.event (event_id, type, occurred_at, properties)
SELECT 'odd ' || what, 'Odd', timestamptz '2025-01-01Z' + n * interval '1 second', jsonb_build_object('what', what)
FROM unnest('{commit,rollback,become somebody else,temporary,deferred,caught,tick,cancel,shutdown,assert,settings,cursor,search_path,send}'::text[])
	WITH ORDINALITY w (what, n);
SET client_min_messages = error;
CALL behavior.tick();
SET client_min_messages = warning;
SELECT event_id, detail FROM d.letters WHERE projection = 'odd';
SELECT event_id, who FROM d.effect WHERE type = 'Odd' ORDER BY n;
SHOW work_mem;
SHOW search_path;
SHOW behavior.default_source;
SELECT count(*) FROM pg_cursors WHERE is_holdable;
CALL behavior.tick();
SELECT event_id FROM d.effect WHERE event_id LIKE 'sent%';
REVOKE EXECUTE ON PROCEDURE behavior.tick() FROM regress_delivery_owner;

-- A handler may change its own subscription, and drop it.
SET ROLE regress_delivery_owner;
CREATE FUNCTION d.self(events behavior.event[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO d.effect (type, event_id) SELECT 'Self', e.event_id FROM unnest(events) e;
	CASE events[1].properties->>'what'
		WHEN 'alter' THEN PERFORM behavior.alter_subscription('self', batch_size => 2);
		WHEN 'resume' THEN PERFORM behavior.resume_subscription('self');
		WHEN 'pause' THEN PERFORM behavior.pause_subscription('self');
		WHEN 'drop' THEN PERFORM behavior.drop_subscription('self');
	END CASE;
END $$;
SELECT behavior.create_subscription('self', '{"detail-type": ["Self"]}', 'd.self', batch_size => 1, max_attempts => 1);
RESET ROLE;
CALL behavior.tick();
CREATE FUNCTION d.send_self(what text) RETURNS void LANGUAGE sql AS $$
	INSERT INTO behavior.event (event_id, type, occurred_at, properties)
	VALUES ('self ' || what, 'Self', '2025-01-01Z', jsonb_build_object('what', what))
$$;
SELECT d.send_self('alter');
CALL behavior.tick();
SELECT d.send_self('pause');
CALL behavior.tick();
SELECT state, matched, delivered, lag_events FROM d.state WHERE name = 'self';
SELECT behavior.resume_subscription('self');
SELECT d.send_self('resume');
SET client_min_messages = error;
CALL behavior.tick();
SET client_min_messages = warning;
SELECT d.send_self('drop');
CALL behavior.tick();
SELECT state, matched, delivered, lag_events FROM d.state WHERE name = 'self';
SELECT event_id FROM d.effect WHERE type = 'Self' ORDER BY n;
SELECT count(*) FROM behavior._subscription s FULL JOIN behavior._subscription_progress p USING (subscription_id)
WHERE s.name IS NULL OR p.step IS NULL;

-- A handler that sends what it is called for ends after behavior.max_hops.
SET ROLE regress_delivery_owner;
CREATE FUNCTION d.echo(events behavior.event[]) RETURNS void LANGUAGE sql AS $$
	INSERT INTO behavior.event (event_id, type, occurred_at)
	SELECT 'after ' || event_id, 'Echo', occurred_at FROM unnest(events)
$$;
SELECT behavior.create_subscription('echo', '{"detail-type": ["Echo"]}', 'd.echo');
RESET ROLE;
CALL behavior.tick();
INSERT INTO behavior.event (event_id, type, occurred_at) VALUES ('1', 'Echo', '2025-01-01Z'), ('2', 'Echo', '2025-01-01Z');
DO $$
BEGIN
	SET LOCAL client_min_messages = error;
	FOR i IN 1..20 LOOP
		CALL behavior.tick();
	END LOOP;
END $$;
SELECT hops, count(*) FROM behavior.log WHERE type = 'Echo' GROUP BY hops ORDER BY hops NULLS FIRST;
SELECT reason, count(*) FROM behavior.dead_letter WHERE type = 'Echo' GROUP BY reason;
SELECT state, matched, delivered, lag_events FROM d.state WHERE name = 'echo';

-- A subscription that cannot work says why, loses nothing, and goes on where it was once it is mended.
SET ROLE regress_delivery_owner;
CREATE FUNCTION d.fragile(events behavior.event[]) RETURNS void LANGUAGE sql AS $$
	INSERT INTO d.effect (call, type, event_id) SELECT 0, type, event_id FROM unnest(events)
$$;
SELECT behavior.create_subscription('fragile', '{"detail-type": ["Fragile"]}', 'd.fragile', max_attempts => 1);
RESET ROLE;
CALL behavior.tick();
SELECT d.send('Fragile', 1, 3);
\set VERBOSITY default
REVOKE SELECT ON behavior.event FROM regress_delivery_owner;
CALL behavior.tick();
CALL behavior.tick();
SELECT * FROM d.state WHERE name = 'fragile';
\set VERBOSITY sqlstate
GRANT SELECT ON behavior.event TO regress_delivery_owner;
CALL behavior.tick();
SELECT * FROM d.calls WHERE type = 'Fragile';
SELECT * FROM d.state WHERE name = 'fragile';

SELECT d.send('Fragile', 4, 4);
REVOKE EXECUTE ON FUNCTION d.fragile FROM PUBLIC, regress_delivery_owner;
CALL behavior.tick();
SELECT failed, dead_letters, lag_events, last_error FROM d.state WHERE name = 'fragile';
GRANT EXECUTE ON FUNCTION d.fragile TO regress_delivery_owner;
CALL behavior.tick();
SELECT failed, dead_letters, lag_events, last_error FROM d.state WHERE name = 'fragile';

SELECT d.send('Fragile', 5, 5);
DROP FUNCTION d.fragile;
CALL behavior.tick();
SELECT failed, dead_letters, lag_events, last_error FROM d.state WHERE name = 'fragile';
CREATE FUNCTION d.fragile(events behavior.event[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
CALL behavior.tick();
SELECT failed, dead_letters, lag_events, last_error FROM d.state WHERE name = 'fragile';
DROP FUNCTION d.fragile;
ALTER SCHEMA d OWNER TO CURRENT_USER;
CREATE FUNCTION d.fragile(events behavior.event[]) RETURNS void LANGUAGE sql AS $$
	INSERT INTO d.effect (call, type, event_id) SELECT 1, type, event_id FROM unnest(events)
$$;
CALL behavior.tick();
SELECT failed, dead_letters, lag_events, last_error FROM d.state WHERE name = 'fragile';
ALTER SCHEMA d OWNER TO regress_delivery_owner;
CALL behavior.tick();
SELECT failed, dead_letters, lag_events, last_error FROM d.state WHERE name = 'fragile';
SELECT * FROM d.calls WHERE type = 'Fragile';

CREATE ROLE regress_delivery_gone;
GRANT SELECT ON behavior.event TO regress_delivery_gone;
GRANT USAGE ON SCHEMA d TO PUBLIC;
GRANT INSERT ON d.effect TO PUBLIC;

-- A subscription knows its owner by name: the role is renamed.
SELECT behavior.reassign_owned('regress_delivery_owner', 'regress_delivery_missing');
\set VERBOSITY default
SELECT behavior.reassign_owned('regress_delivery_owner', 'regress_delivery_gone') > 1 AS all_of_them;
SELECT DISTINCT owner FROM behavior.subscription;
ALTER ROLE regress_delivery_gone RENAME TO regress_delivery_renamed;
-- Said before there is anything to deliver.
SELECT name, owner, state, failing_since, last_error FROM behavior.subscription WHERE name = 'fragile';
SELECT d.send('Fragile', 6, 6);
CALL behavior.tick();
CALL behavior.tick();
SELECT * FROM d.state WHERE name = 'fragile';
SET ROLE regress_delivery_owner;
SELECT behavior.pause_subscription('fragile');
RESET ROLE;
ALTER ROLE regress_delivery_renamed RENAME TO regress_delivery_gone;
CALL behavior.tick();
SELECT * FROM d.state WHERE name = 'fragile';
-- It is dropped.
REVOKE ALL ON behavior.event FROM regress_delivery_gone;
DROP ROLE regress_delivery_gone;
SELECT d.send('Fragile', 7, 7);
CALL behavior.tick();
SELECT * FROM d.state WHERE name = 'fragile';
\set VERBOSITY sqlstate
SET ROLE regress_delivery_owner;
SELECT behavior.reassign_owned('regress_delivery_gone', 'regress_delivery_owner');
RESET ROLE;
GRANT EXECUTE ON FUNCTION behavior.reassign_owned TO regress_delivery_owner;
SET ROLE regress_delivery_owner;
SELECT behavior.reassign_owned('regress_delivery_gone', 'regress_delivery_owner');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION behavior.reassign_owned FROM regress_delivery_owner;
SELECT behavior.reassign_owned('regress_delivery_gone', 'regress_delivery_owner') > 1 AS all_of_them;
CALL behavior.tick();
SELECT * FROM d.calls WHERE type = 'Fragile';
SELECT * FROM d.state WHERE name = 'fragile';

-- All that was matched was delivered, is a dead letter, or waits; nothing is left in flight.
SELECT name FROM behavior.subscription WHERE matched <> delivered + dead_letters + lag_events;
SELECT count(*) FROM behavior._delivery;
SELECT count(*) FROM behavior._delivery_chunk;

SELECT behavior.drop_subscription(name) FROM behavior.subscription;
DROP SCHEMA d CASCADE;
REVOKE ALL ON behavior.event FROM regress_delivery_owner;
REVOKE ALL ON FUNCTION
	behavior.create_subscription(text, jsonb, regproc, int, interval, boolean, interval, int, interval, timestamptz, boolean),
	behavior.alter_subscription(text, jsonb, regproc, int, interval, boolean, interval, int, interval, boolean),
	behavior.drop_subscription(text, boolean), behavior.pause_subscription(text), behavior.resume_subscription(text)
	FROM regress_delivery_owner;
DROP ROLE regress_delivery_owner;

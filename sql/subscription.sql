-- Subscriptions: making and changing them, routing into their queues, replay.  None here has a handler that runs:
-- sql/delivery.sql has those.
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE SCHEMA desk;
CREATE FUNCTION desk.handle(events behavior.event[]) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION desk.handle_deliveries(deliveries behavior.delivery[]) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION desk.wrong_argument(events behavior.event) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION desk.wrong_result(events behavior.event[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION desk.wrong_set(events behavior.event[]) RETURNS SETOF void LANGUAGE sql AS '';
CREATE PROCEDURE desk.wrong_kind(events behavior.event[]) LANGUAGE sql AS '';
CREATE FUNCTION pg_temp.temporary(events behavior.event[]) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION desk.secret(events behavior.event[]) RETURNS void LANGUAGE sql AS '';
REVOKE ALL ON FUNCTION desk.secret(behavior.event[]) FROM PUBLIC;

-- What is in a queue, what the catalog says, and that both agree: computed from the references themselves.
CREATE VIEW desk.status AS SELECT name, state, matched, delivered, lag_events FROM behavior.subscription;
CREATE VIEW desk.miscounted AS
	SELECT s.name, s.matched, s.lag_events, s.delivered, s.dead_letters, w.waiting, w.held
	FROM behavior.subscription s JOIN behavior._subscription i ON i.name = s.name,
		LATERAL (SELECT
			(SELECT count(*) FROM behavior._queue(s.name, 100000)) AS waiting,
			(SELECT count(*) FROM behavior._delivery d WHERE d.subscription_id = i.subscription_id) AS held) w
	WHERE s.matched <> s.delivered + s.dead_letters + s.lag_events OR s.lag_events <> w.waiting + w.held;

\echo -- arguments
\set VERBOSITY terse
SELECT behavior.create_subscription(NULL, '{"detail-type": ["Order"]}');
SELECT behavior.create_subscription('orders', NULL);
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}', ordered => NULL);
SELECT behavior.create_subscription('', '{"detail-type": ["Order"]}');
SELECT behavior.create_subscription(repeat('x', 41), '{"detail-type": ["Order"]}');
SELECT behavior.create_subscription(repeat('é', 21), '{"detail-type": ["Order"]}');
SELECT behavior.create_subscription('sessions', '{"detail-type": ["Order"]}');
SELECT behavior.create_subscription('activity', '{"detail-type": ["Order"]}');
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}', batch_size => 0);
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}', batch_size => 10001);
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}', batch_window => '-1 second');
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}', batch_window => '61 minutes');
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}', reorder_window => '-1 second');
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}', max_attempts => 0);
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}', max_age => '0');
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}', max_age => '178000000 years');
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}', start_at => 'infinity');
\set VERBOSITY sqlstate
\echo -- a pattern that is none: 22023
SELECT behavior.create_subscription('orders', '{"detail-type": "Order"}');
\set VERBOSITY terse
\echo -- handlers
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}', 'desk.nobody');
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}', 'desk.wrong_argument');
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}', 'desk.wrong_result');
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}', 'desk.wrong_set');
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}', 'desk.wrong_kind');
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}', 'pg_temp.temporary');
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}', 'pg_catalog.count');

\echo -- privileges
CREATE ROLE regress_subscriber;
CREATE ROLE regress_other;
GRANT USAGE ON SCHEMA desk TO regress_subscriber;
SET ROLE regress_subscriber;
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}');
RESET ROLE;
GRANT EXECUTE ON FUNCTION
	behavior.create_subscription(text, jsonb, regproc, int, interval, boolean, interval, int, interval, timestamptz, boolean),
	behavior.alter_subscription(text, jsonb, regproc, int, interval, boolean, interval, int, interval, boolean),
	behavior.drop_subscription(text, boolean), behavior.pause_subscription(text), behavior.resume_subscription(text)
	TO regress_subscriber, regress_other;
SET ROLE regress_subscriber;
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}');
RESET ROLE;
GRANT SELECT ON behavior.event TO regress_subscriber;
SET ROLE regress_subscriber;
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}', 'desk.secret');
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}', 'desk.handle');
SELECT * FROM behavior.subscription;
RESET ROLE;
SET ROLE regress_other;
SELECT behavior.alter_subscription('orders', batch_size => 5);
SELECT behavior.pause_subscription('orders');
SELECT behavior.resume_subscription('orders');
SELECT behavior.drop_subscription('orders');
SELECT behavior.drop_subscription('orders', true);
RESET ROLE;
GRANT pg_monitor TO regress_other;
SET ROLE regress_other;
SELECT name, pattern, handler, owner, state, matched, lag_events, lag >= '0' AS lag FROM behavior.subscription;
SELECT name, kind, state, lag_events FROM behavior.projection WHERE kind = 'subscription';
RESET ROLE;

\echo -- names are unique over all projections
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}');
SELECT behavior.create_rollup('views', 'SELECT type, count(*) AS n FROM behavior.event GROUP BY 1');
SELECT behavior.create_subscription('views', '{"detail-type": ["Order"]}');
SELECT behavior.create_rollup('desk.orders', 'SELECT type, count(*) AS n FROM behavior.event GROUP BY 1');
SELECT name FROM behavior.rollup ORDER BY name;
SELECT behavior.drop_rollup('desk.orders'), behavior.drop_rollup('views');

\echo -- altering
SET ROLE regress_subscriber;
SELECT behavior.alter_subscription('orders', '{"detail-type": ["Order", "Refund"]}', 'desk.handle_deliveries', 7, '3 seconds', true,
	'1 minute', 3, '1 day', true);
SELECT behavior.alter_subscription('orders');
SELECT behavior.alter_subscription('orders', batch_size => 0);
SELECT behavior.alter_subscription('orders', handler => 'desk.wrong_result');
SELECT behavior.alter_subscription('nobody');
SELECT behavior.alter_subscription(NULL);
RESET ROLE;
SELECT name, owner, pattern, handler, takes_delivery, batch_size, batch_window, ordered, reorder_window, max_attempts, max_age,
	start_at, reserved_worker, paused FROM behavior._subscription;
SELECT behavior.pause_subscription('orders');
SELECT name, state FROM behavior.subscription;
SELECT behavior.resume_subscription('orders');
SELECT name, state FROM behavior.subscription;
\echo -- dropping
SET ROLE regress_subscriber;
SELECT behavior.drop_subscription('orders');
SELECT behavior.drop_subscription('orders', true);
SELECT behavior.drop_subscription('orders');
RESET ROLE;
SELECT (SELECT count(*) FROM behavior._subscription), (SELECT count(*) FROM behavior._subscription_progress);
SELECT behavior.pause_subscription('orders');

\echo -- without subscriptions the router writes nothing
INSERT INTO behavior.event (event_id, type) VALUES ('before', 'Order');
CALL behavior.tick();
SELECT count(*) FROM behavior._route_progress;

\echo -- what comes from now on: not what is in a tick, nor what was sent before
INSERT INTO behavior.event (event_id, type) VALUES ('sent', 'Order');
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}');
SELECT behavior.create_subscription('all', '{"source": [{"exists": true}]}');
SELECT behavior.create_subscription('none', '{"detail-type": ["Nothing"]}');
SELECT behavior.alter_subscription('orders', handler => 'desk.handle');
SELECT * FROM desk.status ORDER BY name;
INSERT INTO behavior.event (event_id, type, occurred_at, sequence) VALUES
	('b', 'Order', '2024-01-02 00:00:02', NULL), ('a', 'Order', '2024-01-02 00:00:02', NULL), ('c', 'Order', '2024-01-02 00:00:02', 1),
	('d', 'Order', '2024-01-02 00:00:01', 2), ('B', 'Order', '2024-01-02 00:00:02', NULL), ('view', 'View', '2024-01-01', NULL);
CALL behavior.tick();
SELECT * FROM desk.status ORDER BY name;
SELECT event_id FROM behavior._queue('orders');
SELECT event_id FROM behavior._queue('all');
SELECT * FROM behavior._queue('none');
SELECT count(*), max(tick_id) = (SELECT max(tick_id) FROM behavior.tick) AS present FROM behavior._route_progress;
SELECT name, state, tick_id, lag_events, lag >= '0' AS lag FROM behavior.projection WHERE kind = 'subscription' ORDER BY name;
\echo -- a tick after the other, although it occurred before
INSERT INTO behavior.event (event_id, type, occurred_at) VALUES ('early', 'Order', '2022-01-01');
CALL behavior.tick();
SELECT event_id FROM behavior._queue('orders');
\echo -- taken from the front
SELECT behavior._queue_pass('orders', 2), behavior._queue_pass('orders', 0);
SELECT event_id FROM behavior._queue('orders');
SELECT * FROM desk.status ORDER BY name;
SELECT behavior._queue_pass('orders', 100), behavior._queue_pass('orders', 100);
SELECT * FROM desk.status ORDER BY name;
SELECT count(*) FROM behavior._delivery_chunk c JOIN behavior._subscription s USING (subscription_id) WHERE s.name = 'orders';
SELECT * FROM desk.miscounted;

\echo -- more than a row takes; a part of a row passed over
INSERT INTO behavior.event (event_id, type, occurred_at)
	SELECT 'n' || i, 'Order', timestamptz '2024-01-03' + i * interval '1 second' FROM generate_series(1, 1000) i ORDER BY i % 7;
CALL behavior.tick();
SELECT c.events, c.queued FROM behavior._delivery_chunk c JOIN behavior._subscription s USING (subscription_id) WHERE s.name = 'orders' ORDER BY c.first_delivery_id;
SELECT count(*), count(DISTINCT delivery_id), array_agg(event_id ORDER BY delivery_id) = array_agg(event_id ORDER BY substr(event_id, 2)::int) AS in_order
	FROM behavior._queue('orders');
SELECT behavior._queue_pass('orders', 249), behavior._queue_pass('orders', 2), behavior._queue_pass('orders', 300);
SELECT event_id FROM behavior._queue('orders', 1);
SELECT * FROM desk.status ORDER BY name;
SELECT * FROM desk.miscounted;
\echo -- in a transaction block all of it is of the block
BEGIN;
INSERT INTO behavior.event (event_id, type) VALUES ('rolled back', 'Order');
SELECT behavior.create_subscription('brief', '{"detail-type": ["Order"]}');
INSERT INTO behavior.event (event_id, type) VALUES ('rolled back, too', 'Order');
CALL behavior.tick();
SELECT * FROM desk.status ORDER BY name;
SELECT event_id FROM behavior._queue('brief');
SELECT behavior._queue_pass('orders', 10);
ROLLBACK;
SELECT * FROM desk.status ORDER BY name;
SELECT * FROM desk.miscounted;
INSERT INTO behavior.event (event_id, type) VALUES ('committed', 'Order');
CALL behavior.tick();
SELECT * FROM desk.status ORDER BY name;
SELECT * FROM desk.miscounted;
\echo -- another pattern, for what comes
SELECT behavior.alter_subscription('none', '{"detail-type": ["Order"]}');
INSERT INTO behavior.event (event_id, type) VALUES ('none takes it', 'Order');
CALL behavior.tick();
SELECT event_id FROM behavior._queue('none');
\echo -- paused ones go on being routed to
SELECT behavior.pause_subscription('none');
INSERT INTO behavior.event (event_id, type) VALUES ('while paused', 'Order');
CALL behavior.tick();
SELECT event_id FROM behavior._queue('none');
SELECT * FROM desk.status WHERE name = 'none';
\echo -- rows that were moved are found by their key
VACUUM FULL behavior.log_default;
DO $$ DECLARE r regclass; BEGIN
	FOR r IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'behavior.log'::regclass LOOP
		EXECUTE format('CREATE TABLE desk.copy AS SELECT * FROM %s ORDER BY event_id DESC', r);
		EXECUTE format('DELETE FROM %s', r);
		EXECUTE format('INSERT INTO %s SELECT * FROM desk.copy', r);
		DROP TABLE desk.copy;
	END LOOP;
END $$;
SELECT count(*), count(event_id), array_agg(event_id ORDER BY delivery_id) = array_agg(event_id ORDER BY substr(event_id, 2)::int) AS in_order
	FROM behavior._queue('orders') WHERE event_id ~ '^n\d';
SELECT event_id FROM behavior._queue('none');
\echo -- those that are gone have no event
BEGIN;
SET LOCAL client_min_messages = error;
DELETE FROM behavior.log_default;
DO $$ DECLARE r regclass; BEGIN
	FOR r IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'behavior.log'::regclass LOOP
		EXECUTE format('DELETE FROM %s WHERE event_id = ''while paused''', r);
	END LOOP;
END $$;
SELECT event_id, source FROM behavior._queue('none');
ROLLBACK;

\echo -- a drop leaves nothing, and its name is free
SELECT behavior.drop_subscription('all');
SELECT count(*) FROM behavior._delivery_chunk WHERE NOT EXISTS (SELECT FROM behavior._subscription s WHERE s.subscription_id = _delivery_chunk.subscription_id);
SELECT behavior.create_subscription('all', '{"source": [{"exists": true}]}');
CALL behavior.tick();
SELECT * FROM desk.status ORDER BY name;
\echo -- when all have gone, the next one starts from now on
SELECT behavior.drop_subscription('all'), behavior.drop_subscription('none'), behavior.drop_subscription('orders');
INSERT INTO behavior.event (event_id, type) VALUES ('in between', 'Order');
CALL behavior.tick();
INSERT INTO behavior.event (event_id, type) VALUES ('in between, without a tick', 'Order');
SELECT behavior.create_subscription('orders', '{"detail-type": ["Order"]}');
INSERT INTO behavior.event (event_id, type) VALUES ('again', 'Order');
CALL behavior.tick();
SELECT event_id FROM behavior._queue('orders');
SELECT (SELECT count(*) FROM behavior._subscription_join), (SELECT count(*) FROM behavior._subscription_progress), (SELECT count(*) FROM behavior._route_progress);

\echo -- neither rebuilt nor verified
SELECT behavior.rebuild('orders');
SELECT * FROM behavior.verify('orders');
SELECT * FROM behavior.verify();

\echo -- replay: what occurred from start_at on, before what is sent from now on
INSERT INTO behavior.event (event_id, type, occurred_at)
	SELECT 'r' || i, CASE WHEN i % 2 = 0 THEN 'Order' ELSE 'View' END, timestamptz '2024-02-01' + i * interval '1 hour' FROM generate_series(1, 400) i ORDER BY i % 7;
CALL behavior.tick();
INSERT INTO behavior.event (event_id, type, occurred_at) VALUES ('uncut', 'Order', '2024-02-03'), ('uncut, too early', 'Order', '2024-02-01');
SELECT behavior.create_subscription('past', '{"detail-type": ["Order"]}', start_at => '2024-02-02', ordered => true);
SELECT * FROM desk.status WHERE name = 'past';
SELECT behavior._replay_step('past');
CALL behavior.tick();
SELECT * FROM desk.status WHERE name = 'past';
INSERT INTO behavior.event (event_id, type, occurred_at) VALUES ('late', 'Order', '2024-02-04'), ('too early', 'Order', '2024-01-04');
CALL behavior.tick();
SELECT event_id FROM behavior._queue('past');
DO $$ BEGIN WHILE behavior._replay_step('past') LOOP NULL; END LOOP; END $$;
SELECT * FROM desk.status WHERE name = 'past';
SELECT count(*), count(*) FILTER (WHERE live), bool_and(source IS NOT NULL) FROM behavior._queue('past');
SELECT array_agg(q.event_id ORDER BY delivery_id) = array_agg(q.event_id ORDER BY e.occurred_at) AS in_order
	FROM behavior._queue('past') q JOIN behavior.event e USING (event_id, source) WHERE NOT q.live;
SELECT event_id FROM behavior._queue('past') WHERE live ORDER BY delivery_id;
SELECT event_id FROM behavior.event WHERE type = 'Order' AND occurred_at >= '2024-02-02' EXCEPT ALL SELECT event_id FROM behavior._queue('past');
SELECT event_id FROM behavior._queue('past') EXCEPT ALL SELECT event_id FROM behavior.event WHERE type = 'Order' AND occurred_at >= '2024-02-02';
SELECT * FROM desk.miscounted;
SELECT behavior._queue_pass('past', 100), behavior._queue_pass('past', 100);
SELECT * FROM desk.status WHERE name = 'past';
SELECT * FROM desk.miscounted;
\echo -- much of it at the same time, and much at once: in steps, none twice
INSERT INTO behavior.event (event_id, type, occurred_at)
	SELECT 's' || i, 'Sale', timestamptz '2023-12-31 22:00' + (i % 3) * interval '1 hour' FROM generate_series(1, 13000) i;
INSERT INTO behavior.event (event_id, type, occurred_at)
	SELECT 't' || i, 'Sale', timestamptz '2024-03-02' + (i * 7919 % 20000) * interval '1 second' FROM generate_series(1, 20000) i;
CALL behavior.tick();
SELECT behavior.create_subscription('sales', '{"detail-type": ["Sale"]}', start_at => '-infinity');
CALL behavior.tick();
CREATE TABLE desk.steps (n int);
CREATE TABLE desk.taken (event_id text, n bigint GENERATED ALWAYS AS IDENTITY);
DO $$
DECLARE
	more boolean := true;
	steps int := 0;
BEGIN
	WHILE more LOOP
		more := behavior._replay_step('sales');
		steps := steps + 1;
		INSERT INTO desk.taken (event_id) SELECT event_id FROM behavior._queue('sales', 100000) ORDER BY delivery_id;
		PERFORM behavior._queue_pass('sales', 100000);
	END LOOP;
	INSERT INTO desk.steps VALUES (steps);
END $$;
SELECT n > 2 AS in_steps FROM desk.steps;
SELECT count(*), count(DISTINCT event_id) FROM desk.taken;
SELECT count(*) AS out_of_order FROM (
	SELECT (e.occurred_at, e.event_id COLLATE "C") < (lag(e.occurred_at) OVER (ORDER BY t.n), lag(e.event_id COLLATE "C") OVER (ORDER BY t.n)) AS wrong
	FROM desk.taken t JOIN behavior.log e USING (event_id)) w WHERE wrong;
SELECT * FROM desk.status WHERE name = 'sales';
SELECT * FROM desk.miscounted;

\echo -- a pattern that does not compile any more: its subscription is set aside, the others go on
SELECT behavior.create_subscription('refund', '{"detail-type": ["Refund"]}'), behavior.create_subscription('other', '{"detail-type": ["Refund"]}');
CALL behavior.tick();
UPDATE behavior._subscription SET pattern = '{"detail-type": [{"of old": 1}]}' WHERE name = 'refund';
INSERT INTO behavior.event (event_id, type) VALUES ('refund-1', 'Refund');
CALL behavior.tick();
\echo -- which is said once
INSERT INTO behavior.event (event_id, type) VALUES ('refund-2', 'Refund');
CALL behavior.tick();
SELECT name, state, matched, failing_since IS NOT NULL AS failing, last_error FROM behavior.subscription WHERE name IN ('refund', 'other') ORDER BY 1;
SELECT behavior.alter_subscription('refund', '{"detail-type": ["Refund"]}');
INSERT INTO behavior.event (event_id, type) VALUES ('refund-3', 'Refund');
CALL behavior.tick();
SELECT name, state, matched, failing_since IS NOT NULL AS failing, last_error FROM behavior.subscription WHERE name IN ('refund', 'other') ORDER BY 1;
SELECT behavior.drop_subscription('refund'), behavior.drop_subscription('other');

\echo -- batches stay until they are routed
DELETE FROM behavior._route_progress;
INSERT INTO behavior._route_progress VALUES (0);
UPDATE behavior._batch SET received_at = received_at - interval '8 days';
SELECT behavior._batch_expire(100000);
SELECT behavior.drop_subscription('past'), behavior.drop_subscription('sales'), behavior.drop_subscription('orders');
SELECT behavior._batch_expire(100000) > 0 AS expired;
DROP SCHEMA desk CASCADE;
DROP OWNED BY regress_subscriber, regress_other;
DROP ROLE regress_subscriber, regress_other;

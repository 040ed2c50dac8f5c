-- Dead letters of stage delivery are sent to their subscription again.
SET client_min_messages = warning;
\set VERBOSITY terse
CREATE FUNCTION send(first int, last int, kind text) RETURNS void LANGUAGE sql AS $$
	INSERT INTO behavior.event (event_id, source, type, user_id, occurred_at)
	SELECT kind || i, 'web', kind, 'u' || i % 3, timestamptz '2026-01-01 00:00+00' + i * interval '1 second'
	FROM generate_series(first, last) i
$$;
CREATE VIEW counts AS SELECT name, state, matched, delivered, failed, dead_letters, lag_events FROM behavior.subscription;
CREATE VIEW letters AS SELECT d.event_id, d.reason, d.projection, d.attempts, d.redriven_at IS NOT NULL AS redriven, p.event_id AS previous
	FROM behavior.dead_letter d LEFT JOIN behavior.dead_letter p ON p.dead_letter_id = d.previous ORDER BY d.dead_letter_id;
CREATE TABLE effect (event_id text, attempt int);
CREATE FUNCTION picky(deliveries behavior.delivery[]) RETURNS void LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
	INSERT INTO effect SELECT (d.event).event_id, d.attempt FROM unnest(deliveries) d;
	IF EXISTS (SELECT FROM unnest(deliveries) d WHERE (d.event).event_id IN ('Pay2', 'Pay4')) THEN
		RAISE EXCEPTION 'card declined';
	END IF;
END $$;
SELECT behavior.create_subscription('pay', '{"detail-type": ["Pay"]}', 'picky(behavior.delivery[])'::regprocedure, max_attempts => 1);
SELECT send(1, 5, 'Pay');
CALL behavior.tick();
SELECT * FROM effect ORDER BY event_id;
SELECT * FROM letters;
SELECT * FROM counts;

-- A dry run changes nothing.
SELECT r.status, r.reason, d.event_id FROM behavior.redrive(dry_run => true) r JOIN behavior.dead_letter d USING (dead_letter_id) ORDER BY dead_letter_id;
SELECT count(*) FROM behavior._delivery;
SELECT * FROM letters;
SELECT * FROM counts;
-- Rolled back with the transaction; other projections and reasons are not touched.
BEGIN;
SELECT count(*) FROM behavior.redrive();
SELECT count(*) FROM behavior._delivery;
ROLLBACK;
SELECT count(*) FROM behavior._delivery;
SELECT * FROM behavior.redrive(projection => 'other');
SELECT * FROM behavior.redrive(reason => 'expired');
SELECT * FROM counts;
-- Still broken: a new letter that keeps the history.
SELECT status, reason FROM behavior.redrive('handler_error', 'pay');
SELECT * FROM counts;
SELECT status, reason FROM behavior.redrive();
CALL behavior.tick();
SELECT * FROM letters;
SELECT * FROM counts;
-- The fix and redrive in one transaction: each event takes effect once.
BEGIN;
CREATE OR REPLACE FUNCTION picky(deliveries behavior.delivery[]) RETURNS void LANGUAGE sql SET search_path = public, pg_temp AS $$
	INSERT INTO effect SELECT (d.event).event_id, d.attempt FROM unnest(deliveries) d $$;
SELECT status, reason FROM behavior.redrive(projection => 'pay');
COMMIT;
CALL behavior.tick();
SELECT event_id, count(*) FROM effect GROUP BY 1 ORDER BY 1;
SELECT * FROM letters;
SELECT * FROM counts;
SELECT * FROM behavior.redrive();

-- A pull subscription, an ordered one: the event waits to be received as if it were new.
SELECT behavior.create_subscription('pull', '{"detail-type": ["Step"]}', ordered => true, reorder_window => '0', max_attempts => 1);
SELECT send(1, 3, 'Step');
CALL behavior.tick();
SELECT behavior.nack(array_agg(delivery_id)) FROM behavior.receive('pull', 2, '1 minute');
SELECT * FROM letters WHERE projection = 'pull';
SELECT status, reason FROM behavior.redrive(projection => 'pull');
SELECT attempt, (event).event_id FROM behavior.receive('pull', 100, '1 minute') ORDER BY 2;
SELECT * FROM counts WHERE name = 'pull';
-- Not acknowledged: a letter again, behind the first one.
UPDATE behavior._delivery SET due_at = now();
SELECT count(*) FROM behavior.receive('pull');
SELECT * FROM letters WHERE projection = 'pull' ORDER BY event_id, attempts;
SELECT * FROM counts WHERE name = 'pull';
-- Paused: it waits.
SELECT behavior.pause_subscription('pull');
SELECT DISTINCT status, reason FROM behavior.redrive(projection => 'pull');
SELECT count(*) FROM behavior.receive('pull');
SELECT behavior.resume_subscription('pull');
SELECT (event).event_id FROM behavior.receive('pull') ORDER BY 1;
SELECT * FROM counts WHERE name = 'pull';
-- More than one number of the sequence has room for.
SELECT behavior.alter_subscription('pull', ordered => false);
SELECT send(1000, 1599, 'Step');
CALL behavior.tick();
SELECT behavior.nack(array_agg(delivery_id)) FROM behavior.receive('pull', 1000, '1 minute');
SELECT status, count(*) FROM behavior.redrive(projection => 'pull') GROUP BY 1;
SELECT count(*), count(DISTINCT delivery_id) FROM behavior._delivery;
SELECT count(*), count(DISTINCT (event).event_id) FROM behavior.receive('pull', 1000);
SELECT * FROM counts WHERE name = 'pull';

-- The subscription is gone, another one of its name takes the letter; so does one whose rows of batches are gone.
SELECT send(7, 8, 'Step');
CALL behavior.tick();
SELECT behavior.nack(array_agg(delivery_id)) FROM behavior.receive('pull', 2, '1 minute');
SELECT behavior.drop_subscription('pull');
SELECT status, reason FROM behavior.redrive(projection => 'pull');
SELECT behavior.create_subscription('pull', '{"detail-type": ["Step"]}');
DELETE FROM behavior._batch;
SELECT status, reason FROM behavior.redrive(projection => 'pull');
SELECT attempt, (event).event_id FROM behavior.receive('pull') ORDER BY 2;
SELECT * FROM counts WHERE name = 'pull';
-- The event itself is gone.
INSERT INTO behavior.dead_letter (batch_id, failed_at, stage, reason, source, event_id, projection, received_at)
	VALUES (9999, now(), 'delivery', 'expired', 'web', 'lost', 'pull', now());
SELECT status, reason FROM behavior.redrive();
SELECT * FROM letters WHERE event_id = 'lost';

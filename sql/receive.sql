-- Consumers that ask for events: receive() in one transaction with its effects, and with ack() and nack().
SET client_min_messages = warning;
\set VERBOSITY terse
CREATE FUNCTION send(first int, last int, kind text DEFAULT 'Buy') RETURNS void LANGUAGE sql AS $$
	INSERT INTO behavior.event (event_id, source, type, user_id, occurred_at)
	SELECT kind || i, 'web', kind, 'u' || i % 3, timestamptz '2026-01-01 00:00+00' + i * interval '1 second'
	FROM generate_series(first, last) i
$$;
CREATE VIEW counts AS SELECT name, state, matched, delivered, failed, dead_letters, late, lag_events FROM behavior.subscription;
-- Time passes for what is in flight or waits to be tried again.
CREATE FUNCTION pass(span interval) RETURNS void LANGUAGE sql AS $$
	UPDATE behavior._subscription_progress SET due_from = due_from - span;
	UPDATE behavior._delivery SET due_at = due_at - span, first_attempt_at = first_attempt_at - span WHERE isfinite(due_at)
$$;

SELECT behavior.create_subscription('shop', '{"detail-type": ["Buy"]}');
SELECT count(*) FROM behavior.receive('shop');
SELECT send(1, 5), send(1, 3, 'View');
-- Not before the tick.
SELECT count(*) FROM behavior.receive('shop');
CALL behavior.tick();
SELECT subscription, attempt, late, hops, (event).event_id, (event).source, (event).type, (event).actor, (event).tick_id IS NOT NULL AS has_tick
FROM behavior.receive('shop', 2);
SELECT * FROM counts;

-- Without a visibility timeout: what is rolled back is given out again.
BEGIN;
SELECT (event).event_id FROM behavior.receive('shop', 2);
SELECT (event).event_id FROM behavior.receive('shop', 2);
SELECT (event).event_id FROM behavior.receive('shop', 2);
ROLLBACK;
BEGIN;
SELECT (event).event_id FROM behavior.receive('shop', 1);
SAVEPOINT s;
SELECT (event).event_id FROM behavior.receive('shop', 1);
ROLLBACK TO s;
SELECT (event).event_id FROM behavior.receive('shop', 1);
COMMIT;
SELECT * FROM counts;
SELECT (event).event_id FROM behavior.receive('shop');
SELECT count(*) FROM behavior.receive('shop');
SELECT * FROM counts;
SELECT count(*) FROM behavior._delivery_chunk;
SELECT count(*) FROM behavior._delivery;
-- Every isolation level; two calls in one statement get different events.
SELECT send(11, 16);
CALL behavior.tick();
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT (event).event_id FROM behavior.receive('shop', 1);
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT (event).event_id FROM behavior.receive('shop', 1);
SELECT (event).event_id FROM behavior.receive('shop', 1);
COMMIT;
SELECT (event).event_id FROM behavior.receive('shop', 1) UNION ALL SELECT (event).event_id FROM behavior.receive('shop', 1) ORDER BY 1;
SELECT (behavior.receive('shop', 1)).attempt;
-- More than a slice, and more than a row of the queue.
SELECT send(1000, 1999);
CALL behavior.tick();
SELECT count(*), count(DISTINCT delivery_id) = count(*) AS distinct_ids, bool_and(a) AS ascending
FROM (SELECT delivery_id, delivery_id > lag(delivery_id, 1, 0::bigint) OVER () AS a FROM behavior.receive('shop', 700)) r;
SELECT count(*), min((event).event_id), max((event).event_id) FROM behavior.receive('shop', 10000);
SELECT name, state, matched, delivered, lag_events FROM counts;

-- With a visibility timeout.
SELECT send(21, 26);
CALL behavior.tick();
CREATE TABLE got AS SELECT * FROM behavior.receive('shop', 2, '1 minute');
SELECT attempt, (event).event_id FROM got;
CREATE TABLE got2 AS SELECT * FROM behavior.receive('shop', 2, '1 minute');
SELECT attempt, (event).event_id FROM got2;
SELECT name, state, matched, delivered, failed, lag_events FROM counts;
-- Acknowledged once.
SELECT behavior.ack(array_agg(delivery_id)) FROM got;
SELECT behavior.ack(array_agg(delivery_id)) FROM got;
SELECT behavior.ack(array_agg(delivery_id) || array_agg(delivery_id) || '{-1,0,9223372036854775807}') FROM got2 WHERE (event).event_id = 'Buy23';
SELECT name, state, matched, delivered, failed, lag_events FROM counts;
-- What is not acknowledged comes again, under its id.
SELECT pass('59 seconds');
SELECT (event).event_id FROM behavior.receive('shop', 1, '1 minute');
SELECT pass('1 second');
CREATE TABLE got3 AS SELECT * FROM behavior.receive('shop', 100, '1 minute');
SELECT attempt, (event).event_id, delivery_id IN (SELECT delivery_id FROM got2) AS known FROM got3;
SELECT name, state, matched, delivered, failed, dead_letters, lag_events FROM counts;
SELECT last_error, failing_since IS NOT NULL AS failing FROM behavior.subscription WHERE name = 'shop';
-- The first attempt is not the last one any more.
SELECT behavior.ack(array_agg(delivery_id), array_agg(attempt)) FROM got2 WHERE (event).event_id = 'Buy24';
SELECT behavior.ack(array_agg(delivery_id), array_agg(attempt)) FROM got3 WHERE (event).event_id = 'Buy24';
SELECT behavior.ack(array_agg(delivery_id)) FROM got3 WHERE (event).event_id = 'Buy26';
-- It works again.
SELECT count(*) FROM behavior.receive('shop', 100, '1 minute');
SELECT name, state, matched, delivered, failed, lag_events FROM counts;
-- Late, and nobody has received it since: it was handled.
SELECT pass('1 hour');
SELECT d.state, d.attempts, d.event_id FROM behavior._delivery d;
SELECT behavior.ack(array_agg(delivery_id)) FROM behavior._delivery;
SELECT count(*) FROM behavior.receive('shop', 100, '1 minute');
SELECT name, state, matched, delivered, failed, lag_events FROM counts;
-- Rolled back with the transaction.
SELECT send(31, 32);
CALL behavior.tick();
BEGIN;
SELECT attempt, (event).event_id FROM behavior.receive('shop', 100, '1 minute');
ROLLBACK;
CREATE TABLE got4 AS SELECT * FROM behavior.receive('shop', 100, '1 minute');
SELECT attempt, (event).event_id FROM got4;
BEGIN;
SELECT behavior.ack(array_agg(delivery_id)) FROM got4;
ROLLBACK;
SELECT behavior.ack(array_agg(delivery_id)) FROM got4;

-- nack: again at once, or after a delay.
SELECT send(41, 42);
CALL behavior.tick();
CREATE TABLE got5 AS SELECT * FROM behavior.receive('shop', 100, '1 minute');
SELECT behavior.nack(array_agg(delivery_id)) FROM got5 WHERE (event).event_id = 'Buy41';
SELECT behavior.nack(array_agg(delivery_id), '1 hour', error => 'no stock') FROM got5;
SELECT attempt, (event).event_id FROM behavior.receive('shop', 100, '1 minute');
SELECT name, state, matched, delivered, failed, lag_events FROM counts;
SELECT last_error FROM behavior.subscription WHERE name = 'shop';
SELECT pass('59 minutes');
SELECT behavior.nack(array_agg(delivery_id)) FROM got5 WHERE (event).event_id = 'Buy41';
SELECT attempt, (event).event_id FROM behavior.receive('shop', 100, '1 minute');
SELECT pass('2 minutes');
SELECT attempt, (event).event_id FROM behavior.receive('shop', 100, '1 minute') ORDER BY 2;
-- One that was handed back can still have been handled.
SELECT behavior.nack(array_agg(delivery_id)) FROM got5;
SELECT behavior.ack(array_agg(delivery_id)) FROM got5;
SELECT count(*) FROM behavior.receive('shop');
SELECT name, state, matched, delivered, failed, lag_events FROM counts;
-- Nothing at all.
SELECT behavior.ack(NULL), behavior.ack('{}'), behavior.nack(NULL), behavior.nack('{}');

-- max_attempts and max_age: a dead letter.
SELECT behavior.create_subscription('strict', '{"detail-type": ["Pay"]}', max_attempts => 2, max_age => '1 hour');
SELECT send(1, 4, 'Pay');
CALL behavior.tick();
CREATE TABLE got6 AS SELECT * FROM behavior.receive('strict', 100, '1 minute');
SELECT behavior.nack(array_agg(delivery_id), error => 'card declined') FROM got6 WHERE (event).event_id IN ('Pay1', 'Pay2');
SELECT attempt, (event).event_id FROM behavior.receive('strict', 100, '1 minute') ORDER BY 2;
SELECT behavior.nack(array_agg(delivery_id), error => 'card declined') FROM got6 WHERE (event).event_id = 'Pay1';
SELECT behavior.nack(array_agg(delivery_id), '2 hours', error => 'later') FROM got6 WHERE (event).event_id = 'Pay3';
SELECT pass('2 hours');
SELECT attempt, (event).event_id FROM behavior.receive('strict', 100, '1 minute') ORDER BY 2;
SELECT event_id, stage, reason, detail, projection, attempts, source, type, batch_id IS NOT NULL AS has_batch,
	payload::jsonb - 'occurred_at' AS payload
FROM behavior.dead_letter ORDER BY event_id;
SELECT * FROM counts WHERE name = 'strict';
SELECT count(*) FROM behavior._delivery;

-- Ordered: in the order of events, and an actor's later event waits while an earlier one is in flight.
CREATE FUNCTION step(first int, last int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO behavior.event (event_id, source, type, user_id, occurred_at)
	SELECT 'Step' || i, 'web', 'Step', 'u' || i % 3, now() - interval '1 minute' + i * interval '1 second' FROM generate_series(first, last) i
$$;
SELECT behavior.create_subscription('ordered', '{"detail-type": ["Step"]}', ordered => true, reorder_window => '1 hour');
BEGIN;
SELECT step(5, 6);
SELECT step(1, 4);
COMMIT;
CALL behavior.tick();
SELECT count(*) FROM behavior.receive('ordered');
SELECT name, matched, delivered, lag_events FROM counts WHERE name = 'ordered';
SELECT behavior.alter_subscription('ordered', reorder_window => '0');
CREATE TABLE step1 AS SELECT * FROM behavior.receive('ordered', 2, '1 minute');
SELECT attempt, late, (event).event_id, (event).actor FROM step1;
-- Of u0 alone, since u1 and u2 are busy.
CREATE TABLE step2 AS SELECT * FROM behavior.receive('ordered', 100, '1 minute');
SELECT attempt, late, (event).event_id, (event).actor FROM step2 ORDER BY 3;
SELECT count(*) FROM behavior.receive('ordered', 100, '1 minute');
SELECT behavior.ack(array_agg(delivery_id)) FROM step1 WHERE (event).event_id = 'Step1';
CREATE TABLE step3 AS SELECT * FROM behavior.receive('ordered', 100, '1 minute');
SELECT attempt, (event).event_id, (event).actor FROM step3;
SELECT behavior.nack(array_agg(delivery_id), '1 hour') FROM step1 WHERE (event).event_id = 'Step2';
SELECT behavior.ack(array_agg(delivery_id)) FROM (TABLE step2 UNION ALL TABLE step3) s;
SELECT count(*) FROM behavior.receive('ordered', 100, '1 minute');
SELECT pass('1 hour');
CREATE TABLE step4 AS SELECT * FROM behavior.receive('ordered', 1, '1 minute');
SELECT attempt, (event).event_id, (event).actor FROM step4;
SELECT count(*) FROM behavior.receive('ordered', 100, '1 minute');
-- The next of the actor comes with the transaction that acknowledges the one before.
BEGIN;
SELECT behavior.ack(array_agg(delivery_id)) FROM step4;
SELECT (event).event_id, (event).actor FROM behavior.receive('ordered');
ROLLBACK;
SELECT behavior.ack(array_agg(delivery_id)) FROM step4;
SELECT (event).event_id, (event).actor FROM behavior.receive('ordered');
-- No order any more: what waited behind another one is free.
BEGIN;
SELECT step(7, 7);
SELECT step(10, 10);
COMMIT;
CALL behavior.tick();
SELECT late, (event).event_id, behavior.nack(ARRAY[delivery_id], '1 hour') FROM behavior.receive('ordered', 1, '1 minute');
SELECT count(*) FROM behavior.receive('ordered', 100, '1 minute');
SELECT behavior.alter_subscription('ordered', ordered => false);
SELECT (event).event_id, behavior.ack(ARRAY[delivery_id]) FROM behavior.receive('ordered', 100, '1 minute');
SELECT pass('1 hour');
SELECT (event).event_id, behavior.ack(ARRAY[delivery_id]) FROM behavior.receive('ordered', 100, '1 minute');
SELECT behavior.alter_subscription('ordered', ordered => true);
-- Behind what was delivered: at once, and marked.
SELECT step(0, 0);
CALL behavior.tick();
SELECT late, (event).event_id FROM behavior.receive('ordered', 100, '1 minute');
SELECT name, state, matched, delivered, failed, late, lag_events FROM counts WHERE name = 'ordered';

-- Paused: nothing is given out, what is in flight can be settled.
SELECT send(51, 52);
CALL behavior.tick();
CREATE TABLE got7 AS SELECT * FROM behavior.receive('shop', 1, '1 minute');
SELECT behavior.pause_subscription('shop');
SELECT count(*) FROM behavior.receive('shop');
SELECT count(*) FROM behavior.receive('shop', wait => '10 milliseconds');
SELECT behavior.ack(array_agg(delivery_id)) FROM got7;
SELECT behavior.resume_subscription('shop');
SELECT (event).event_id FROM behavior.receive('shop');

-- wait: nothing comes.
SELECT count(*) FROM behavior.receive('shop', wait => '60 milliseconds');
BEGIN;
SELECT count(*) FROM behavior.receive('shop', wait => '60 milliseconds');
-- While it waits it locks nothing.
SELECT count(*) FROM pg_locks WHERE locktype IN ('object', 'advisory') AND pid = pg_backend_pid();
COMMIT;

-- Refused.
SELECT behavior.receive('none');
SELECT behavior.receive(NULL);
SELECT behavior.receive('shop', NULL);
SELECT behavior.receive('shop', 0);
SELECT behavior.receive('shop', 10001);
SELECT behavior.receive('shop', 1, '0');
SELECT behavior.receive('shop', 1, '-1 second');
SELECT behavior.receive('shop', 1, '1000 years');
SELECT behavior.receive('shop', 1, NULL, NULL);
SELECT behavior.receive('shop', 1, NULL, '-1 second');
SELECT behavior.ack('{1,NULL}');
SELECT behavior.ack('{1,2}', '{1}');
SELECT behavior.nack('{1}', '-1 second');
SELECT behavior.nack('{1}', NULL);
BEGIN READ ONLY;
SELECT behavior.receive('shop');
ROLLBACK;
BEGIN READ ONLY;
SELECT behavior.ack('{1}');
ROLLBACK;
CREATE FUNCTION handler(behavior.event[]) RETURNS void LANGUAGE sql AS '';
SELECT behavior.create_subscription('push', '{"detail-type": ["Nothing"]}', 'handler(behavior.event[])'::regprocedure);
\set VERBOSITY default
SELECT behavior.receive('push');
\set VERBOSITY terse

-- For the owner alone.
CREATE ROLE regress_receiver;
CREATE ROLE regress_other;
SELECT send(61, 61);
CALL behavior.tick();
CREATE TABLE got8 AS SELECT * FROM behavior.receive('shop', 1, '1 minute');
GRANT SELECT ON got8 TO regress_other;
SET ROLE regress_other;
SELECT behavior.receive('shop');
SELECT behavior.ack('{1}');
SELECT behavior.nack('{1}');
RESET ROLE;
GRANT EXECUTE ON FUNCTION behavior.receive(text, int, interval, interval), behavior.ack(bigint[], int[]),
	behavior.nack(bigint[], interval, int[], text) TO regress_receiver, regress_other;
GRANT EXECUTE ON FUNCTION behavior.create_subscription TO regress_receiver;
SET ROLE regress_other;
SELECT behavior.receive('shop');
SELECT behavior.ack(array_agg(delivery_id)) FROM got8;
SELECT behavior.nack(array_agg(delivery_id)) FROM got8;
SELECT behavior.ack('{-1}');
RESET ROLE;
SELECT behavior.ack(array_agg(delivery_id)) FROM got8;
GRANT SELECT ON behavior.event TO regress_receiver;
SET ROLE regress_receiver;
SELECT behavior.create_subscription('mine', '{"detail-type": ["Buy"]}');
RESET ROLE;
SELECT send(71, 71);
CALL behavior.tick();
SET ROLE regress_receiver;
SELECT (event).event_id, behavior.ack(ARRAY[delivery_id]) FROM behavior.receive('mine', 1, '1 minute');
RESET ROLE;
REVOKE SELECT ON behavior.event FROM regress_receiver;
SET ROLE regress_receiver;
SELECT behavior.receive('mine');
RESET ROLE;

-- Dropped: ids mean nothing any more.
SELECT send(81, 81);
CALL behavior.tick();
CREATE TABLE got9 AS SELECT * FROM behavior.receive('shop', 1, '1 minute');
SELECT behavior.drop_subscription('shop');
SELECT behavior.ack(array_agg(delivery_id)) FROM got9;
SELECT behavior.receive('shop');
SELECT behavior.drop_subscription('mine');
REVOKE ALL ON FUNCTION behavior.receive(text, int, interval, interval), behavior.ack(bigint[], int[]),
	behavior.nack(bigint[], interval, int[], text), behavior.create_subscription FROM regress_receiver, regress_other;
DROP TABLE got8;
DROP ROLE regress_receiver, regress_other;

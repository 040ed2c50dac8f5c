-- Ticks: what is numbered when, and what is written when nothing is.
\set VERBOSITY sqlstate
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE FUNCTION pg_temp.send(ids text[]) RETURNS void LANGUAGE sql AS $$
	INSERT INTO behavior.event (event_id, source, type, anonymous_id, occurred_at)
	SELECT id, 'shop', 'PageView', 'v', '2024-05-01 10:00+00'::timestamptz + i * interval '1 minute'
	FROM unnest(ids) WITH ORDINALITY AS u (id, i)
$$;
-- Every accepted event is in one tick, and ticks count what they have.
CREATE VIEW pg_temp.wrong AS
	SELECT 'tick' AS what, t.tick_id, t.events, e.events AS found
	FROM behavior.tick t FULL JOIN (
		SELECT tick_id, count(*) AS events, min(occurred_at) AS first, max(occurred_at) AS last
		FROM behavior.event WHERE tick_id IS NOT NULL GROUP BY tick_id) e USING (tick_id)
	WHERE (t.events, t.first_occurred_at, t.last_occurred_at) IS DISTINCT FROM (coalesce(e.events, 0), e.first, e.last)
	UNION ALL
	SELECT 'gap', tick_id, NULL, NULL FROM behavior.tick t
	WHERE tick_id > 1 AND NOT EXISTS (SELECT FROM behavior.tick b WHERE b.tick_id = t.tick_id - 1)
	UNION ALL
	SELECT 'overlap', a.tick_id, b.tick_id, NULL
	FROM behavior._tick_range a JOIN behavior._tick_range b ON a.first_batch < b.first_batch AND a.last_batch >= b.first_batch
	UNION ALL
	SELECT 'batch', b.tick_id, b.accepted, NULL FROM behavior.batch b
	WHERE (b.tick_id IS NULL) IS DISTINCT FROM EXISTS (SELECT FROM behavior._batch_waiting w WHERE w.batch_id = b.batch_id)
	UNION ALL
	(SELECT 'progress', tick_id, NULL, NULL FROM behavior.projection
	WHERE tick_id <> (SELECT coalesce(max(tick_id), 0) FROM behavior.tick));

-- Nothing to number: nothing is written, not even a transaction id.
CALL behavior.tick();
BEGIN;
CALL behavior.tick();
CALL behavior.tick();
SELECT pg_current_xact_id_if_assigned() IS NULL AS nothing_written;
COMMIT;
SELECT count(*) FROM behavior.tick;

SELECT pg_temp.send('{a,b,c}');
SELECT event_id, tick_id FROM behavior.event ORDER BY event_id;
CALL behavior.tick();
SELECT event_id, tick_id FROM behavior.event ORDER BY event_id;
SELECT tick_id, batches, events, first_occurred_at AS first, last_occurred_at AS last FROM behavior.tick;

-- A batch in which nothing was accepted makes no tick and is numbered along with the next.
SELECT pg_temp.send('{a}');
CALL behavior.tick();
SELECT count(*) FROM behavior.tick;
SELECT pg_temp.send('{d}');
CALL behavior.tick();
SELECT tick_id, batches, events FROM behavior.tick ORDER BY tick_id;
SELECT tick_id, received, accepted, duplicates FROM behavior.batch ORDER BY batch_id;

-- Sums of what was received are the same before and after a tick.
SELECT pg_temp.send('{a,e}');
SELECT source, sum(received), sum(accepted), sum(duplicates) FROM behavior.intake GROUP BY source;
CALL behavior.tick();
SELECT source, sum(received), sum(accepted), sum(duplicates) FROM behavior.intake GROUP BY source;
SELECT * FROM pg_temp.wrong;

-- Ids of rolled back batches are holes.
BEGIN;
SELECT pg_temp.send('{f}');
ROLLBACK;
SELECT pg_temp.send('{g}');
CALL behavior.tick();
SELECT cardinality(holes) / 2 AS holes FROM behavior._tick_state;
SELECT pg_temp.send('{h}');
CALL behavior.tick();
SELECT * FROM pg_temp.wrong;

-- In a transaction block: own uncommitted events are folded, and all of it rolls back.
BEGIN;
SELECT pg_temp.send('{i,j}');
CALL behavior.tick();
SELECT event_id, tick_id FROM behavior.event WHERE event_id >= 'h' ORDER BY event_id;
SELECT events FROM behavior.session;
SELECT * FROM pg_temp.wrong;
SAVEPOINT one;
SELECT pg_temp.send('{k}');
CALL behavior.tick();
SELECT max(tick_id) FROM behavior.tick;
ROLLBACK TO one;
SELECT pg_temp.send('{l}');
CALL behavior.tick();
SELECT event_id, tick_id FROM behavior.event WHERE event_id >= 'h' ORDER BY event_id;
SELECT events FROM behavior.session;
SELECT * FROM pg_temp.wrong;
ROLLBACK;
SELECT max(tick_id) FROM behavior.tick;
SELECT events FROM behavior.session;
SELECT pg_temp.send('{i}');
CALL behavior.tick();
SELECT event_id, tick_id FROM behavior.event WHERE event_id >= 'h' ORDER BY event_id;
SELECT * FROM pg_temp.wrong;

-- The tick of a batch is not remembered beyond the subtransaction that cut it.
DO $$
DECLARE
	batch bigint;
	tick bigint[];
BEGIN
	FOR i IN 1..3 LOOP
		IF i = 1 THEN
			INSERT INTO behavior.event (event_id, type) VALUES ('m', 'x');
			batch := (behavior.last_batch()).batch_id;
		END IF;
		BEGIN
			IF i = 2 THEN
				CALL behavior.tick();
			END IF;
			tick := tick || behavior._tick_id(batch);
			IF i = 2 THEN
				RAISE EXCEPTION USING ERRCODE = 'ZZ001';
			END IF;
		EXCEPTION WHEN SQLSTATE 'ZZ001' THEN
			NULL;
		END;
	END LOOP;
	PERFORM set_config('regress.ticks', array_to_string(tick, ',', 'none'), false);
END
$$;
SELECT current_setting('regress.ticks');

-- Where it cannot run.
BEGIN ISOLATION LEVEL REPEATABLE READ;
CALL behavior.tick();
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
CALL behavior.tick();
ROLLBACK;
BEGIN READ ONLY;
CALL behavior.tick();
ROLLBACK;
-- At top level the defaults of the session do not matter.
SET default_transaction_isolation = 'serializable';
CALL behavior.tick();
RESET default_transaction_isolation;

-- By whoever was granted it.
CREATE ROLE regress_tick_caller;
SET ROLE regress_tick_caller;
CALL behavior.tick();
RESET ROLE;
GRANT EXECUTE ON PROCEDURE behavior.tick() TO regress_tick_caller;
SELECT pg_temp.send('{n}');
SET ROLE regress_tick_caller;
CALL behavior.tick();
SELECT FROM behavior.tick;
RESET ROLE;
SELECT * FROM pg_temp.wrong;
SELECT count(*) FROM behavior.event WHERE tick_id IS NULL;
REVOKE EXECUTE ON PROCEDURE behavior.tick() FROM regress_tick_caller;
DROP ROLE regress_tick_caller;

-- Lag is what was accepted and not folded.
SELECT pg_temp.send('{p,q}');
SELECT name, kind, state, lag_events, lag > '0' AS lags FROM behavior.projection WHERE name = 'sessions';
CALL behavior.tick();
SELECT name, kind, state, lag_events, lag FROM behavior.projection WHERE name = 'sessions';
SELECT behavior.rebuild('no such projection');
SELECT * FROM behavior.verify('no such projection');

-- Holes of rolled back batches go away once every transaction that ran then has ended, whatever else runs on this server.
BEGIN;
SELECT pg_temp.send('{r}');
ROLLBACK;
-- Twice: the first of these ticks may only set the watermark that the second one needs.
DO $$
BEGIN
	FOR tick IN 1..2 LOOP
		FOR i IN 1..60000 LOOP
			EXIT WHEN (SELECT pg_snapshot_xmin(pg_current_snapshot()) >= watermark_xid FROM behavior._tick_state);
			PERFORM pg_sleep(0.01);
		END LOOP;
		INSERT INTO behavior.event (event_id, type) VALUES ('later ' || tick, 'x');
		CALL behavior.tick();
	END LOOP;
END
$$;
SELECT holes FROM behavior._tick_state;
SELECT * FROM pg_temp.wrong;

-- State of a restored dump: another server's watermark, and holes that nobody can fill.
UPDATE behavior._tick_state SET holes = '{1,1}', watermark_batch = 0, watermark_xid = '9000000000', system_identifier = 1;
DELETE FROM behavior._tick_range WHERE first_batch = 1;
UPDATE behavior._tick_range SET first_batch = 2 WHERE first_batch = 1;
DELETE FROM behavior._batch WHERE batch_id = 1;
SELECT pg_temp.send('{o}');
CALL behavior.tick();
SELECT holes FROM behavior._tick_state;

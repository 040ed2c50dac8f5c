-- Indexes of every kind that somebody adds to the tables behind the views: rows are entered by their expressions
-- and predicates.
CREATE INDEX batch_hour ON behavior._batch (date_trunc('hour', received_at AT TIME ZONE 'UTC'));
CREATE INDEX batch_large ON behavior._batch (batch_id) WHERE received > 1;
CREATE INDEX sender_lower ON behavior._sender (lower(source));
CREATE INDEX tick_even ON behavior.tick (tick_id) WHERE tick_id % 2 = 0;
CREATE INDEX range_length ON behavior._tick_range ((last_batch - first_batch));
CREATE INDEX session_long ON behavior._session (visitor) WHERE events > 2;
CREATE INDEX session_upper ON behavior._session (upper(visitor));
CREATE INDEX session_latest ON behavior._session (started_at DESC, session_id);
CREATE INDEX session_start ON behavior._session USING brin (started_at, session_id);
CREATE INDEX letter ON behavior.dead_letter (upper(reason)) WHERE stage = 'ingest';

INSERT INTO behavior.event (event_id, source, type, user_id) VALUES ('1', 'Shop', 'x', 'ann');
CALL behavior.tick();
INSERT INTO behavior.event (event_id, source, type, user_id) VALUES ('2', 'Shop', 'x', 'ann'), ('3', 'Shop', 'x', 'ann'), ('4', 'Shop', 'x', 'bob');
CALL behavior.tick();
INSERT INTO behavior.event (event_id, source, type, user_id) VALUES ('5', 'Desk', 'x', 'bob'), ('6', 'Desk', '', 'bob');
CALL behavior.tick();

SET enable_seqscan = off;
SELECT received FROM behavior._batch WHERE date_trunc('hour', received_at AT TIME ZONE 'UTC') > 'epoch' ORDER BY 1;
SELECT received FROM behavior._batch WHERE received > 1 ORDER BY batch_id;
SELECT source FROM behavior._sender WHERE lower(source) > 'a' ORDER BY lower(source);
SELECT count(*) FROM behavior.tick WHERE tick_id % 2 = 0;
SELECT count(*) FROM behavior._tick_range WHERE last_batch - first_batch = 0;
SELECT visitor, events FROM behavior._session WHERE events > 2;
SELECT visitor, events FROM behavior._session WHERE upper(visitor) >= 'A' ORDER BY upper(visitor), events;
BEGIN;
SET LOCAL enable_sort = off;
SET LOCAL enable_incremental_sort = off;
EXPLAIN (COSTS OFF) SELECT session_id FROM behavior._session ORDER BY started_at DESC, session_id;
SELECT count(*) FROM (SELECT session_id FROM behavior._session ORDER BY started_at DESC, session_id) x;
SELECT count(*) FROM (SELECT visitor FROM behavior._session ORDER BY visitor_hash, started_at) x;
SELECT count(*) FROM (SELECT visitor FROM behavior._session ORDER BY session_id, started_at) x;
ROLLBACK;
SELECT event_id FROM behavior.dead_letter WHERE upper(reason) = 'MISSING_FIELD' AND stage = 'ingest';
RESET enable_seqscan;
SELECT * FROM behavior.verify();

-- Writing and reading the log: batches, extents, what moves rows, indexes that users make.
\set VERBOSITY sqlstate
SET timezone = 'UTC';

-- What the reader brings must be the log.
CREATE FUNCTION differences(batches int8multirange DEFAULT '{[1,)}') RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM (
		(SELECT * FROM behavior.log WHERE batch_id <@ batches EXCEPT ALL SELECT * FROM behavior._log_read(batches))
		UNION ALL
		(SELECT * FROM behavior._log_read(batches) EXCEPT ALL SELECT * FROM behavior.log WHERE batch_id <@ batches)) d
$$;

INSERT INTO behavior.event (event_id, type, user_id, anonymous_id, occurred_at, sequence, properties, context)
	SELECT 'a' || i, 'PageView', 'u' || i % 10, NULLIF('d' || i % 3, 'd0'), now() - i * interval '1 minute', NULLIF(i % 5, 0), jsonb_build_object('n', i),
		CASE WHEN i % 4 = 0 THEN '{"ip": "::1"}'::jsonb END
	FROM generate_series(1, 10000) i;
SELECT differences();
SELECT count(*) FROM behavior._log_read('{[1,2)}');
SELECT count(*) FROM behavior._log_read('{[1,2)}', true);
SELECT count(*) FROM behavior._log_read('{[2,)}');
SELECT octet_length(extents) / 16 BETWEEN 7 AND 8 AS one_a_day FROM behavior._batch;

\echo -- single rows, and runs with holes
DO $$ BEGIN
	FOR i IN 1..300 LOOP
		INSERT INTO behavior.event (event_id, type, occurred_at) VALUES ('b' || i, 'x', now() - i % 7 * interval '1 hour');
	END LOOP;
END $$;
SELECT differences('{[2,5),[10,11),[20,200)}'), differences(), differences('{}');
SELECT count(*) FROM behavior._log_read('{[2,5),[10,11),[20,200)}');
SELECT octet_length(extents) FROM behavior._batch WHERE batch_id = 2;

\echo -- values that go out of line
INSERT INTO behavior.event (event_id, type, properties)
	SELECT 'toast' || i, 'x', jsonb_build_object('s', (SELECT string_agg(md5(i::text || j::text), '') FROM generate_series(1, 2000) j)) FROM generate_series(1, 5) i;
SELECT differences();
SELECT count(DISTINCT md5(properties::text)), min(length(properties->>'s')) FROM behavior._log_read('{[1,)}') WHERE event_id LIKE 'toast%';

\echo -- own rows of an open transaction, and none of those rolled back
BEGIN;
INSERT INTO behavior.event (event_id, type) VALUES ('open', 'x');
SAVEPOINT s;
INSERT INTO behavior.event (event_id, type) VALUES ('gone', 'x');
ROLLBACK TO s;
SELECT differences(), count(*) FILTER (WHERE event_id = 'open') AS own, count(*) FILTER (WHERE event_id = 'gone') AS gone FROM behavior._log_read('{[1,)}');
ROLLBACK;
SELECT differences();

\echo -- after VACUUM FULL and CLUSTER extents point elsewhere: still all, still once
\set ECHO none
SELECT format('VACUUM FULL %s', tableoid::regclass) FROM behavior.log GROUP BY tableoid \gexec
\set ECHO all
SELECT differences(), differences('{[5,20)}');
\set ECHO none
SELECT format('CREATE INDEX by_user ON %s (user_id)', tableoid::regclass) FROM behavior.log ORDER BY occurred_at DESC LIMIT 1 \gexec
\set ECHO all
\set ECHO none
SELECT format('CLUSTER %s USING by_user', tableoid::regclass) FROM behavior.log ORDER BY occurred_at DESC LIMIT 1 \gexec
\set ECHO all
SELECT differences(), differences('{[5,20)}'), differences('{[100,101)}');
DROP INDEX behavior.by_user;

\echo -- without the BRIN index: by scan
\set ECHO none
SELECT format('DROP INDEX %s', x.indexrelid::regclass) FROM pg_index x JOIN pg_inherits i ON i.inhrelid = x.indrelid
	WHERE i.inhparent = 'behavior.log'::regclass AND pg_get_indexdef(x.indexrelid, 1, false) = 'batch_id' \gexec
\set ECHO all
SELECT differences(), differences('{[5,20)}');
\set ECHO none
SELECT format('CREATE INDEX ON %s USING brin (batch_id) WITH (pages_per_range = 4)', inhrelid::regclass)
	FROM pg_inherits WHERE inhparent = 'behavior.log'::regclass \gexec
\set ECHO all
SELECT differences(), differences('{[5,20)}');

\echo -- rows that somebody deleted: a warning, and the rest
BEGIN;
\set ECHO none
SELECT format('DELETE FROM %s WHERE event_id = ''b7''', tableoid::regclass) FROM behavior.log WHERE event_id = 'b7' \gexec
\set ECHO all
SET LOCAL client_min_messages = error;
SELECT count(*) FROM behavior._log_read('{[2,302)}');
ROLLBACK;

\echo -- BRIN: full ranges are summarised at a tick, and stay right
INSERT INTO behavior.event (event_id, type, occurred_at) SELECT 'c' || i, 'x', now() - i * interval '1 second' FROM generate_series(1, 20000) i;
CALL behavior.tick();
SELECT count(*) >= 3 AS full_ranges, sum(brin_summarize_range(x.indexrelid, r * 32)) AS left_over
	FROM pg_index x JOIN pg_inherits i ON i.inhrelid = x.indrelid,
		generate_series(0, pg_relation_size(x.indrelid) / current_setting('block_size')::int / 32 - 1) r
	WHERE i.inhparent = 'behavior.log'::regclass AND pg_get_indexdef(x.indexrelid, 1, false) = 'batch_id';
INSERT INTO behavior.event (event_id, type, occurred_at) SELECT 'd' || i, 'x', now() + i * interval '1 second' FROM generate_series(1, 3000) i;
SET enable_seqscan = off;
SELECT count(*), (SELECT count(*) FROM behavior._log_read('{[1,)}', true)) FROM behavior.log
	WHERE occurred_at >= now() - interval '2 days' AND event_id ~ '^[cd]';
RESET enable_seqscan;

\echo -- indexes on the parent, of every kind, are kept by the writer
CREATE INDEX log_user ON behavior.log (user_id, occurred_at);
CREATE INDEX log_page ON behavior.log ((properties->>'page')) WHERE type = 'Page';
CREATE INDEX log_gin ON behavior.log USING gin (properties jsonb_path_ops);
CREATE UNIQUE INDEX log_unique ON behavior.log (occurred_at, source, event_id);
INSERT INTO behavior.event (event_id, type, user_id, properties, occurred_at)
	SELECT 'i' || i, CASE WHEN i % 2 = 0 THEN 'Page' ELSE 'Other' END, 'indexed', jsonb_build_object('page', '/' || i % 10), now() - i % 20 * interval '1 day'
	FROM generate_series(1, 4000) i;
SET enable_seqscan = off;
SELECT count(*) FROM behavior.log WHERE user_id = 'indexed';
SELECT count(*) FROM behavior.log WHERE properties->>'page' = '/4' AND type = 'Page';
SELECT count(*) FROM behavior.log WHERE properties @> '{"page": "/3"}';
RESET enable_seqscan;
SELECT differences();
DROP INDEX behavior.log_user, behavior.log_page, behavior.log_gin, behavior.log_unique;

\echo -- behavior.log is not written to
INSERT INTO behavior.log SELECT * FROM behavior.log LIMIT 1;
UPDATE behavior.log SET type = 'y';
DELETE FROM behavior.log;
TRUNCATE behavior.log;

\echo -- batches and intake: counts by source, before and after the tick the same
TRUNCATE behavior._batch, behavior._intake;
SET application_name = 'tester';
SET behavior.correlation_id = 'c-1';
INSERT INTO behavior.event (event_id, source, type) VALUES ('s1', 'web', 'x'), ('s2', 'app', 'x'), ('s1', 'web', 'x'), ('s3', 'app', ''), ('s1', 'web', 'y'), (NULL, 'app', 'x');
SET behavior.correlation_id = '';
INSERT INTO behavior.event (source, type) VALUES ('web', 'x');
INSERT INTO behavior.event (event_id, source, type) VALUES ('s1', 'web', 'x');
SELECT application_name, correlation_id, received, accepted, duplicates, conflicts, dead_letters, tick_id FROM behavior.batch ORDER BY batch_id;
CREATE TEMP TABLE before AS SELECT * FROM behavior.intake;
SELECT source, application_name, received, accepted, duplicates, conflicts, dead_letters, generated_ids FROM before ORDER BY 1;
CALL behavior.tick();
SELECT count(*) AS different FROM (TABLE before EXCEPT ALL TABLE behavior.intake UNION ALL (TABLE behavior.intake EXCEPT ALL TABLE before)) d;
SELECT count(tick_id) FROM behavior.batch;

\echo -- a batch row of one event is narrow
INSERT INTO behavior.event (event_id, type) VALUES ('narrow', 'x');
SELECT pg_column_size(b.*) <= 92 AS narrow, by_sender FROM behavior._batch b ORDER BY batch_id DESC LIMIT 1;

\echo -- senders: one row while its transaction lives, none left dangling
BEGIN;
SET LOCAL behavior.correlation_id = 'doomed';
INSERT INTO behavior.event (event_id, type) VALUES ('n1', 'x');
ROLLBACK;
BEGIN;
SET LOCAL behavior.correlation_id = 'doomed';
INSERT INTO behavior.event (event_id, type) VALUES ('n1', 'x');
SAVEPOINT s;
SET LOCAL behavior.correlation_id = 'doomed too';
INSERT INTO behavior.event (event_id, type) VALUES ('n2', 'x');
ROLLBACK TO s;
SET LOCAL behavior.correlation_id = 'doomed too';
INSERT INTO behavior.event (event_id, type) VALUES ('n2', 'x');
COMMIT;
SET behavior.correlation_id = 'doomed too';
INSERT INTO behavior.event (event_id, type) VALUES ('n3', 'x');
RESET behavior.correlation_id;
SELECT correlation_id, count(*) FROM behavior.batch WHERE correlation_id LIKE 'doomed%' GROUP BY 1 ORDER BY 1;
SELECT correlation_id, count(*) FROM behavior._sender WHERE correlation_id LIKE 'doomed%' GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM behavior._batch b WHERE NOT EXISTS (SELECT FROM behavior._sender s WHERE s.sender_id = b.sender_id);

\echo -- retention: only what is old, numbered and folded by all
UPDATE behavior._batch SET received_at = received_at - interval '8 days';
INSERT INTO behavior.event (event_id, type) VALUES ('young', 'x');
SELECT behavior._batch_expire(1000) > 0 AS numbered_ones, count(*) FILTER (WHERE tick_id IS NOT NULL) AS were FROM behavior.batch;
CALL behavior.tick();
SELECT count(*) FROM behavior.batch;
UPDATE behavior._batch SET received_at = received_at - interval '8 days';
INSERT INTO behavior._projection (name, kind, state) VALUES ('lagging', 'subscription', 'current');
SELECT behavior._batch_expire(1000);
DELETE FROM behavior._projection WHERE name = 'lagging';
SELECT behavior._batch_expire(1000);
SELECT count(*) FROM behavior.batch;
\echo -- senders that no batch can name go with them
SELECT count(*) > 0 AS some FROM behavior._sender;
UPDATE behavior._sender SET seen_at = seen_at - interval '20 days';
INSERT INTO behavior.event (event_id, type) VALUES ('younger', 'x');
CALL behavior.tick();
UPDATE behavior._batch SET received_at = received_at - interval '8 days';
SELECT behavior._batch_expire(1000);
SELECT count(*) FROM behavior._sender WHERE seen_at < now() - interval '9 days';

\echo -- the log needs no batch rows to be read by number
SELECT event_id FROM behavior._log_read('{[1,3)}', true) WHERE event_id IN ('a1', 'b1') ORDER BY 1;
DROP FUNCTION differences(int8multirange);

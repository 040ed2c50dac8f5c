-- Partitions of behavior.log: which there are, who makes them, and what a wrong clock can do.
\set VERBOSITY sqlstate
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';

CREATE VIEW bounds AS
	SELECT c.oid, c.relname,
		(regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''?([^'')]*)'))[1] AS lower,
		(regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''?([^'')]*)'))[1] AS upper
	FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
	WHERE i.inhparent = 'behavior.log'::regclass;

\echo -- none before the first event
SELECT count(*) FROM bounds;
SELECT behavior._log_empty_default(), behavior._log_restore_in_progress();
SELECT behavior._log_partitions_ahead(3);
SELECT count(*) FROM bounds;

\echo -- the first event brings the DEFAULT one and the days around
INSERT INTO behavior.event (event_id, type, occurred_at) VALUES ('first', 'x', now());
SELECT CASE WHEN lower IS NULL THEN relname ELSE (lower::timestamptz::date - current_date)::text END AS day
	FROM bounds ORDER BY lower NULLS FIRST;
SELECT count(*) FROM behavior.log l JOIN bounds b ON b.oid = l.tableoid
	WHERE l.occurred_at >= b.lower::timestamptz AND l.occurred_at < b.upper::timestamptz;

\echo -- owned by the owner, no member of the extension, closed to others, with a BRIN index of their own
SELECT count(*) AS wrong FROM pg_class c JOIN bounds b USING (oid)
	WHERE c.relowner <> (SELECT relowner FROM pg_class WHERE oid = 'behavior.log'::regclass)
	OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
	OR has_table_privilege('public', c.oid, 'SELECT, INSERT, UPDATE, DELETE')
	OR (SELECT array_agg(a.amname || ' ' || pg_get_indexdef(x.indexrelid, 1, false) || ' ' || pg_get_indexdef(x.indexrelid, 2, false))
		FROM pg_index x JOIN pg_class xc ON xc.oid = x.indexrelid JOIN pg_am a ON a.oid = xc.relam
		WHERE x.indrelid = c.oid) <> '{"brin batch_id occurred_at"}';
SELECT relreplident FROM pg_class WHERE relname = 'log_default';

\echo -- days ahead, once
SELECT behavior._log_partitions_ahead(5);
SELECT behavior._log_partitions_ahead(5);
SELECT max(lower::timestamptz)::date - current_date FROM bounds;

\echo -- bounds are UTC midnights, in any time zone
SET timezone = 'Pacific/Kiritimati';
SELECT behavior._log_partition(current_timestamp - interval '20 days') = 'log_' || to_char(current_timestamp AT TIME ZONE 'UTC' - interval '20 days', 'YYYYMMDD') AS named;
SET timezone = 'UTC';
SELECT upper::timestamptz - lower::timestamptz AS width, lower::timestamptz = date_trunc('day', lower::timestamptz) AS midnight
	FROM bounds WHERE relname = 'log_' || to_char(current_date - 20, 'YYYYMMDD');

\echo -- old years, before 1970, and the far future
SELECT behavior._log_partition('2003-05-06 07:08:09.123+00'), behavior._log_partition('2003-12-31 23:59:59.999999+00'),
	behavior._log_partition('2004-01-01+00'), behavior._log_partition('1970-01-01+00'),
	behavior._log_partition('1969-12-31 23:59:59.999999+00'), behavior._log_partition('0044-03-15 BC'),
	behavior._log_partition('4713-01-01 BC') AS oldest;
SELECT behavior._log_partition('2999-01-01'), behavior._log_partition('294276-12-31');
SELECT relname, lower, upper FROM bounds WHERE relname IN ('log_2003', 'log_2004', 'log_1970', 'log_before_1970') ORDER BY 1;

\echo -- 90 days back: by day from there on, by gap before
SELECT right(behavior._log_partition((current_date - 90)::timestamp AT TIME ZONE 'UTC'), 8) = to_char(current_date - 90, 'YYYYMMDD') AS day;
SELECT behavior._log_partition((current_date - 91)::timestamp AT TIME ZONE 'UTC') ~ '^log_\d{4}(\d{4}_\d{8})?$' AS gap;
SELECT upper::date = current_date - 90 AS ends_there FROM bounds
	WHERE relname = behavior._log_partition((current_date - 91)::timestamp AT TIME ZONE 'UTC');

\echo -- a gap is filled up to its neighbours
CREATE TABLE hand_made (LIKE behavior.log);
CREATE INDEX ON hand_made USING brin (batch_id);
ALTER TABLE behavior.log ATTACH PARTITION hand_made FOR VALUES FROM ('1995-03-01+00') TO ('1995-03-02 12:00+00');
SELECT behavior._log_partition('1995-02-01+00'), behavior._log_partition('1995-03-01+00'), behavior._log_partition('1995-04-01+00');
SELECT behavior._log_partition('1995-03-02 13:00+00');
SELECT relname, lower, upper FROM bounds WHERE lower LIKE '1995%' ORDER BY 2;

\echo -- a taken name gets a number
CREATE TABLE behavior.log_1988 ();
SELECT behavior._log_partition('1988-08-08+00');
DROP TABLE behavior.log_1988;

\echo -- 3,000 random days of a broken clock: a partition a year partitions, each event in its own
SELECT setseed(0.42);
INSERT INTO behavior.event (event_id, type, occurred_at)
	SELECT 'clock' || i, 'x', '1955-01-01'::timestamptz + random() * (now() - interval '95 days' - '1955-01-01'::timestamptz) FROM generate_series(1, 3000) i;
SELECT accepted FROM behavior.last_batch();
SELECT count(*) BETWEEN 60 AND 90 AS few FROM bounds;
SELECT count(*) FROM behavior.log l JOIN bounds b ON b.oid = l.tableoid WHERE b.lower IS NULL;
SELECT count(*) AS misplaced FROM behavior.log l JOIN bounds b ON b.oid = l.tableoid
	WHERE b.lower IS NOT NULL AND NOT (l.occurred_at >= CASE b.lower WHEN 'MINVALUE' THEN '-infinity' ELSE b.lower END::timestamptz
		AND l.occurred_at < b.upper::timestamptz);
SELECT count(*) FROM behavior._log_read('{[1,)}');

\echo -- a sender that has read the log: to DEFAULT, and from there to its day
BEGIN;
SELECT count(*) > 0 AS some FROM behavior.log;
INSERT INTO behavior.event (event_id, type, occurred_at) VALUES ('reader1', 'x', now() - interval '50 days'), ('reader2', 'x', now() - interval '51 days'),
	('reader3', 'x', now() - interval '52 days'), ('reader4', 'x', now());
COMMIT;
SELECT event_id, tableoid::regclass FROM behavior.log WHERE event_id IN ('reader1', 'reader2', 'reader3') ORDER BY 1;
\echo -- never into the way of a partition
SELECT behavior._log_partition(now() - interval '50 days');
SELECT count(*) FROM behavior._log_read('{[1,)}');
\echo -- not while somebody walks the log
INSERT INTO behavior._log_walk (projection) VALUES ('test');
SELECT behavior._log_empty_default();
DELETE FROM behavior._log_walk;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT behavior._log_empty_default();
COMMIT;
SELECT behavior._log_empty_default();
SELECT event_id, tableoid::regclass::text = 'behavior.log_' || to_char(occurred_at, 'YYYYMMDD') AS own_day
	FROM behavior.log WHERE event_id IN ('reader1', 'reader2', 'reader3') ORDER BY 1;
SELECT count(*) FROM ONLY behavior.log_default;
\echo -- extents name the DEFAULT partition still: found all the same, once
SELECT event_id FROM behavior._log_read('{[1,)}') WHERE event_id LIKE 'reader%' ORDER BY 1;
SELECT count(*) FROM behavior._log_read('{[1,)}');

\echo -- what has no partition yet stays in DEFAULT
SET behavior.max_future = -1;
INSERT INTO behavior.event (event_id, type, occurred_at) VALUES ('future', 'x', now() + interval '3 years');
SELECT behavior._log_empty_default();
SELECT event_id FROM ONLY behavior.log_default;

\echo -- in one transaction: savepoints, and an aborted subtransaction that had locked a partition
BEGIN;
SAVEPOINT s;
INSERT INTO behavior.event (event_id, type, occurred_at) VALUES ('sub1', 'x', now() - interval '60 days');
ROLLBACK TO s;
INSERT INTO behavior.event (event_id, type, occurred_at) VALUES ('sub2', 'x', now() - interval '60 days');
SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND mode = 'RowExclusiveLock' AND granted
	AND relation = ('behavior.log_' || to_char(now() - interval '60 days', 'YYYYMMDD'))::regclass;
COMMIT;
SELECT event_id FROM behavior.log WHERE event_id LIKE 'sub_';

\echo -- a partition dropped by hand: made anew
DROP TABLE behavior.log_2003;
INSERT INTO behavior.event (event_id, type, occurred_at) VALUES ('anew', 'x', '2003-06-01');
SELECT tableoid::regclass FROM behavior.log WHERE event_id = 'anew';

\echo -- without a BRIN index a restore is thought to be under way
DROP INDEX behavior.log_2004_batch_id_occurred_at_idx;
SELECT behavior._log_restore_in_progress();
CREATE INDEX ON behavior.log_2004 USING brin (batch_id);
SELECT behavior._log_restore_in_progress();

\echo -- everything in the transaction that creates the extension
DROP VIEW bounds;
DROP EXTENSION behavior;
BEGIN;
CREATE EXTENSION behavior;
INSERT INTO behavior.event (event_id, type, occurred_at) VALUES ('a', 'x', now()), ('b', 'x', now() - interval '5 years'), ('c', 'x', now() - interval '5 days');
SELECT count(*) FROM behavior.log;
ROLLBACK;

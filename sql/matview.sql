-- Materialized views on a schedule.  Nothing here depends on the clock: a schedule of a microsecond is
-- always due.
\set VERBOSITY sqlstate
SET client_min_messages = warning;
CREATE ROLE regress_matview_owner;
CREATE ROLE regress_matview_reader IN ROLE pg_monitor;
CREATE SCHEMA mv AUTHORIZATION regress_matview_owner;
GRANT EXECUTE ON FUNCTION behavior.schedule_refresh(regclass, interval, boolean), behavior.unschedule_refresh(regclass)
	TO regress_matview_owner;
GRANT SELECT ON behavior.session TO regress_matview_owner;

INSERT INTO behavior.event (event_id, type, user_id, occurred_at)
SELECT 'e' || i, 'PageView', 'u' || i, '2025-01-01Z' FROM generate_series(1, 3) i;
CALL behavior.tick();

SET ROLE regress_matview_owner;
CREATE MATERIALIZED VIEW mv.plain AS SELECT current_user::text AS who, count(*) AS sessions FROM behavior.session;
CREATE MATERIALIZED VIEW mv.keyed AS SELECT source, count(*) AS sessions FROM behavior.session GROUP BY 1;
CREATE UNIQUE INDEX ON mv.keyed (source);
CREATE MATERIALIZED VIEW mv."A view" AS SELECT count(*) AS sessions FROM behavior.session WITH NO DATA;
CREATE UNIQUE INDEX ON mv."A view" (sessions);
CREATE VIEW mv.no_matview AS SELECT 1 AS x;
RESET ROLE;
CREATE MATERIALIZED VIEW mv.others AS SELECT 1 AS x;

-- Refusals.
SELECT behavior.schedule_refresh('mv.no_matview');
SELECT behavior.schedule_refresh('behavior.log');
SELECT behavior.schedule_refresh(0);
SELECT behavior.schedule_refresh('mv.plain', '0');
SELECT behavior.schedule_refresh('mv.plain', '-1 second');
SELECT behavior.unschedule_refresh('mv.plain');
SET ROLE regress_matview_owner;
SELECT behavior.schedule_refresh('mv.others');
SELECT behavior.unschedule_refresh('mv.others');
SELECT * FROM behavior.scheduled_refresh;
SET ROLE regress_matview_reader;
SELECT behavior.schedule_refresh('mv.plain');
SELECT count(*) FROM behavior.scheduled_refresh;
RESET ROLE;

-- Schedules.
SET ROLE regress_matview_owner;
SELECT behavior.schedule_refresh('mv.plain');
SELECT behavior.schedule_refresh('mv.plain', '1 microsecond');
SELECT behavior.schedule_refresh('mv.keyed', '1 microsecond', only_on_change => false);
SELECT behavior.schedule_refresh('mv."A view"', '1 microsecond', false);
RESET ROLE;
SELECT matview, every, only_on_change, last_started_at IS NULL AS never, attempts FROM behavior.scheduled_refresh ORDER BY matview::text COLLATE "C";

-- All are due, and run as their owner; CONCURRENTLY keeps the file.
CREATE TABLE mv.files AS SELECT relname, pg_relation_filenode(oid) AS file FROM pg_class WHERE relnamespace = 'mv'::regnamespace AND relkind = 'm';
CALL behavior.tick();
SELECT who, sessions FROM mv.plain;
SELECT sessions FROM mv.keyed;
SELECT sessions FROM mv."A view";
SELECT relname, file = pg_relation_filenode(oid) AS same_file FROM mv.files JOIN pg_class USING (relname)
WHERE relnamespace = 'mv'::regnamespace ORDER BY relname COLLATE "C";
SELECT matview, last_started_at IS NULL AS never, last_duration IS NULL AS failed FROM behavior.scheduled_refresh ORDER BY matview::text COLLATE "C";

-- Nothing new: those that wait for a change are left alone.
CREATE TABLE mv.runs AS SELECT matview, last_started_at FROM behavior.scheduled_refresh;
CALL behavior.tick();
SELECT matview, s.last_started_at > r.last_started_at AS again FROM behavior.scheduled_refresh s JOIN mv.runs r USING (matview) ORDER BY matview::text COLLATE "C";
INSERT INTO behavior.event (event_id, type, user_id, occurred_at) VALUES ('e4', 'PageView', 'u4', '2025-01-01Z');
CALL behavior.tick();
SELECT matview, s.last_started_at > r.last_started_at AS again FROM behavior.scheduled_refresh s JOIN mv.runs r USING (matview) ORDER BY matview::text COLLATE "C";
SELECT sessions FROM mv.plain;

-- Not due yet.
SELECT behavior.schedule_refresh('mv.plain', '1 year');
INSERT INTO behavior.event (event_id, type, user_id, occurred_at) VALUES ('e5', 'PageView', 'u5', '2025-01-01Z');
CALL behavior.tick();
SELECT sessions FROM mv.plain;
SELECT sessions FROM mv.keyed;
SELECT behavior.schedule_refresh('mv.plain', '1 microsecond');
CALL behavior.tick();
SELECT sessions FROM mv.plain;

-- In a transaction block it belongs to it.
BEGIN;
INSERT INTO behavior.event (event_id, type, user_id, occurred_at) VALUES ('e6', 'PageView', 'u6', '2025-01-01Z');
CALL behavior.tick();
SELECT sessions FROM mv.plain;
ROLLBACK;
SELECT sessions FROM mv.plain;

-- One that fails is kept with its error, and the others go on.
CREATE TABLE mv.broken (x int);
ALTER TABLE mv.broken OWNER TO regress_matview_owner;
SET ROLE regress_matview_owner;
CREATE MATERIALIZED VIEW mv.fails AS SELECT 1 / count(*) AS x FROM mv.broken WITH NO DATA;
SELECT behavior.schedule_refresh('mv.fails', '1 microsecond', false);
RESET ROLE;
INSERT INTO behavior.event (event_id, type, user_id, occurred_at) VALUES ('e6', 'PageView', 'u6', '2025-01-01Z');
CALL behavior.tick();
SELECT attempts, last_error, failed_at IS NOT NULL AS failed FROM behavior.scheduled_refresh WHERE matview = 'mv.fails'::regclass;
SELECT sessions FROM mv.plain;
-- It is tried again later: behave as if that had come.
INSERT INTO mv.broken VALUES (1);
UPDATE behavior._refresh SET next_due_at = '-infinity' WHERE matview = 'mv.fails'::regclass;
CALL behavior.tick();
SELECT attempts, last_error, failed_at IS NULL AS healed FROM behavior.scheduled_refresh WHERE matview = 'mv.fails'::regclass;
SELECT x FROM mv.fails;

-- The owner's expressions can do no more than he can, and nothing outside of the query.
SET ROLE regress_matview_owner;
CREATE FUNCTION mv.escape() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'RESET ROLE';
	RETURN 1;
END $$;
CREATE FUNCTION mv.leave() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'CREATE TEMP TABLE left_behind (x int)';
	RETURN 1;
END $$;
CREATE MATERIALIZED VIEW mv.escapes AS SELECT mv.escape() AS x WITH NO DATA;
CREATE MATERIALIZED VIEW mv.leaves AS SELECT mv.leave() AS x WITH NO DATA;
CREATE MATERIALIZED VIEW mv.paths AS SELECT current_setting('search_path') AS path WITH NO DATA;
SELECT behavior.schedule_refresh('mv.escapes');
SELECT behavior.schedule_refresh('mv.leaves');
SELECT behavior.schedule_refresh('mv.paths');
RESET ROLE;
CALL behavior.tick();
SELECT matview, last_error IS NOT NULL AS failed FROM behavior.scheduled_refresh WHERE attempts > 0 ORDER BY matview::text COLLATE "C";
SELECT path FROM mv.paths;

-- Renamed, it is still the same; dropped, it is forgotten.
ALTER MATERIALIZED VIEW mv.plain RENAME TO renamed;
DROP MATERIALIZED VIEW mv.keyed;
DROP MATERIALIZED VIEW mv.fails, mv.escapes, mv.leaves;
UPDATE behavior._refresh SET next_due_at = '-infinity';
INSERT INTO behavior.event (event_id, type, user_id, occurred_at) VALUES ('e7', 'PageView', 'u7', '2025-01-01Z');
CALL behavior.tick();
SELECT matview FROM behavior.scheduled_refresh ORDER BY matview::text COLLATE "C";
SELECT sessions FROM mv.renamed;
SET ROLE regress_matview_owner;
SELECT behavior.unschedule_refresh('mv.renamed');
SELECT behavior.unschedule_refresh('mv.renamed');
RESET ROLE;

DROP SCHEMA mv CASCADE;
REVOKE ALL ON FUNCTION behavior.schedule_refresh(regclass, interval, boolean), behavior.unschedule_refresh(regclass)
	FROM regress_matview_owner;
REVOKE ALL ON behavior.session FROM regress_matview_owner;
DROP ROLE regress_matview_owner, regress_matview_reader;

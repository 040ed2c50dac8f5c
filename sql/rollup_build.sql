-- Backfill, rebuild, alter, and rollups that a schema-only restore brought.
SET client_min_messages = warning;
\set VERBOSITY terse
CREATE FUNCTION send(first int, last int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO behavior.event (event_id, type, occurred_at, properties)
	SELECT 'e' || i, (ARRAY['View', 'Buy'])[1 + i % 2], '2026-01-01 00:00+00'::timestamptz + i * interval '3 hours', jsonb_build_object('v', i)
	FROM generate_series(first, last) i
$$;
SELECT send(1, 1000);
CALL behavior.tick();
SELECT send(1001, 1500);
CALL behavior.tick();
SELECT send(1501, 1510);

-- Not there yet: no relation answers.
SELECT behavior.create_rollup('views', $$
	SELECT behavior.time_bucket('1 month', occurred_at, 'UTC') AS month, type, count(*) AS n FROM behavior.event GROUP BY 1, 2 $$);
SELECT name, state, progress FROM behavior.rollup WHERE name = 'views';
SELECT name, state FROM behavior.projection WHERE name = 'views';
SELECT * FROM views;
SELECT * FROM views_folded;
SELECT * FROM views WHERE false;
\set VERBOSITY sqlstate
SELECT count(*) FROM views;
SELECT count(*) FROM views_folded;
\set VERBOSITY terse
-- verify() has nothing to compare yet.
SELECT * FROM behavior.verify('views');
-- All of it in the caller's transaction, and gone with it.
BEGIN;
CALL behavior.tick();
SELECT sum(n) FROM views;
SELECT sum(n) FROM views_folded;
ROLLBACK;
SELECT name, state, progress FROM behavior.rollup WHERE name = 'views';
SELECT count(*) FROM behavior._log_walk;
CALL behavior.tick();
SELECT name, state, progress FROM behavior.rollup WHERE name = 'views';
SELECT sum(n) FROM views;
SELECT sum(n) FROM views_folded;
SELECT count(*) FROM behavior._log_walk;
SELECT * FROM behavior.verify();

-- Rebuilt beside: the old one answers meanwhile.
UPDATE _views_state SET s_1 = 0 WHERE k_2 = 'Buy';
DELETE FROM _views_state WHERE k_1 = '2026-02-01 00:00+00';
INSERT INTO _views_state VALUES (gen_random_uuid(), '2020-01-01 00:00+00', 'x', 1);
SELECT count(*) > 0 AS differs FROM behavior.verify('views');
SELECT behavior.rebuild('views');
SELECT send(1511, 1600);
SELECT sum(n) > 0 AS answers FROM views;
CALL behavior.tick();
SELECT * FROM behavior.verify();
SELECT sum(n) FROM views;
SELECT relname FROM pg_class WHERE relname LIKE '_views%' AND relkind IN ('r', 'v') ORDER BY relname COLLATE "C";

-- Another query: more columns at the end.
CREATE VIEW above AS SELECT month, sum(n) AS n FROM views GROUP BY 1;
SELECT behavior.alter_rollup('views', $$
	SELECT behavior.time_bucket('1 month', occurred_at, 'UTC') AS month, type, count(*) AS n, sum((properties ->> 'v')::int) AS v FROM behavior.event GROUP BY 1, 2 $$);
SELECT count(*) AS columns FROM pg_attribute WHERE attrelid = 'views'::regclass AND attnum > 0;
SELECT sum(n) FROM views;
CALL behavior.tick();
SELECT sum(n), sum(v) FROM views;
SELECT sum(n), sum(v) FROM views_folded;
SELECT sum(n) FROM above;
SELECT relname FROM pg_class WHERE relname LIKE '_views%' AND relkind IN ('r', 'v') ORDER BY relname COLLATE "C";
SELECT * FROM behavior.verify();
-- Other columns: only while nothing depends on them; privileges stay.
\set VERBOSITY sqlstate
SELECT behavior.alter_rollup('views', 'SELECT type, count(*) AS n FROM behavior.event GROUP BY 1');
SELECT behavior.alter_rollup('views', 'SELECT now() AS month, count(*) AS n FROM behavior.event GROUP BY 1');
SELECT behavior.alter_rollup('nothing', 'SELECT type, count(*) AS n FROM behavior.event GROUP BY 1');
SELECT behavior.alter_rollup('behavior.activity', 'SELECT type, count(*) AS n FROM behavior.event GROUP BY 1');
\set VERBOSITY terse
DROP VIEW above;
GRANT SELECT ON views, views_folded TO PUBLIC;
SELECT behavior.alter_rollup('views', 'SELECT type AS t, min(occurred_at) AS first, count(*) AS n FROM behavior.event GROUP BY 1');
-- Changed one's mind.
SELECT behavior.alter_rollup('views', 'SELECT type, count(*) AS n FROM behavior.event GROUP BY 1');
CALL behavior.tick();
SELECT * FROM views ORDER BY 1;
SELECT relation, has_table_privilege('pg_monitor', relation, 'SELECT') AS readable FROM behavior.rollup WHERE name = 'views';
SELECT has_table_privilege('pg_monitor', 'views_folded', 'SELECT') AS readable;
SELECT relname FROM pg_class WHERE relname LIKE '_views%' AND relkind IN ('r', 'v') ORDER BY relname COLLATE "C";
SELECT * FROM behavior.verify();
-- Altered while its first build is not done.
SELECT behavior.create_rollup('young', 'SELECT type, count(*) AS n FROM behavior.event GROUP BY 1');
SELECT behavior.alter_rollup('young', 'SELECT type, count(*) AS n, max(event_id) FROM behavior.event GROUP BY 1');
SELECT * FROM young;
CALL behavior.tick();
SELECT type, n FROM young ORDER BY 1;
SELECT * FROM behavior.verify();
SELECT name, state, progress FROM behavior.rollup ORDER BY name COLLATE "C";

-- What a schema-only restore leaves: the objects without their rows.
SELECT behavior.create_rollup('restored', 'SELECT count(*) AS n FROM behavior.event');
CALL behavior.tick();
DELETE FROM behavior._rollup WHERE name IN ('restored', 'activity', 'views');
DELETE FROM behavior._projection WHERE name IN ('restored', 'activity', 'views');
DELETE FROM behavior._projection_tick WHERE projection IN ('restored', 'activity', 'views');
DELETE FROM _restored_token;
DELETE FROM behavior._activity_token;
DELETE FROM _views_state;
SELECT * FROM restored;
SELECT send(1601, 1700);
CALL behavior.tick();
SELECT name, state, progress FROM behavior.rollup ORDER BY name COLLATE "C";
SELECT * FROM restored;
SELECT * FROM restored_folded;
SELECT sum(n) FROM views;
SELECT sum(events) FROM behavior.activity;
SELECT * FROM behavior.verify();
-- A view that copies another one's does not become a rollup.
DO $$ BEGIN EXECUTE 'CREATE VIEW copied AS ' || pg_get_viewdef('restored'::regclass); END $$;
CALL behavior.tick();
SELECT name FROM behavior.rollup WHERE relation = 'copied'::regclass;

-- A function is replaced while a rebuild with the old one is under way: rebuild() once more begins again.
CREATE FUNCTION rated(text) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
SELECT behavior.create_rollup('rated', 'SELECT count(*) AS n, sum(rated(type)) AS s FROM behavior.event');
CALL behavior.tick();
CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'XX001'; END $$;
CREATE TRIGGER hold_up BEFORE INSERT OR UPDATE OR DELETE ON _rated_state FOR EACH STATEMENT EXECUTE FUNCTION hold_up();
SELECT behavior.rebuild('rated');
SET client_min_messages = error;
CALL behavior.tick();
RESET client_min_messages;
SELECT count(*) FROM behavior._log_walk WHERE projection = 'rated';
CREATE OR REPLACE FUNCTION rated(text) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2';
SELECT behavior.rebuild('rated');
DROP TRIGGER hold_up ON _rated_state;
CALL behavior.tick();
SELECT s / n AS rate FROM rated;
SELECT * FROM behavior.verify('rated');
SELECT behavior.drop_rollup('rated');

-- Another query: privileges, options and comments stay, whether the views are replaced or made anew.
SELECT behavior.create_rollup('described', 'SELECT type, count(*) AS n FROM behavior.event GROUP BY 1');
CALL behavior.tick();
GRANT SELECT ON described TO pg_monitor;
COMMENT ON VIEW described IS 'it''s events by type';
ALTER VIEW described SET (security_barrier);
SELECT behavior.alter_rollup('described', 'SELECT type, count(*) + 0 AS n FROM behavior.event GROUP BY 1');
CALL behavior.tick();
SELECT obj_description(oid, 'pg_class'), reloptions, has_table_privilege('pg_monitor', oid, 'SELECT') FROM pg_class WHERE oid = 'described'::regclass;
SELECT behavior.alter_rollup('described', 'SELECT source, type, count(*) AS n FROM behavior.event GROUP BY 1, 2');
CALL behavior.tick();
SELECT obj_description(oid, 'pg_class'), reloptions, has_table_privilege('pg_monitor', oid, 'SELECT') FROM pg_class WHERE oid = 'described'::regclass;
SELECT behavior.drop_rollup('described');
-- Long names that are alike up to where "_folded" cuts them.
SELECT behavior.create_rollup(repeat('long', 15) || '1', 'SELECT count(*) AS n FROM behavior.event');
SELECT behavior.create_rollup(repeat('long', 15) || '2', 'SELECT count(*) AS n FROM behavior.event');
SELECT behavior.drop_rollup(repeat('long', 15) || '1');
SELECT behavior.drop_rollup(repeat('long', 15) || '2');

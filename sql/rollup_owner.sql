-- A rollup that changes hands, loses its relation, or goes with the extension.
SET client_min_messages = warning;
\set VERBOSITY sqlstate
CREATE ROLE regress_rollup_old;
CREATE ROLE regress_rollup_new;
CREATE ROLE regress_rollup_reader;
CREATE SCHEMA own;
GRANT ALL ON SCHEMA own TO regress_rollup_old, regress_rollup_new;
GRANT USAGE ON SCHEMA own TO regress_rollup_reader;
GRANT SELECT ON behavior.event TO regress_rollup_old, regress_rollup_new;
GRANT EXECUTE ON FUNCTION behavior.create_rollup TO regress_rollup_old;

-- The built-in projections can be named before there is anything.
SELECT behavior.rebuild('activity');
SELECT count(*) FROM behavior.verify('activity');
SELECT count(*) FROM behavior.verify('sessions');

SET ROLE regress_rollup_old;
SELECT behavior.create_rollup('own.r', 'SELECT type, count(*) AS n FROM behavior.event GROUP BY 1');
RESET ROLE;
GRANT SELECT ON own.r TO regress_rollup_reader;
INSERT INTO behavior.event (type) VALUES ('a'), ('b');
CALL behavior.tick();

-- ALTER VIEW ... OWNER TO: with the next tick the rest follows.
ALTER VIEW own.r OWNER TO regress_rollup_new;
INSERT INTO behavior.event (type) VALUES ('a');
CALL behavior.tick();
SELECT relname, relowner::regrole FROM pg_class WHERE relnamespace = 'own'::regnamespace AND relkind IN ('r', 'v') ORDER BY relname COLLATE "C";
SELECT name, state, error FROM behavior.projection ORDER BY name COLLATE "C";
SET ROLE regress_rollup_reader;
SELECT * FROM own.r ORDER BY 1;
RESET ROLE;
SELECT * FROM behavior.verify();
-- A part that was given away does not come back.
ALTER TABLE own._r_state OWNER TO regress_rollup_old;
INSERT INTO behavior.event (type) VALUES ('a');
CALL behavior.tick();
SELECT relowner::regrole FROM pg_class WHERE oid = 'own._r_state'::regclass;
SELECT state FROM behavior.projection WHERE name = 'r';
ALTER TABLE own._r_state OWNER TO regress_rollup_new;
CALL behavior.tick();
SELECT * FROM own.r_folded ORDER BY 1;

-- The relation is dropped and made again before a tick has cleaned up.
DROP VIEW own.r;
SELECT behavior.create_rollup('own.r', 'SELECT count(*) AS n FROM behavior.event');
CALL behavior.tick();
SELECT * FROM own.r;
SELECT relname FROM pg_class WHERE relnamespace = 'own'::regnamespace AND relkind IN ('r', 'v') ORDER BY relname COLLATE "C";
SELECT name FROM behavior.rollup ORDER BY 1;

-- DROP EXTENSION leaves nothing.
DROP EXTENSION behavior;
DROP EXTENSION behavior CASCADE;
SELECT relname FROM pg_class WHERE relnamespace = 'own'::regnamespace;
DROP SCHEMA own;
DROP ROLE regress_rollup_old, regress_rollup_new, regress_rollup_reader;

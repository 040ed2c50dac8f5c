-- Who may make, read and drop rollups; nobody reaches raw events through one.
SET client_min_messages = warning;
\set VERBOSITY sqlstate
CREATE ROLE regress_owner;
CREATE ROLE regress_reader;
CREATE ROLE regress_sender;
CREATE SCHEMA desk AUTHORIZATION regress_owner;
GRANT USAGE ON SCHEMA desk TO PUBLIC;
INSERT INTO behavior.event (event_id, type, user_id) SELECT 'e' || i, 'View', 'secret' || i FROM generate_series(1, 100) i;

SET ROLE regress_owner;
SET search_path = desk;
SELECT behavior.create_rollup('views', 'SELECT type, count(*) AS n FROM behavior.event GROUP BY 1');
RESET ROLE;
GRANT EXECUTE ON FUNCTION behavior.create_rollup(text, text, boolean), behavior.alter_rollup(text, text),
	behavior.drop_rollup(text, boolean, boolean), behavior.rebuild(text) TO regress_owner, regress_sender;
SET ROLE regress_owner;
SELECT behavior.create_rollup('views', 'SELECT type, count(*) AS n FROM behavior.event GROUP BY 1');
RESET ROLE;
GRANT SELECT ON behavior.event TO regress_owner;
SET ROLE regress_owner;
SELECT behavior.create_rollup('public.views', 'SELECT type, count(*) AS n FROM behavior.event GROUP BY 1');
SELECT behavior.create_rollup('views', 'SELECT type, count(*) AS n FROM behavior.event GROUP BY 1');
RESET ROLE;
SELECT owner, state FROM behavior.rollup WHERE name = 'views';
SELECT relname, relowner::regrole FROM pg_class WHERE relnamespace = 'desk'::regnamespace AND relkind IN ('r', 'v') ORDER BY relname COLLATE "C";
CALL behavior.tick();
INSERT INTO behavior.event (event_id, type, user_id) SELECT 'f' || i, 'View', 'secret' || i FROM generate_series(1, 10) i;

-- The owner reads; a reader needs no more than SELECT on the relation.
SET ROLE regress_owner;
SELECT * FROM views;
SET ROLE regress_reader;
SELECT * FROM desk.views;
RESET ROLE;
GRANT SELECT ON desk.views, desk.views_folded TO regress_reader;
SET ROLE regress_reader;
SELECT * FROM desk.views;
SELECT * FROM desk.views_folded;
SELECT * FROM behavior.event;
SELECT * FROM behavior.log;
SELECT * FROM desk._views_definition;
SELECT * FROM desk._views_state;
SELECT * FROM desk._views_token;
SELECT * FROM behavior._rollup;
SELECT * FROM behavior._tail('desk._views_definition', 'desk._views_state', NULL) AS t(key_hash uuid, k_1 text, s_1 bigint);
SELECT * FROM behavior._tail('desk._views_definition', 'desk._views_state', gen_random_uuid()) AS t(key_hash uuid, k_1 text, s_1 bigint);
SELECT * FROM behavior._tail('desk.views', 'desk._views_state', gen_random_uuid()) AS t(key_hash uuid, k_1 text, s_1 bigint);
SELECT * FROM behavior._tail(NULL, NULL, NULL) AS t(key_hash uuid, k_1 text, s_1 bigint);
SELECT behavior._verify_rollup('views', NULL, NULL);
-- A view on top of it, of another role, granted to a third.
RESET ROLE;
GRANT CREATE ON DATABASE :DBNAME TO regress_reader;
SET ROLE regress_reader;
CREATE SCHEMA board;
CREATE VIEW board.totals AS SELECT sum(n) AS n FROM desk.views;
GRANT USAGE ON SCHEMA board TO regress_sender;
GRANT SELECT ON board.totals TO regress_sender;
SET ROLE regress_sender;
SELECT * FROM board.totals;
SELECT * FROM desk.views;
-- Not the owner's.
SELECT behavior.drop_rollup('desk.views');
SELECT behavior.alter_rollup('desk.views', 'SELECT count(*) FROM behavior.event');
RESET ROLE;
GRANT SELECT ON behavior.event TO regress_sender;
SET ROLE regress_sender;
SELECT behavior.alter_rollup('desk.views', 'SELECT count(*) FROM behavior.event');
SELECT behavior.rebuild('views');
RESET ROLE;
REVOKE SELECT ON behavior.event FROM regress_sender;

-- Expressions run as the rollup's owner, whoever ticks, reads or verifies.
SET ROLE regress_owner;
CREATE FUNCTION desk.who(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT current_user::text';
SELECT behavior.create_rollup('whose', 'SELECT desk.who(type) AS who, count(*) AS n FROM behavior.event GROUP BY 1');
RESET ROLE;
CALL behavior.tick();
INSERT INTO behavior.event (event_id, type) VALUES ('g', 'View');
SELECT * FROM desk.whose;
SELECT * FROM desk.whose_folded;
SELECT * FROM behavior.verify();
-- As a restricted operation: no way to become somebody else or to leave something behind.
SET ROLE regress_owner;
CREATE FUNCTION desk.escape(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('role', 'pg_monitor', true); RETURN $1; END $$;
SELECT behavior.create_rollup('escaping', 'SELECT desk.escape(type) AS t, count(*) AS n FROM behavior.event GROUP BY 1');
RESET ROLE;
\set VERBOSITY terse
SET client_min_messages = error;
CALL behavior.tick();
SELECT name, state, error FROM behavior.projection WHERE name = 'escaping';
SELECT behavior.drop_rollup('escaping');
-- An owner who may no longer read events has no more folded, and shows no more of them.
REVOKE SELECT ON behavior.event FROM regress_owner;
INSERT INTO behavior.event (event_id, type) VALUES ('h', 'View');
CALL behavior.tick();
SELECT name, state, error FROM behavior.projection WHERE kind = 'rollup' AND state <> 'current' ORDER BY name;
\set VERBOSITY sqlstate
SELECT * FROM desk.views;
SELECT * FROM desk.views_folded;
GRANT SELECT ON behavior.event TO regress_owner;
UPDATE behavior._projection SET failed_at = '-infinity' WHERE failed_at IS NOT NULL;
CALL behavior.tick();
SELECT * FROM desk.views;
SELECT * FROM behavior.verify();
-- The built-in one, before and after its first tick, is not for everybody.
SET ROLE regress_reader;
SELECT * FROM behavior.activity;
SELECT * FROM behavior._tail('behavior._activity_definition', 'behavior._activity_state', NULL) AS t(key_hash uuid, k_1 timestamptz, k_2 text, k_3 text, s_1 bigint);
RESET ROLE;
SET ROLE regress_owner;
SELECT behavior.drop_rollup('views', cascade => true);
SELECT behavior.drop_rollup('whose');
RESET ROLE;
DROP OWNED BY regress_owner, regress_reader, regress_sender CASCADE;
DROP ROLE regress_owner, regress_reader, regress_sender;

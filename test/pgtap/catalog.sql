-- The catalog as a contract: what every function and table of the extension has to have.
BEGIN;
SELECT no_plan();

CREATE TEMP VIEW member AS
SELECT classid, objid FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'behavior');

CREATE TEMP VIEW fn AS
SELECT p.*, p.oid::regprocedure::text AS signature, l.lanname
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid;

CREATE TEMP VIEW rel AS
SELECT c.*, c.oid::regclass::text AS name
FROM pg_class c JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid;

SELECT is((SELECT extrelocatable FROM pg_extension WHERE extname = 'behavior'), false, 'not relocatable');

-- Everything lives in the schema behavior.
SELECT is_empty($$SELECT signature FROM fn WHERE pronamespace <> 'behavior'::regnamespace$$,
	'every function is in the schema behavior');
SELECT is_empty($$SELECT name FROM rel WHERE relnamespace <> 'behavior'::regnamespace$$,
	'every relation is in the schema behavior');

-- Volatility.  Pure functions are immutable, what reads is stable, what writes is volatile.
SELECT set_eq($$SELECT DISTINCT proname::text FROM fn WHERE provolatile = 'i' AND left(proname, 1) <> '_'$$,
	ARRAY['time_bucket', 'try_numeric', 'try_bigint', 'try_boolean', 'try_timestamptz', 'session_id',
		'json_schema_valid', 'json_schema_errors', 'event_matches', 'event_matched', 'explain_match'],
	'the immutable functions');
SELECT set_eq($$SELECT DISTINCT proname::text FROM fn WHERE provolatile = 'i' AND proparallel <> 's'$$,
	ARRAY[]::text[], 'every immutable function is parallel safe');
SELECT is((SELECT string_agg(DISTINCT provolatile::text, '') FROM fn WHERE proname = f), v, f || ' is of volatility ' || v)
FROM (VALUES ('ingest', 'v'), ('create_rollup', 'v'), ('alter_rollup', 'v'), ('drop_rollup', 'v'), ('rebuild', 'v'),
	('schedule_refresh', 'v'), ('unschedule_refresh', 'v'), ('tick', 'v'), ('create_event_type', 'v'), ('alter_event_type', 'v'), ('drop_event_type', 'v'),
	('redrive', 'v'), ('receive', 'v'), ('ack', 'v'), ('nack', 'v')) AS t (f, v);
SELECT isnt((SELECT string_agg(DISTINCT provolatile::text, '') FROM fn WHERE proname = f), 'i', f || ' is not immutable')
FROM unnest(ARRAY['find_event', 'last_batch', 'verify']) AS f;

-- Functions in SQL and PL/pgSQL pin their search_path; procedures that commit cannot.
SELECT is_empty($$
	SELECT signature FROM fn
	WHERE lanname <> 'c' AND prokind = 'f' AND prosqlbody IS NULL
		AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)$$,
	'functions in SQL and PL/pgSQL pin their search_path');
SELECT is_empty($$
	SELECT signature FROM fn
	WHERE prosecdef AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)$$,
	'SECURITY DEFINER functions pin their search_path');

-- Comments.
SELECT is_empty($$SELECT signature FROM fn WHERE obj_description(oid, 'pg_proc') IS NULL$$, 'every function has a comment');
SELECT is_empty($$SELECT name FROM rel WHERE relkind IN ('r', 'p', 'v') AND obj_description(oid, 'pg_class') IS NULL$$,
	'every table and view has a comment');

-- What PUBLIC may.  A function in a view runs as the reader of the view, so that those which views call
-- are everybody's; they must be harmless.
SELECT set_eq($$
	SELECT DISTINCT proname::text FROM fn, aclexplode(coalesce(proacl, acldefault('f', proowner))) a
	WHERE a.grantee = 0 AND NOT (left(proname, 1) = '_' AND EXISTS (
		SELECT FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
		JOIN rel v ON v.oid = r.ev_class
		WHERE d.refclassid = 'pg_proc'::regclass AND d.refobjid = fn.oid))$$,
	ARRAY['time_bucket', 'try_numeric', 'try_bigint', 'try_boolean', 'try_timestamptz', 'session_id', 'last_batch',
		'json_schema_valid', 'json_schema_errors', 'event_json', 'event_matches', 'event_matched', 'explain_match'],
	'PUBLIC may execute the pure functions and last_batch, nothing else');
SELECT is_empty($$
	SELECT name, a.privilege_type FROM rel, aclexplode(coalesce(relacl, acldefault(CASE WHEN relkind = 'S' THEN 's' ELSE 'r' END::"char", relowner))) a
	WHERE a.grantee = 0$$,
	'PUBLIC has no privilege on any relation');
SELECT results_eq($$
	SELECT a.privilege_type FROM pg_namespace, aclexplode(nspacl) a WHERE nspname = 'behavior' AND a.grantee = 0$$,
	ARRAY['USAGE'], 'PUBLIC has USAGE on the schema');

-- What pg_monitor may.
SELECT set_eq($$
	SELECT relname::text FROM rel, aclexplode(relacl) a
	WHERE a.grantee = 'pg_monitor'::regrole AND a.privilege_type = 'SELECT'$$,
	ARRAY['batch', 'intake', 'tick', 'projection', 'rollup', 'subscription', 'scheduled_refresh'],
	'pg_monitor reads what monitoring needs');
SELECT is_empty($$
	SELECT name FROM rel, aclexplode(relacl) a WHERE a.grantee = 'pg_monitor'::regrole AND a.privilege_type <> 'SELECT'$$,
	'pg_monitor writes nothing');

-- Tables survive a dump.
SELECT is_empty($$
	SELECT name FROM rel
	WHERE relkind IN ('r', 'p') AND relpersistence = 'p' AND oid <> ALL (
		SELECT unnest(extconfig) FROM pg_extension WHERE extname = 'behavior')
		AND relname <> ALL (ARRAY['_log_walk', '_session_build', '_session_next'])	-- how far walks and rebuilds are, which then start anew$$,
	'every table is dumped');
SELECT is_empty($$
	SELECT name FROM rel WHERE relkind = 'S' AND oid <> ALL (
		SELECT unnest(extconfig) FROM pg_extension WHERE extname = 'behavior')$$,
	'every sequence is dumped');
SELECT is_empty($$SELECT name FROM rel WHERE relkind = 'r' AND relpersistence <> 'p'$$, 'no table is unlogged');

-- A table without a primary key breaks a FOR ALL TABLES publication once it is updated or deleted from.
-- These three and the log only take inserts; what is old goes by partition.
SELECT set_eq($$
	SELECT relname::text FROM rel
	WHERE relkind IN ('r', 'p') AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = rel.oid AND indisprimary)$$,
	ARRAY['log', '_key', '_key_run', '_key_page', '_key_filter'], 'every table that is updated has a primary key');

-- The install script inserts no row into a dumped table: one would make its restore fail.
CREATE FUNCTION pg_temp.rows_of(relation text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
	EXECUTE 'SELECT count(*) FROM ' || relation INTO n;
	RETURN n;
END $$;
SELECT is_empty($$
	SELECT c.oid::regclass FROM pg_class c, pg_extension e
	WHERE e.extname = 'behavior' AND c.oid = ANY (e.extconfig) AND c.relkind IN ('r', 'p')
		AND pg_temp.rows_of(c.oid::regclass::text) > 0$$,
	'dumped tables are empty after CREATE EXTENSION');

-- Triggers fire under session_replication_role = replica, too.
SELECT isnt_empty($$SELECT t.oid FROM pg_trigger t JOIN rel ON rel.oid = t.tgrelid WHERE NOT tgisinternal$$, 'there are triggers');
SELECT is_empty($$
	SELECT t.tgname, rel.name FROM pg_trigger t JOIN rel ON rel.oid = t.tgrelid WHERE NOT tgisinternal AND tgenabled <> 'A'$$,
	'every trigger fires always');
SELECT is_empty($$
	SELECT evtname FROM pg_event_trigger JOIN member ON classid = 'pg_event_trigger'::regclass AND objid = pg_event_trigger.oid
	WHERE evtenabled <> 'A'$$,
	'every event trigger fires always');

-- Catalogs hold names, never oids: those of another server mean nothing after a restore.
SELECT is_empty($$
	SELECT rel.name, attname FROM rel JOIN pg_attribute a ON a.attrelid = rel.oid
	WHERE rel.oid IN (SELECT unnest(extconfig) FROM pg_extension WHERE extname = 'behavior') AND attnum > 0 AND NOT attisdropped
		AND atttypid IN ('oid'::regtype, 'regproc'::regtype, 'regprocedure'::regtype, 'regoper'::regtype, 'pg_node_tree'::regtype)$$,
	'no dumped table holds an oid');

-- The columns that others build on.
CREATE FUNCTION pg_temp.columns_of(relation regclass) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
	FROM pg_attribute WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped
$$;
SELECT is(pg_temp.columns_of('behavior.event'),
	'event_id text, source text, type text, user_id text, anonymous_id text, occurred_at timestamp with time zone, sequence bigint, '
	'properties jsonb, context jsonb, actor text, received_at timestamp with time zone, batch_id bigint, tick_id bigint', 'behavior.event');
SELECT is(pg_temp.columns_of('behavior.inbox'), 'payload text', 'behavior.inbox');
SELECT is(pg_temp.columns_of('behavior.batch'),
	'batch_id bigint, received_at timestamp with time zone, role name, application_name text, correlation_id text, received bigint, '
	'accepted bigint, duplicates bigint, conflicts bigint, dead_letters bigint, tick_id bigint', 'behavior.batch');
SELECT is(pg_temp.columns_of('behavior.intake'),
	'hour timestamp with time zone, source text, role name, application_name text, received bigint, accepted bigint, duplicates bigint, '
	'conflicts bigint, dead_letters bigint, generated_ids bigint', 'behavior.intake');
SELECT is(pg_temp.columns_of('behavior.dead_letter'),
	'dead_letter_id bigint, batch_id bigint, failed_at timestamp with time zone, stage text, reason text, detail text, errors jsonb, '
	'source text, type text, event_id text, payload text, projection text, attempts integer, redriven_at timestamp with time zone, '
	'previous bigint, received_at timestamp with time zone, sent_with jsonb, payload_intact boolean',
	'behavior.dead_letter');
SELECT is(pg_temp.columns_of('behavior.event_type'),
	'type text, source text, version integer, schema jsonb, owner name, created_at timestamp with time zone, '
	'retired_at timestamp with time zone, current boolean', 'behavior.event_type');
SELECT is(pg_temp.columns_of('behavior.tick'),
	'tick_id bigint, ticked_at timestamp with time zone, batches bigint, events bigint, first_occurred_at timestamp with time zone, '
	'last_occurred_at timestamp with time zone', 'behavior.tick');
SELECT is(pg_temp.columns_of('behavior.session'),
	'session_id uuid, source text, visitor text, user_id text, started_at timestamp with time zone, ended_at timestamp with time zone, '
	'duration interval, events bigint, page_views bigint, entry_type text, entry_page text, exit_type text, exit_page text, '
	'entry_properties jsonb, type_counts jsonb', 'behavior.session');
SELECT is(pg_temp.columns_of('behavior.session_alias'), 'session_id uuid, merged_into uuid', 'behavior.session_alias');
SELECT is(pg_temp.columns_of('behavior.event_session'),
	pg_temp.columns_of('behavior.event') || ', session_id uuid', 'behavior.event_session');
SELECT is(pg_temp.columns_of('behavior.projection'),
	'name text, kind text, state text, tick_id bigint, lag_events bigint, lag interval, events_set_aside bigint, '
	'failed_at timestamp with time zone, error text, attempts integer', 'behavior.projection');
SELECT is(pg_temp.columns_of('behavior.rollup'),
	'name text, relation regclass, storage regclass, query text, owner name, state text, progress numeric, events_set_aside bigint',
	'behavior.rollup');

SELECT * FROM finish();
ROLLBACK;

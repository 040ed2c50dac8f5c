-- A role that may only send: it reads nothing, and reaches the log by no way of its own.
BEGIN;
SELECT no_plan();

CREATE ROLE regress_privilege_sender;
CREATE ROLE regress_privilege_reader;
CREATE ROLE regress_privilege_nobody;
GRANT CREATE ON SCHEMA public TO regress_privilege_sender, regress_privilege_reader;
GRANT INSERT ON behavior.event, behavior.inbox TO regress_privilege_sender;

-- Runs a statement as a role; answers with its SQLSTATE, 00000 when it went through.
CREATE FUNCTION state(who name, statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('role', who, true);
	EXECUTE statement;
	PERFORM set_config('role', 'none', true);
	RETURN '00000';
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate;
END $$;

-- Sending.
SELECT is(state('regress_privilege_sender', $$INSERT INTO behavior.event (event_id, type, user_id) VALUES ('p1', 'PageView', 'u1')$$),
	'00000', 'the sender inserts an event');
SELECT is(state('regress_privilege_sender', $$INSERT INTO behavior.inbox VALUES ('{"event_id": "p2", "type": "PageView", "user_id": "u1"}'), ('{')$$),
	'00000', 'the sender inserts into the inbox');
SELECT is(state('regress_privilege_sender', $$INSERT INTO behavior.event (event_id, type) VALUES ('p3', 'PageView') ON CONFLICT DO NOTHING$$),
	'00000', 'the sender inserts with ON CONFLICT DO NOTHING');
SELECT is(state('regress_privilege_sender', 'SELECT * FROM behavior.last_batch()'), '00000', 'the sender sees what its statement did');
SELECT is((SELECT count(*) FROM behavior.event), 3::bigint, 'three events are stored');
SELECT is((SELECT count(*) FROM behavior.dead_letter), 1::bigint, 'and one dead letter');
SELECT is((SELECT count(*) FROM behavior.batch WHERE role = 'regress_privilege_sender'), 3::bigint, 'batches say who sent');

-- Reading.
SELECT is(state('regress_privilege_sender', $$INSERT INTO behavior.event (event_id, type) VALUES ('p4', 'PageView') RETURNING event_id$$),
	'42501', 'RETURNING needs SELECT');
SELECT is_empty($$
	SELECT c.oid::regclass FROM pg_class c
	WHERE relnamespace = 'behavior'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
		AND (has_table_privilege('regress_privilege_sender', oid, 'SELECT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
			OR has_any_column_privilege('regress_privilege_sender', oid, 'SELECT'))$$,
	'the sender may read and change nothing');
SELECT is_empty($$
	SELECT c.oid::regclass FROM pg_class c
	WHERE relnamespace = 'behavior'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
		AND has_table_privilege('regress_privilege_sender', oid, 'INSERT') AND relname NOT IN ('event', 'inbox')$$,
	'and insert nowhere else');
SELECT is_empty($$
	SELECT c.oid::regclass FROM pg_class c
	WHERE relnamespace = 'behavior'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
		AND has_table_privilege('regress_privilege_nobody', oid, 'SELECT, INSERT, UPDATE, DELETE')$$,
	'anybody else may not even insert');
SELECT is_empty($$
	SELECT c.oid::regclass FROM pg_class c
	WHERE relnamespace = 'behavior'::regnamespace AND CASE relkind WHEN 'S' THEN has_sequence_privilege('regress_privilege_sender', oid, 'USAGE, SELECT, UPDATE') END$$,
	'sequences are nobody''s business');
SELECT is(state('regress_privilege_sender', 'SELECT count(*) FROM ' || relation), '42501', 'no reading of ' || relation)
FROM unnest(ARRAY['behavior.event', 'behavior.log', 'behavior.batch', 'behavior.dead_letter', 'behavior.session', 'behavior.event_session',
	'behavior.activity', 'behavior.activity_folded', 'behavior.intake', 'behavior.tick', 'behavior.projection', 'behavior.event_type']) AS relation
WHERE to_regclass(relation) IS NOT NULL;
SELECT is(state('regress_privilege_sender', statement), '42501', statement)
FROM unnest(ARRAY[
	'SELECT * FROM behavior.find_event(''p1'')',
	'SELECT * FROM behavior.ingest(''{}'')',
	'SELECT * FROM behavior.verify()',
	'SELECT behavior.rebuild(''sessions'')',
	'CALL behavior.tick()',
	'SELECT behavior.create_event_type(''x'')',
	'SELECT behavior.alter_event_type(''x'', NULL)',
	'SELECT behavior.drop_event_type(''x'')',
	'SELECT * FROM behavior.redrive()',
	'SELECT * FROM behavior.receive(''s'')',
	'SELECT behavior.ack(''{1}'')',
	'SELECT behavior.nack(''{1}'')',
	'SELECT behavior.create_rollup(''r'', ''SELECT count(*) FROM behavior.event'')']) AS statement;
SELECT is(state('regress_privilege_sender', statement), '42501', statement)
FROM unnest(ARRAY['UPDATE behavior.event SET type = ''x''', 'DELETE FROM behavior.event', 'TRUNCATE behavior.log',
	'INSERT INTO behavior.log SELECT * FROM behavior.log']) AS statement;

-- Views and triggers of its own.
SELECT is(state('regress_privilege_sender', 'CREATE VIEW public.peek AS SELECT * FROM behavior.log'), '00000', 'a view over the log can be made');
SELECT is(state('regress_privilege_sender', 'SELECT * FROM public.peek'), '42501', 'but not read');
CREATE VIEW public.bait AS SELECT * FROM behavior.event;
ALTER VIEW public.bait OWNER TO regress_privilege_sender;
SELECT is(state('regress_privilege_sender', format('CREATE TRIGGER t%s INSTEAD OF INSERT ON public.bait FOR EACH ROW EXECUTE FUNCTION %s()',
		p.oid, p.oid::regproc)), '42501', 'no trigger of its own calls ' || p.proname)
FROM pg_proc p WHERE pronamespace = 'behavior'::regnamespace AND prorettype = 'trigger'::regtype;

-- Even where somebody was careless enough to grant the trigger function.
CREATE FUNCTION misuse(fn regproc, timing text, level text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	CREATE VIEW public.mine AS SELECT * FROM behavior.event;
	EXECUTE format('CREATE TRIGGER t %s INSERT ON public.mine FOR EACH %s EXECUTE FUNCTION %s()', timing, level, fn);
	INSERT INTO public.mine (event_id, type, user_id) VALUES ('forged', 'PageView', 'x');
	RETURN 'stored';
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate;
END $$;
SELECT isnt(misuse(p.oid, 'INSTEAD OF', 'ROW'), 'stored', p.proname || ' refuses a row of another relation')
FROM pg_proc p
WHERE pronamespace = 'behavior'::regnamespace AND prorettype = 'trigger'::regtype
	AND EXISTS (SELECT FROM pg_trigger WHERE tgfoid = p.oid AND tgtype & 65 = 65);
SELECT is((SELECT count(*) FROM behavior.event WHERE event_id = 'forged'), 0::bigint, 'nothing was forged');

-- Reading a rollup gives no raw events.
SELECT behavior.create_rollup('public.p_views', $$SELECT source, count(*) AS views FROM behavior.event GROUP BY source$$);
CALL behavior.tick();
GRANT SELECT ON public.p_views TO regress_privilege_reader;
SELECT is(state('regress_privilege_reader', 'SELECT * FROM public.p_views'), '00000', 'SELECT on a rollup is enough to read it');
SELECT is(state('regress_privilege_reader', 'SELECT * FROM behavior.event'), '42501', 'and gives no raw events');
SELECT is_empty($$
	SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'behavior'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
		AND has_table_privilege('regress_privilege_reader', oid, 'SELECT')$$, 'nothing in the schema is readable');

-- What was made at run time keeps to the same rules.
SELECT is_empty($$
	SELECT c.oid::regclass FROM pg_class c, aclexplode(relacl) a WHERE relnamespace = 'behavior'::regnamespace AND a.grantee = 0$$,
	'PUBLIC has no privilege on any relation');
SELECT is_empty($$
	SELECT c.oid::regclass FROM pg_class c
	WHERE relnamespace IN ('behavior'::regnamespace, 'public'::regnamespace) AND relkind = 'r' AND NOT relispartition
		AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)$$,
	'every table that is made at run time and updated has a primary key');

SELECT * FROM finish();
ROLLBACK;

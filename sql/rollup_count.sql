-- Rollups that only count, and conditions on the type: the same answers as the query itself, whatever the keys are.
\set VERBOSITY terse
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE SCHEMA rc;
SET search_path = rc, public;

-- Differences both ways between a rollup, folded, and its own query over behavior.event.
CREATE FUNCTION differences(name text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	query text;
	relation text;
	result bigint;
BEGIN
	SELECT rtrim(r.query, ';'), r.relation::text || '_folded' INTO STRICT query, relation
	FROM behavior.rollup r WHERE r.name = differences.name;
	EXECUTE format('SELECT count(*) FROM ((SELECT * FROM %2$s EXCEPT ALL %1$s) UNION ALL (%1$s EXCEPT ALL SELECT * FROM %2$s)) d',
		query, relation) INTO result;
	RETURN result;
END
$$;

-- A condition that raises for an event of type View, and is evaluated before any other.
CREATE FUNCTION cheap(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql COST 0.0001 AS $$
BEGIN
	IF $1 = 'View' THEN RAISE EXCEPTION 'not a view'; END IF;
	RETURN true;
END $$;

SELECT behavior.create_rollup('numbers', $$
	SELECT (sequence % 5 - 2)::int2 AS a, (sequence % 3 - 1)::int4 AS b, sequence - 500 AS c, (4294967290 + sequence % 4)::oid AS d,
		sequence % 2 = 0 AS e, (properties ->> 'letter')::"char" AS f, (occurred_at AT TIME ZONE 'UTC')::date AS g, (occurred_at AT TIME ZONE 'UTC')::time AS h, count(*) AS n
	FROM behavior.event GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 $$);
SELECT behavior.create_rollup('kinds', $$
	SELECT properties ->> 'page' AS page, user_id, md5(type)::uuid AS id, decode(md5(source), 'hex') AS bytes, type::varchar(2) AS short,
		('10.0.0.' || (sequence % 3)::text)::inet AS address, occurred_at AT TIME ZONE 'UTC' AS at,
		count(*) AS n, count(*) FILTER (WHERE type = 'Buy') AS buys, count(*) FILTER (WHERE user_id = 'u1') AS first, count(*) FILTER (WHERE NULL::boolean) AS none
	FROM behavior.event WHERE sequence > 3 GROUP BY 1, 2, 3, 4, 5, 6, 7 $$);
SELECT behavior.create_rollup('pages', 'SELECT properties ->> ''page'' AS page FROM behavior.event GROUP BY 1');
SELECT behavior.create_rollup('visits', 'SELECT event_id, count(*) FROM behavior.event GROUP BY 1');
SELECT behavior.create_rollup('global', 'SELECT count(*) AS n, count(*) FILTER (WHERE type = ''Buy'') AS buys FROM behavior.event WHERE source = ''nobody''');
-- Equal though their bytes are not: counted by the executor.
SELECT behavior.create_rollup('scales', 'SELECT (properties ->> ''scale'')::numeric AS scale, count(*) AS n FROM behavior.event GROUP BY 1');
-- Conditions on the type.
SELECT behavior.create_rollup('buys', 'SELECT source, count(*) AS n, sum(sequence) AS s FROM behavior.event WHERE type = ''Buy'' GROUP BY 1');
SELECT behavior.create_rollup('two', 'SELECT type, count(*) AS n FROM behavior.event WHERE type IN (''Buy'', NULL, ''View'', ''Nothing'') GROUP BY 1');
SELECT behavior.create_rollup('long', 'SELECT source, count(*) AS n, max(sequence) FROM behavior.event WHERE type = repeat(''Long'', 50) AND sequence > 0 GROUP BY 1');
SELECT behavior.create_rollup('neither', 'SELECT type, count(*) AS n FROM behavior.event WHERE type = ''Buy'' AND type IN (''View'', ''Add'') GROUP BY 1');
SELECT behavior.create_rollup('other', 'SELECT type, count(*) AS n FROM behavior.event WHERE type = ''Buy'' OR type = ''View'' GROUP BY 1');
-- What is evaluated behind the type raises for no other type, what is evaluated before it does.
SELECT behavior.create_rollup('behind', 'SELECT type, sum((properties ->> ''price'')::numeric) AS s FROM behavior.event WHERE (properties ->> ''price'')::numeric > 0 AND type = ''Buy'' GROUP BY 1');
SELECT behavior.create_rollup('before', 'SELECT type, count(*) AS n FROM behavior.event WHERE type = ''Buy'' AND rc.cheap(type) GROUP BY 1');

CREATE FUNCTION send(first int, last int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO behavior.event (event_id, source, type, user_id, occurred_at, sequence, properties)
	SELECT 'e' || i, CASE WHEN i % 7 = 0 THEN 'app' ELSE 'web' END,
		CASE WHEN i % 11 = 0 THEN repeat('Long', 50) ELSE (ARRAY['View', 'Buy', 'Add'])[1 + i % 3] END, CASE WHEN i % 4 > 0 THEN 'u' || i % 3 END,
		'2026-03-28 20:00+00'::timestamptz + (i % 30) * interval '1 hour', i,
		jsonb_build_object('page', CASE WHEN i % 5 > 0 THEN repeat(chr(97 + i % 3), 1 + (i % 2) * 9000) END, 'letter', chr(97 + i % 4),
			'price', CASE WHEN i % 11 > 0 AND i % 3 = 1 THEN '2.5' ELSE 'free' END, 'scale', (ARRAY['1.0', '1.00', '1', '2'])[1 + i % 4])
	FROM generate_series(first, last) i
$$;
SELECT send(1, 1000);
CALL behavior.tick();
SELECT name, CASE WHEN name <> 'before' THEN differences(name) END AS differences, events_set_aside FROM behavior.rollup WHERE name <> 'behavior.activity' ORDER BY name COLLATE "C";
SELECT * FROM behavior.verify();
SELECT send(1001, 1500);
-- The tail, that of events that raise as well.
SELECT count(*), sum(n) FROM numbers;
SELECT count(*), sum(n), sum(buys), sum(first), sum(none) FROM kinds;
SELECT count(*) FROM pages;
SELECT * FROM global;
SELECT n FROM scales ORDER BY 1;
SELECT * FROM buys ORDER BY 1;
SELECT * FROM two ORDER BY 1;
SELECT * FROM long ORDER BY 1;
SELECT * FROM neither;
SELECT * FROM other ORDER BY 1;
SELECT * FROM behind;
SELECT * FROM before;
CALL behavior.tick();
SELECT name, CASE WHEN name <> 'before' THEN differences(name) END AS differences, events_set_aside FROM behavior.rollup WHERE name <> 'behavior.activity' ORDER BY name COLLATE "C";
SELECT * FROM before_folded;
SELECT * FROM behavior.verify();

-- More groups than there is memory for: 12,000 in one tick, each event twice, its first and its second in another half of the tick.
SET work_mem = '64kB';
SET maintenance_work_mem = '1MB';
SET hash_mem_multiplier = 1;
INSERT INTO behavior.event (event_id, source, type, sequence, properties)
SELECT 'g' || i, 's' || i / 12000, 'Group', i, '{}' FROM generate_series(0, 23999) i;
SELECT behavior.create_rollup('groups', 'SELECT sequence % 12000 AS g, count(*) AS n, count(*) FILTER (WHERE source = ''s1'') AS half FROM behavior.event WHERE type = ''Group'' GROUP BY 1');
CALL behavior.tick();
SELECT count(*), min(n), max(n), min(half), max(half) FROM groups;
SELECT differences('groups');
INSERT INTO behavior.event (event_id, source, type, sequence, properties)
SELECT 'h' || i, 's' || i / 12000, 'Group', i, '{}' FROM generate_series(0, 23999) i;
SELECT count(*), min(n), max(n), min(half), max(half) FROM groups;
CALL behavior.tick();
SELECT count(*), min(n), max(n), min(half), max(half) FROM groups_folded;
SELECT differences('groups'), differences('visits');
SELECT * FROM behavior.verify('groups');

-- More types than are told apart.
INSERT INTO behavior.event (event_id, type, sequence) SELECT 't' || i, 'Type' || i % 1200, i FROM generate_series(0, 2399) i;
SELECT behavior.create_rollup('types', 'SELECT type, count(*) AS n, sum(sequence) AS s FROM behavior.event WHERE type IN (''Type3'', ''Type1199'') GROUP BY 1');
INSERT INTO behavior.event (event_id, type, sequence) SELECT 'u' || i, 'Type' || i % 1200, i FROM generate_series(0, 2399) i;
CALL behavior.tick();
SELECT * FROM types_folded ORDER BY 1;
SELECT differences('types');
SELECT * FROM behavior.verify();

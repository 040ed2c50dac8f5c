-- Sums and averages of float do not depend on the order or on how events were split into ticks.
SET client_min_messages = warning;
SELECT behavior.create_rollup('floats', $$
	SELECT type, sum((properties ->> 'v')::float8) AS s8, avg((properties ->> 'v')::float8) AS a8,
		sum((properties ->> 'v')::float4) AS s4, avg((properties ->> 'v')::float4) AS a4,
		min((properties ->> 'v')::float8), max((properties ->> 'v')::float8), count((properties ->> 'v')::float8) AS n
	FROM behavior.event GROUP BY 1 $$);
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'floats'::regclass AND attnum > 0 ORDER BY attnum;
-- In float, 1e16 + 1 - 1e16 depends on the order.
INSERT INTO behavior.event (event_id, type, properties) VALUES ('a', 'cancel', '{"v": 1e16}'), ('b', 'cancel', '{"v": 1}'), ('c', 'cancel', '{"v": 0.1}');
CALL behavior.tick();
INSERT INTO behavior.event (event_id, type, properties) VALUES ('d', 'cancel', '{"v": 0.2}'), ('e', 'cancel', '{"v": -1e16}');
INSERT INTO behavior.event (event_id, type, properties) SELECT 'x' || i, 'many', jsonb_build_object('v', i * 0.1) FROM generate_series(1, 1000) i;
SELECT * FROM floats ORDER BY 1;
CALL behavior.tick();
INSERT INTO behavior.event (event_id, type, properties) SELECT 'y' || i, 'many', jsonb_build_object('v', i * -0.1) FROM generate_series(1, 1000) i;
SELECT * FROM floats ORDER BY 1;
CALL behavior.tick();
SELECT * FROM floats_folded ORDER BY 1;
-- Infinities, NaN, nothing at all, and a sum that float cannot hold.
INSERT INTO behavior.event (event_id, type, properties) VALUES
	('i1', 'infinite', '{"v": "Infinity"}'), ('i2', 'infinite', '{"v": 1}'),
	('n1', 'none', '{}'), ('n2', 'none', '{}'),
	('z1', 'zero', '{"v": "-0"}'), ('z2', 'zero', '{"v": 0}');
INSERT INTO behavior.event (event_id, type, properties) VALUES
	('nan1', 'nan', '{"v": "NaN"}'), ('nan2', 'nan', '{"v": 1}');
SELECT behavior.create_rollup('large', $$
	SELECT type, sum((properties ->> 'w')::float8) AS s8, avg((properties ->> 'w')::float8) AS a8, sum((properties ->> 'w4')::float4) AS s4 FROM behavior.event GROUP BY 1 $$);
INSERT INTO behavior.event (event_id, type, properties) VALUES
	('l1', 'large', '{"w": 1.7e308, "w4": 3e38}'), ('l2', 'large', '{"w": 1.7e308, "w4": 3e38}'),
	('l3', 'small', '{"w": -1.7e308, "w4": -3e38}'), ('l4', 'small', '{"w": -1.7e308, "w4": -3e38}'), ('l5', 'tiny', '{"w": 5e-324, "w4": 1e-45}');
CALL behavior.tick();
SELECT * FROM floats WHERE type NOT IN ('large', 'small', 'tiny') ORDER BY 1;
SELECT * FROM large WHERE type IN ('large', 'small', 'tiny') ORDER BY 1;
SELECT * FROM behavior.verify();
-- Integers, numeric and intervals answer what the aggregates themselves do.
SELECT behavior.create_rollup('exact', $$
	SELECT type, sum((properties ->> 'v')::numeric) AS sn, avg((properties ->> 'v')::numeric) AS an, sum(length(event_id)) AS si, avg(length(event_id)) AS ai,
		avg(length(event_id)::smallint) AS a2, sum(length(event_id)::bigint) AS sl, avg(length(event_id)::bigint) AS al, avg(occurred_at - occurred_at) AS av
	FROM behavior.event WHERE type IN ('many', 'cancel', 'none') GROUP BY 1 $$);
CALL behavior.tick();
SELECT * FROM exact ORDER BY 1;
SELECT type, sum((properties ->> 'v')::numeric) AS sn, avg((properties ->> 'v')::numeric) AS an, sum(length(event_id)) AS si, avg(length(event_id)) AS ai,
	avg(length(event_id)::smallint) AS a2, sum(length(event_id)::bigint) AS sl, avg(length(event_id)::bigint) AS al, avg(occurred_at - occurred_at) AS av
FROM behavior.event WHERE type IN ('many', 'cancel', 'none') GROUP BY 1 ORDER BY 1;

-- Sketches of hll and tdigest, where these extensions are installed.
SET client_min_messages = warning;
SELECT count(*) = 2 AS installed FROM pg_available_extensions WHERE name IN ('hll', 'tdigest') \gset
\if :installed
CREATE SCHEMA sketch;
CREATE EXTENSION hll SCHEMA sketch;
CREATE EXTENSION tdigest SCHEMA sketch;
SET search_path = public, sketch;
DO $$
BEGIN
	PERFORM behavior.create_rollup('sketches', $q$
		SELECT type, count(*) AS n, hll_add_agg(hll_hash_text(actor)) AS actors, hll_add_agg(hll_hash_text(actor), 14, 6) AS precise,
			round(hll_cardinality(hll_add_agg(hll_hash_text(actor)) FILTER (WHERE sequence > 0))) AS estimate,
			tdigest((properties ->> 'v')::float8, 100) AS digest
		FROM behavior.event GROUP BY 1 $q$);
	IF (SELECT count(*) FROM behavior.aggregate_merge WHERE aggregate::text ~ 'hll' AND exact) < 2
		OR (SELECT count(*) FROM behavior.aggregate_merge WHERE aggregate::text ~ 'tdigest' AND NOT exact) < 2 THEN
		RAISE WARNING 'aggregate_merge lacks sketches';
	END IF;
END
$$;
\o /dev/null
INSERT INTO behavior.event (event_id, type, user_id, sequence, properties)
SELECT 'a' || i, 'View', 'u' || i % 700, i % 2, jsonb_build_object('v', i) FROM generate_series(1, 3000) i;
CALL behavior.tick();
-- A session with other defaults folds and reads the same.
SELECT hll_set_defaults(15, 5, -1, 1);
INSERT INTO behavior.event (event_id, type, user_id, sequence, properties)
SELECT 'b' || i, 'View', 'u' || i % 900, i % 2, jsonb_build_object('v', i) FROM generate_series(1, 3000) i;
CALL behavior.tick();
SELECT hll_set_defaults(11, 5, -1, 1);
INSERT INTO behavior.event (event_id, type, user_id, sequence, properties)
SELECT 'c' || i, 'View', 'u' || i % 1000, i % 2, jsonb_build_object('v', i) FROM generate_series(1, 1000) i;
\o
DO $$
DECLARE
	expected record;
	live record;
BEGIN
	SELECT hll_add_agg(hll_hash_text(actor), 11, 5, -1, 1)::text AS actors, hll_add_agg(hll_hash_text(actor), 14, 6)::text AS precise,
		round(hll_cardinality(hll_add_agg(hll_hash_text(actor), 11, 5, -1, 1) FILTER (WHERE sequence > 0))) AS estimate, count(*) AS n
		INTO expected FROM behavior.event;
	SELECT actors::text, precise::text, s.estimate, n INTO live FROM sketches s;
	IF live IS DISTINCT FROM expected THEN
		RAISE WARNING 'live sketches differ: % and %', live.estimate, expected.estimate;
	END IF;
	CALL behavior.tick();
	SELECT actors::text, precise::text, s.estimate, n INTO live FROM sketches_folded s;
	IF live IS DISTINCT FROM expected THEN
		RAISE WARNING 'folded sketches differ';
	END IF;
	IF (SELECT abs(tdigest_percentile(digest, 0.5) - (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY (properties ->> 'v')::float8) FROM behavior.event)) > 30 FROM sketches_folded) THEN
		RAISE WARNING 'median is far off';
	END IF;
	IF EXISTS (SELECT FROM behavior.verify('sketches')) THEN
		RAISE WARNING 'verify differs: %', (SELECT recomputed::text FROM behavior.verify('sketches') LIMIT 1);
	END IF;
END
$$;
SET search_path = public;
\endif
SELECT 'done' AS sketches;

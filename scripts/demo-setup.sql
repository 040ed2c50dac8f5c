-- What the demo keeps: three rollups, made before the first event comes.
\set ON_ERROR_STOP on
CREATE EXTENSION behavior;
SELECT count(*) > 0 AS hll FROM pg_available_extensions WHERE name = 'hll' \gset
\if :hll
CREATE EXTENSION hll;
\set visitors ', hll_add_agg(hll_hash_text(coalesce(anonymous_id, user_id))) AS visitors'
\else
\set visitors ''
\endif

SELECT behavior.create_rollup('traffic', format($$
	SELECT behavior.time_bucket('1 hour', occurred_at) AS bucket, source, type, count(*) AS events %s
	FROM behavior.event GROUP BY 1, 2, 3 $$, :'visitors')) \g /dev/null
SELECT behavior.create_rollup('pages', format($$
	SELECT source, coalesce(properties->>'page', properties->>'path', properties->>'url') AS page, count(*) AS views %s
	FROM behavior.event
	WHERE type = 'PageView' AND coalesce(properties->>'page', properties->>'path', properties->>'url') !~ '\.(gif|jpg|xbm)$'
	GROUP BY 1, 2 $$, :'visitors')) \g /dev/null
SELECT behavior.create_rollup('items', format($$
	SELECT source, properties->>'item' AS item,
		max(properties->>'description') FILTER (WHERE properties->>'description' ~ '^[^a-z]+$') AS description,
		count(*) FILTER (WHERE type = 'Purchase') AS orders,
		sum(behavior.try_numeric(properties->>'quantity')) AS pieces,
		sum(behavior.try_numeric(properties->>'quantity') * behavior.try_numeric(properties->>'price')) AS revenue %s
	FROM behavior.event WHERE type IN ('Purchase', 'Cancellation') GROUP BY 1, 2 $$, :'visitors')) \g /dev/null

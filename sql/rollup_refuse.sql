-- What a rollup's query may not say: 0A000, with the expression and what to write instead.
SET timezone = 'Europe/Berlin';
CREATE FUNCTION refusal(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	hint text;
BEGIN
	PERFORM behavior.create_rollup('refused', query);
	PERFORM behavior.drop_rollup('refused');
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', SQLSTATE || ': ' || message, '   ' || nullif(hint, ''));
END
$$;
CREATE FUNCTION stable_one(text) RETURNS text STABLE LANGUAGE sql AS 'SELECT $1';
CREATE TABLE other (type text);
\pset format unaligned
\pset tuples_only on
SELECT refusal('SELECT date_trunc(''day'', occurred_at), count(*) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT date_trunc(''minute'', occurred_at), count(*) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT occurred_at::date, count(*) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT occurred_at::timestamp, count(*) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT occurred_at::text, count(*) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT occurred_at + interval ''1 day'', count(*) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT extract(hour FROM occurred_at), count(*) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT to_char(occurred_at, ''YYYY''), count(*) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT (properties ->> ''at'')::timestamptz, count(*) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT (properties ->> ''at'')::date, count(*) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT concat(source, ''-'', type), count(*) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT concat_ws(''/'', source, type), count(*) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT format(''%s'', source), count(*) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT jsonb_build_object(''a'', type), count(*) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT count(*) FROM behavior.event WHERE occurred_at > now() - interval ''1 day''');
SELECT refusal('SELECT count(*) FROM behavior.event WHERE occurred_at > current_timestamp');
SELECT refusal('SELECT random(), count(*) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT stable_one(type), count(*) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT type, max(stable_one(source)) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT type, count(*) FILTER (WHERE occurred_at < now()) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT type, current_user, count(*) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT count(DISTINCT actor) FROM behavior.event');
SELECT refusal('SELECT array_agg(type ORDER BY occurred_at) FROM behavior.event');
SELECT refusal('SELECT string_agg(type, '','') FROM behavior.event');
SELECT refusal('SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY sequence) FROM behavior.event');
SELECT refusal('SELECT stddev(sequence) FROM behavior.event');
SELECT refusal('SELECT regr_slope(sequence, sequence) FROM behavior.event');
SELECT refusal('SELECT type, row_number() OVER (ORDER BY type) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT DISTINCT type FROM behavior.event');
SELECT refusal('SELECT type, count(*) FROM behavior.event GROUP BY 1 HAVING count(*) > 1');
SELECT refusal('SELECT type, count(*) AS n FROM behavior.event GROUP BY 1 ORDER BY n');
SELECT refusal('SELECT type, count(*) FROM behavior.event GROUP BY 1 LIMIT 3');
SELECT refusal('SELECT type, source, count(*) FROM behavior.event GROUP BY GROUPING SETS (1, 2)');
SELECT refusal('SELECT type, grouping(type), count(*) FROM behavior.event GROUP BY type');
SELECT refusal('SELECT jsonb_object_keys(properties), count(*) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT count(*) FROM behavior.event JOIN other USING (type)');
SELECT refusal('SELECT count(*) FROM behavior.event, other');
SELECT refusal('SELECT count(*) FROM other');
SELECT refusal('SELECT count(*) FROM behavior.log');
SELECT refusal('SELECT count(*)');
SELECT refusal('SELECT type, (SELECT 1), count(*) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT count(*) FROM behavior.event WHERE EXISTS (SELECT FROM other)');
SELECT refusal('SELECT count(*) FROM (SELECT * FROM behavior.event) e');
SELECT refusal('WITH e AS (SELECT * FROM behavior.event) SELECT count(*) FROM e');
SELECT refusal('SELECT type FROM behavior.event UNION SELECT source FROM behavior.event');
SELECT refusal('SELECT type FROM behavior.event');
SELECT refusal('SELECT FROM behavior.event GROUP BY type');
SELECT refusal('SELECT tick_id, count(*) FROM behavior.event GROUP BY 1');
SELECT refusal('SELECT count(*) FROM behavior.event WHERE tick_id > 3');
SELECT refusal('SELECT count(event) FROM behavior.event');
SELECT refusal('SELECT ROW(type, source), count(*) FROM behavior.event GROUP BY 1');
SELECT refusal('VALUES (1)');
SELECT refusal('SELECT count(*) INTO x FROM behavior.event');
SELECT refusal('INSERT INTO behavior.event (type) VALUES (''x'')');
SELECT refusal('SELECT count(*) FROM behavior.event; SELECT 1');
SELECT refusal('');
SELECT refusal('SELECT count( FROM behavior.event');
SELECT refusal('SELECT nothing FROM behavior.event');
SELECT refusal('SELECT count(*) FROM behavior.event WHERE type = $1');
SELECT refusal('SELECT count(*), count(*) FROM behavior.event');
-- Nothing is left behind.
SELECT count(*) FROM pg_class WHERE relname LIKE '%refused%';

-- Casts that can raise are named, each once.
SELECT behavior.create_rollup('casts', $$
	SELECT (properties ->> 'a')::int AS a, sum((properties ->> 'b')::numeric) AS b, sum((properties ->> 'b')::numeric) + 1 AS b1,
		sum((properties ->> 'c')::float8) AS c, bool_or((properties -> 'd')::boolean) AS d, sum(sequence::int) AS e
	FROM behavior.event WHERE (properties #>> '{f,g}')::bigint > 0 GROUP BY 1 $$);
-- These cannot.
SELECT behavior.create_rollup('no_casts', $$
	SELECT behavior.try_bigint(properties ->> 'a') AS a, sum(behavior.try_numeric(properties ->> 'b')) AS b
	FROM behavior.event WHERE behavior.try_boolean(properties ->> 'f') GROUP BY 1 $$);

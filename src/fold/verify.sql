-- Recomputing derived tables from the log.

-- Sessions made anew, by window functions and nothing of the fold's own, from the events of the ticks that are
-- folded.  With bounds: sessions that begin in [since, until); events are read from one timeout
-- before, to know what begins, and to one timeout behind the last end, to know what ends.
CREATE FUNCTION behavior._verify_sessions(since timestamptz, until timestamptz,
		OUT projection text, OUT key jsonb, OUT folded jsonb, OUT recomputed jsonb) RETURNS SETOF record
	LANGUAGE sql STABLE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
WITH p AS MATERIALIZED (
	SELECT behavior._projection_tick_id(name) AS tick_id, settings, make_interval(secs => (settings ->> 'timeout')::int) AS timeout
	FROM behavior._projection WHERE name = 'sessions'
), folded AS MATERIALIZED (
	SELECT session_id, source, visitor, user_id, started_at, ended_at, duration, events, page_views,
		entry_type, entry_page, exit_type, exit_page, entry_properties, type_counts
	FROM behavior.session
	WHERE (since IS NULL OR started_at >= since) AND (until IS NULL OR started_at < until)
), bounds AS MATERIALIZED (
	SELECT coalesce(since - p.timeout, '-infinity') AS lower,
		CASE WHEN until IS NULL THEN 'infinity' ELSE greatest(until, (SELECT max(ended_at) FROM folded)) + p.timeout END AS upper,
		until
	FROM p
), event AS (
	SELECT l.source, coalesce(l.anonymous_id, l.user_id) AS visitor, l.user_id, l.type, l.occurred_at, l.sequence, l.event_id,
		(SELECT l.properties ->> n.name
		FROM jsonb_array_elements_text(p.settings -> 'page') WITH ORDINALITY AS n (name, i)
		WHERE jsonb_typeof(l.properties -> n.name) IN ('string', 'number')
		ORDER BY n.i LIMIT 1) AS page,
		(SELECT jsonb_object_agg(n.name, n.value)
		FROM (
			SELECT n.name, coalesce(
				nullif(l.properties -> n.name, 'null'),
				nullif(l.context -> 'campaign' -> n.name, 'null'),
				CASE WHEN n.name = 'utm_campaign' THEN nullif(l.context -> 'campaign' -> 'name', 'null')
					WHEN starts_with(n.name, 'utm_') THEN nullif(l.context -> 'campaign' -> substr(n.name, 5), 'null') END) AS value
			FROM jsonb_array_elements_text(p.settings -> 'properties') AS n (name)) n
		WHERE n.value IS NOT NULL) AS properties
	FROM p, bounds, behavior.log l
	WHERE l.occurred_at >= bounds.lower AND l.occurred_at <= bounds.upper
		AND behavior._tick_id(l.batch_id) <= p.tick_id
		AND coalesce(l.anonymous_id, l.user_id) IS NOT NULL
		AND NOT p.settings -> 'ignore' ? l.type
), marked AS (
	SELECT e.*, coalesce(e.occurred_at - lag(e.occurred_at) OVER (PARTITION BY e.source, e.visitor ORDER BY e.occurred_at) > p.timeout, true) AS begins
	FROM p, event e
), numbered AS (
	SELECT m.*, count(*) FILTER (WHERE m.begins) OVER (PARTITION BY m.source, m.visitor ORDER BY m.occurred_at) AS n
	FROM marked m
), grouped AS (
	SELECT source, visitor,
		(array_agg(event_id ORDER BY occurred_at, sequence NULLS FIRST, event_id COLLATE "C"))[1] AS first_event_id,
		(array_agg(user_id ORDER BY occurred_at DESC, sequence DESC NULLS LAST, event_id COLLATE "C" DESC, user_id COLLATE "C" DESC)
			FILTER (WHERE user_id IS NOT NULL))[1] AS user_id,
		min(occurred_at) AS started_at, max(occurred_at) AS ended_at, count(*) AS events, count(page) AS page_views,
		(array_agg(type ORDER BY occurred_at, sequence NULLS FIRST, event_id COLLATE "C", type COLLATE "C"))[1] AS entry_type,
		(array_agg(page ORDER BY occurred_at, sequence NULLS FIRST, event_id COLLATE "C", page COLLATE "C")
			FILTER (WHERE page IS NOT NULL))[1] AS entry_page,
		(array_agg(type ORDER BY occurred_at DESC, sequence DESC NULLS LAST, event_id COLLATE "C" DESC, type COLLATE "C" DESC))[1] AS exit_type,
		(array_agg(page ORDER BY occurred_at DESC, sequence DESC NULLS LAST, event_id COLLATE "C" DESC, page COLLATE "C" DESC)
			FILTER (WHERE page IS NOT NULL))[1] AS exit_page,
		(array_agg(properties ORDER BY occurred_at, sequence NULLS FIRST, event_id COLLATE "C", properties)
			FILTER (WHERE properties IS NOT NULL))[1] AS entry_properties,
		array_agg(type) AS types
	FROM numbered
	GROUP BY source, visitor, n
), recomputed AS (
	SELECT behavior.session_id(g.source, g.visitor, g.first_event_id) AS session_id, g.source, g.visitor, g.user_id,
		g.started_at, g.ended_at, g.ended_at - g.started_at AS duration, g.events, g.page_views,
		g.entry_type, g.entry_page, g.exit_type, g.exit_page, g.entry_properties,
		(SELECT jsonb_object_agg(t.type, t.n) FROM (SELECT t.type, count(*) AS n FROM unnest(g.types) AS t (type) GROUP BY t.type) t) AS type_counts
	FROM grouped g, bounds b
	WHERE (since IS NULL OR g.started_at >= since) AND (b.until IS NULL OR g.started_at < b.until)
)
SELECT 'sessions', jsonb_build_object('session_id', coalesce(f.session_id, r.session_id), 'started_at', coalesce(f.started_at, r.started_at)),
	CASE WHEN f.session_id IS NOT NULL THEN to_jsonb(f) END, CASE WHEN r.session_id IS NOT NULL THEN to_jsonb(r) END
FROM folded f FULL JOIN recomputed r ON f.session_id = r.session_id AND f.started_at = r.started_at
WHERE f IS DISTINCT FROM r
UNION ALL
SELECT 'sessions', jsonb_build_object('session_alias', a.session_id), jsonb_build_object('merged_into', a.merged_into), NULL
FROM behavior.session_alias a
WHERE since IS NULL AND until IS NULL
	AND (NOT EXISTS (SELECT FROM behavior.session s WHERE s.session_id = a.merged_into)
		OR EXISTS (SELECT FROM behavior.session s WHERE s.session_id = a.session_id))
$$;
COMMENT ON FUNCTION behavior._verify_sessions(timestamptz, timestamptz) IS 'differences between sessions and what the log says, up to the progress of the projection';

-- One snapshot for all: both functions are STABLE, so everything in them sees what the calling statement sees.
-- Two functions, since PL/pgSQL refuses a result column named like a parameter.
CREATE FUNCTION behavior._verify(name text, since timestamptz, until timestamptz,
		OUT projection text, OUT key jsonb, OUT folded jsonb, OUT recomputed jsonb) RETURNS SETOF record
	LANGUAGE plpgsql STABLE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
DECLARE
	p record;
BEGIN
	IF EXISTS (SELECT FROM behavior._subscription s WHERE s.name = $1) THEN
		RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
			MESSAGE = format('subscription "%s" cannot be verified', $1),
			DETAIL = 'What its handler has done is not known.',
			HINT = 'In behavior.subscription, matched is delivered and dead_letters and lag_events.';
	END IF;
	IF $1 NOT IN ('sessions', 'activity') AND NOT EXISTS (SELECT FROM behavior._projection q WHERE q.name = $1) THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('projection "%s" does not exist', $1),
			HINT = 'behavior.projection lists them.';
	END IF;
	FOR p IN SELECT q.name, q.kind FROM behavior._projection q WHERE $1 IS NULL OR q.name = $1 ORDER BY q.name LOOP
		IF p.kind = 'session' THEN
			RETURN QUERY SELECT v.projection, v.key, v.folded, v.recomputed FROM behavior._verify_sessions($2, $3) v;
		ELSIF p.kind = 'rollup' THEN
			RETURN QUERY SELECT v.projection, v.key, v.folded, v.recomputed FROM behavior._verify_rollup(p.name, $2, $3) v;
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION behavior._verify(text, timestamptz, timestamptz) IS 'what behavior.verify() returns';

CREATE FUNCTION behavior.verify(projection text DEFAULT NULL, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL)
	RETURNS TABLE (projection text, key jsonb, folded jsonb, recomputed jsonb)
	LANGUAGE sql STABLE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS 'SELECT v.projection, v.key, v.folded, v.recomputed FROM behavior._verify($1, $2, $3) v';
COMMENT ON FUNCTION behavior.verify(text, timestamptz, timestamptz) IS 'recomputes projections (NULL: all) from the log under one snapshot, up to their progress, and returns the differences: none; since and until bound the beginnings of sessions and the buckets of rollups; raises 42704 for an unknown name and 0A000 for a subscription';
REVOKE ALL ON FUNCTION behavior.verify(text, timestamptz, timestamptz), behavior._verify(text, timestamptz, timestamptz),
	behavior._verify_sessions(timestamptz, timestamptz) FROM PUBLIC;

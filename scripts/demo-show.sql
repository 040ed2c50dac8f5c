-- The demo's dashboards.  :real is 1 when real events were loaded.
\set ON_ERROR_STOP on
\pset footer off
\pset null '-'
\pset linestyle unicode
\pset border 2
SELECT count(*) > 0 AS hll FROM pg_extension WHERE extname = 'hll' \gset
\if :hll
\set unique 'round(hll_cardinality(hll_union_agg(visitors)))::bigint'
\else
\set unique 'NULL::bigint'
\endif
\if :real
\set shown 'wikipedia'
\set width '1 day'
\else
\set shown 'default'
\set width '3 hours'
\endif

\echo
\echo Where events come from, and how many unique visitors they have
SELECT source, min(bucket)::date AS "from", max(bucket)::date AS "to", sum(events) AS events, :unique AS visitors
FROM traffic GROUP BY source ORDER BY events DESC;

\echo
\echo Traffic over time (:shown)
SELECT bucket, views, visitors, repeat('█', (40 * views / max(views) OVER ())::int) AS " "
FROM (SELECT behavior.time_bucket(:'width', bucket) AS bucket, sum(events) AS views, :unique AS visitors
	FROM traffic WHERE source = :'shown' AND type = 'PageView' GROUP BY 1) t
WHERE bucket > (SELECT max(bucket) - 20 * :'width'::interval FROM traffic WHERE source = :'shown')
ORDER BY bucket;

\echo
\echo Top pages
SELECT source, left(page, 60) AS page, sum(views) AS views, :unique AS visitors
FROM pages WHERE page IS NOT NULL GROUP BY source, page ORDER BY views DESC LIMIT 10;

\echo
\echo Top items
SELECT source, item, description, orders, pieces, round(revenue, 2) AS revenue
FROM items ORDER BY revenue DESC NULLS LAST LIMIT 10;

\echo
\echo Sessions
SELECT source, count(*) AS sessions, count(DISTINCT visitor) AS visitors,
	date_trunc('second', avg(duration)) AS "average duration", round(avg(events), 1) AS "events a session",
	round(100.0 * count(*) FILTER (WHERE events = 1) / count(*), 1) AS "bounce rate %"
FROM behavior.session GROUP BY source ORDER BY sessions DESC;

\echo
\echo Conversion
\if :real
SELECT 'apache: visits that came to a project page' AS goal, count(*) AS "of", converted, round(100.0 * converted / count(*), 1) AS "%"
FROM behavior.session s, LATERAL (SELECT count(DISTINCT session_id) AS converted FROM behavior.event_session
	WHERE source = 'apache' AND type = 'PageView' AND properties->>'path' LIKE '/projects/%') c
WHERE source = 'apache' GROUP BY converted
UNION ALL
SELECT source || ': customers who bought again', count(*), count(*) FILTER (WHERE visits > 1),
	round(100.0 * count(*) FILTER (WHERE visits > 1) / count(*), 1)
FROM (SELECT source, visitor, count(*) AS visits FROM behavior.session
	WHERE source IN ('retail', 'cdnow') AND type_counts ? 'Purchase' GROUP BY source, visitor) c GROUP BY source;
\else
SELECT 'visits with a page view that ended in a purchase' AS goal, count(*) AS "of",
	count(*) FILTER (WHERE type_counts ? 'Purchase') AS converted,
	round(100.0 * count(*) FILTER (WHERE type_counts ? 'Purchase') / count(*), 1) AS "%"
FROM behavior.session WHERE page_views > 0;
\endif

\echo
\echo Ways from page to page
SELECT source, left(from_page, 40) AS "from", left(to_page, 40) AS "to", visits FROM hop ORDER BY visits DESC, 2, 3 LIMIT 5;

\echo
\echo Deliveries
SELECT name, matched, delivered, failed AS "failed attempts", dead_letters, lag_events AS waiting,
	matched = delivered + dead_letters + lag_events AS "adds up" FROM behavior.subscription ORDER BY name;

\echo
\echo Dead letters
SELECT stage, reason, count(*), count(redriven_at) AS redriven, left(min(payload), 60) AS "for instance"
FROM behavior.dead_letter GROUP BY 1, 2 ORDER BY 3 DESC;

\echo
\echo Nothing lost, nothing counted twice
SELECT sum(received) AS received, sum(accepted) AS accepted, sum(duplicates) AS duplicates, sum(conflicts) AS conflicts,
	sum(dead_letters) AS dead_letters, sum(received) = sum(accepted + duplicates + conflicts + dead_letters) AS "adds up",
	sum(accepted) = (SELECT count(*) FROM behavior.event) AS "all stored"
FROM behavior.intake;

\echo
\echo Delivered exactly once: what the handlers counted, and what the log says
SELECT sum(purchases) AS purchases, sum(purchases) = (SELECT count(*) FROM behavior.event WHERE type = 'Purchase') AS "as the log",
	(SELECT count(*) FROM returned) AS returns,
	(SELECT count(*) FROM returned) = (SELECT matched FROM behavior.subscription WHERE name = 'returns')
		AND NOT EXISTS (SELECT FROM returned GROUP BY source, event_id HAVING count(*) > 1) AS "each once",
	(SELECT sum(visits) FROM hop) AS hops, NOT EXISTS (SELECT * FROM hop_differences) AS "in order"
FROM customer;

\pset footer on
\echo
\echo behavior.verify(): every session and rollup recomputed from the log; the rows are the differences
SELECT * FROM behavior.verify();

-- What the demo routes besides: one more subscription, from the beginning of time, and what failed is mended and sent again.
\set ON_ERROR_STOP on
\pset footer off
\pset null '-'
\pset linestyle unicode
\pset border 2
\if :real
	\set long 'int'
\else
	\set long 'text'
\endif

-- From which page to which: in the order in which they were seen, which is not the order in which the events came.
CREATE TABLE place (source text, actor text, page text, PRIMARY KEY (source, actor));
CREATE TABLE hop (source text, from_page text, to_page text, visits bigint);
CREATE UNIQUE INDEX ON hop (source, md5(from_page), md5(to_page));
CREATE FUNCTION follow(events behavior.event[]) RETURNS void LANGUAGE sql SET search_path = public, pg_temp AS $$
	WITH seen AS (
		SELECT source, actor, ordinality, coalesce(properties->>'page', properties->>'path', properties->>'url') AS page
		FROM unnest(events) WITH ORDINALITY WHERE actor IS NOT NULL),
	counted AS (
		INSERT INTO hop AS h SELECT source, from_page, page, count(*)
		FROM (SELECT s.*, coalesce(lag(s.page) OVER (PARTITION BY source, actor ORDER BY ordinality), p.page) AS from_page
			FROM seen s LEFT JOIN place p USING (source, actor)) m
		WHERE from_page <> page GROUP BY 1, 2, 3
		ON CONFLICT (source, md5(from_page), md5(to_page)) DO UPDATE SET visits = h.visits + excluded.visits)
	INSERT INTO place SELECT DISTINCT ON (source, actor) source, actor, page FROM seen ORDER BY source, actor, ordinality DESC
	ON CONFLICT (source, actor) DO UPDATE SET page = excluded.page $$;
SELECT behavior.create_subscription('journeys', '{"detail-type": ["PageView"]}', 'follow', batch_size => 1000,
	ordered => true, start_at => '1970-01-01 00:00:00Z') \g /dev/null
-- The same from the log, by a window over all of it.
CREATE VIEW hop_differences AS
WITH recomputed AS (
	SELECT source, from_page, page AS to_page, count(*) AS visits
	FROM (SELECT source, page, lag(page) OVER (PARTITION BY source, actor ORDER BY occurred_at, sequence NULLS FIRST, event_id COLLATE "C") AS from_page
		FROM (SELECT *, coalesce(properties->>'page', properties->>'path', properties->>'url') AS page FROM behavior.event
			WHERE type = 'PageView' AND actor IS NOT NULL) e) l
	WHERE from_page <> page GROUP BY 1, 2, 3)
(SELECT * FROM hop EXCEPT ALL SELECT * FROM recomputed) UNION ALL (SELECT * FROM recomputed EXCEPT ALL SELECT * FROM hop);

\echo
\echo Refused at the door, or by a handler with a mistake
SELECT stage, coalesce(projection, type) AS "of", reason, count(*), left(min(coalesce(errors->'errors'->0->>'message', detail)), 50) AS "for instance"
FROM behavior.dead_letter WHERE reason IN ('schema_violation', 'handler_error') GROUP BY 1, 2, 3 ORDER BY 1, 2;

\echo
\echo The schema is changed, the handler mended, an event without a type patched: all of them are redriven
BEGIN;
SELECT behavior.alter_event_type('Purchase', '{"type": "object", "required": ["item", "quantity"],
	"properties": {"item": {"type": "string"}, "quantity": {"type": ["number", "string"]}}}') \g /dev/null
ALTER TABLE returned ALTER what TYPE :long;
SELECT what, status, count(*) FROM (
	SELECT 'schema_violation' AS what, status FROM behavior.redrive(reason => 'schema_violation')
	UNION ALL SELECT 'handler_error', status FROM behavior.redrive(projection => 'returns')
	UNION ALL SELECT 'missing_field', status FROM behavior.redrive(reason => 'missing_field', patch => '{"type": "Unknown"}')) r
GROUP BY 1, 2 ORDER BY 1, 2;
COMMIT;

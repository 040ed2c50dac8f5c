-- Rebuilding sessions: the same settings give the same rows, others the rows that they mean, beside whatever comes in.
\set VERBOSITY sqlstate
SET timezone = 'UTC';
CREATE FUNCTION send(first int, last int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO behavior.event (event_id, source, type, anonymous_id, user_id, occurred_at, properties)
	SELECT 'e' || i, 'shop', CASE WHEN i % 7 = 0 THEN 'Ping' WHEN i % 11 = 0 THEN 'identify' ELSE 'View' END, 'v' || i % 5,
		CASE WHEN i % 3 = 0 THEN 'u' || i END, '2024-05-01 00:00+00'::timestamptz + (i * i * 37 % 4000) * interval '1 minute',
		jsonb_build_object('page', 'p' || i, 'screen', 's' || i, 'utm_source', 'x' || i, 'coupon', i)
	FROM generate_series(first, last) i
$$;
-- Differences, and ids that once were and lead nowhere, or to a session that is none.
CREATE TABLE ever (session_id uuid);
CREATE VIEW wrong AS
	SELECT 'verify' AS what FROM behavior.verify('sessions')
	UNION ALL
	SELECT 'progress' FROM behavior.projection WHERE name = 'sessions' AND tick_id <> (SELECT max(tick_id) FROM behavior.tick)
	UNION ALL
	SELECT 'leftover' FROM behavior._session_next
	UNION ALL
	SELECT 'walk' FROM behavior._log_walk
	UNION ALL
	SELECT 'id' FROM ever e WHERE NOT EXISTS (SELECT FROM behavior.session s WHERE s.session_id = e.session_id)
		AND NOT EXISTS (SELECT FROM behavior.session_alias a JOIN behavior.session s ON s.session_id = a.merged_into WHERE a.session_id = e.session_id);

SELECT send(1, 100);
CALL behavior.tick();
INSERT INTO ever SELECT session_id FROM behavior.session;
SELECT send(101, 200);
CALL behavior.tick();
INSERT INTO ever SELECT session_id FROM behavior.session;
SELECT send(201, 300);
CALL behavior.tick();
INSERT INTO ever SELECT session_id FROM behavior.session;
SELECT * FROM wrong;

-- The same settings: not one row is written anew, and aliases stay.
CREATE TABLE before AS SELECT ctid AS place, xmin::text AS written, * FROM behavior._session;
CREATE TABLE before_alias AS TABLE behavior.session_alias;
SELECT count(*) > 0 AS aliases FROM before_alias;
SELECT behavior.rebuild('sessions');
SELECT rebuild FROM behavior._projection WHERE name = 'sessions';
CALL behavior.tick();
SELECT rebuild, settings ? 'next' OR settings ? 'building' AS leftover FROM behavior._projection WHERE name = 'sessions';
SELECT count(*) FROM (SELECT ctid, xmin::text, * FROM behavior._session EXCEPT ALL TABLE before) x;
SELECT count(*) FROM (TABLE before_alias EXCEPT ALL TABLE behavior.session_alias) x;
SELECT * FROM wrong;

-- It heals what was damaged.
DELETE FROM behavior._session WHERE visitor = 'v1';
UPDATE behavior._session SET events = 0 WHERE visitor = 'v2';
INSERT INTO behavior._session SELECT gen_random_uuid(), visitor_hash, started_at + '1 year', ended_at + '1 year', events, page_views, user_id,
	exit_type, exit_page, merge, source, visitor, entry_type, entry_page, entry_properties
	FROM behavior._session WHERE visitor = 'v3';
SELECT count(*) > 0 AS damaged FROM behavior.verify('sessions');
SELECT behavior.rebuild('sessions');
CALL behavior.tick();
SELECT * FROM wrong;

-- Other settings: a change shows, and takes effect at rebuild; the settings are those of who asked for it.
SELECT state FROM behavior.projection WHERE name = 'sessions';
SET behavior.session_timeout = '4h';
SET behavior.page_property = 'screen';
SET behavior.session_properties = 'coupon';
SET behavior.session_ignore = 'Ping';
SELECT state FROM behavior.projection WHERE name = 'sessions';
CALL behavior.tick();
SELECT * FROM wrong;
SELECT behavior.rebuild('sessions');
RESET behavior.session_timeout;
CALL behavior.tick();
SET behavior.session_timeout = '4h';
SELECT state FROM behavior.projection WHERE name = 'sessions';
SELECT settings FROM behavior._projection WHERE name = 'sessions';
SELECT bool_and(entry_page LIKE 's%' AND entry_properties ? 'coupon' AND NOT entry_properties ? 'utm_source' AND NOT type_counts ? 'Ping') AS as_set,
	bool_or(type_counts ? 'identify') AS counted, sum(events) AS events FROM behavior.session;
SELECT (SELECT count(*) FROM behavior.session) < (SELECT count(*) FROM before) AS fewer;
SELECT * FROM wrong WHERE what <> 'id';
-- Ids whose session began with an event that is now ignored lead to what has taken its place, if something has.
SELECT count(*) FROM ever e JOIN before b USING (session_id) WHERE behavior._session_type_counts(b.merge, b.entry_type, b.exit_type) - 'Ping' <> '{}'
	AND NOT EXISTS (SELECT FROM behavior.session s WHERE s.session_id = e.session_id)
	AND NOT EXISTS (SELECT FROM behavior.session_alias a JOIN behavior.session s ON s.session_id = a.merged_into WHERE a.session_id = e.session_id);
-- And shorter sessions: ids that live again are no aliases.
SET behavior.session_timeout = '5min';
RESET behavior.session_ignore;
SELECT behavior.rebuild('sessions');
CALL behavior.tick();
SELECT (SELECT count(*) FROM behavior.session) > (SELECT count(*) FROM before) AS more;
SELECT * FROM wrong WHERE what <> 'id';
RESET behavior.session_timeout;
RESET behavior.page_property;
RESET behavior.session_properties;
SELECT behavior.rebuild('sessions');
CALL behavior.tick();
SELECT state FROM behavior.projection WHERE name = 'sessions';
SELECT count(*) FROM (SELECT session_id, started_at, ended_at, events, merge FROM behavior._session
	EXCEPT ALL SELECT session_id, started_at, ended_at, events, merge FROM before) x;
SELECT * FROM wrong WHERE what <> 'id';

-- In a transaction block, with events of its own, rolled back and committed.
BEGIN;
SELECT send(301, 350);
SET LOCAL behavior.session_timeout = '10min';
SELECT behavior.rebuild('sessions');
CALL behavior.tick();
SELECT state FROM behavior.projection WHERE name = 'sessions';
SELECT * FROM wrong WHERE what <> 'id';
ROLLBACK;
SELECT * FROM wrong WHERE what <> 'id';
BEGIN;
SELECT send(301, 350);
SELECT behavior.rebuild('sessions');
CALL behavior.tick();
SELECT behavior.rebuild('sessions');
CALL behavior.tick();
COMMIT;
SELECT * FROM wrong WHERE what <> 'id';

-- A build that was left half done.  First: rows of a build that a restore does not know of.
INSERT INTO behavior._session_next SELECT * FROM behavior._session;
SELECT behavior.rebuild('sessions');
CALL behavior.tick();
SELECT * FROM wrong WHERE what <> 'id';
-- The log has been walked up to an early tick, the later ones come by ticks.
SELECT behavior.rebuild('sessions');
UPDATE behavior._projection SET settings = jsonb_set(settings, '{building}', settings -> 'next') WHERE name = 'sessions';
INSERT INTO behavior._log_walk (projection, next_block, tick_id, done_events, total_events) VALUES ('sessions', 0, 2, 0, 0);
CALL behavior.tick();
SELECT * FROM wrong WHERE what <> 'id';
-- All by ticks.
SELECT behavior.rebuild('sessions');
UPDATE behavior._projection SET settings = jsonb_set(settings, '{building}', settings -> 'next') WHERE name = 'sessions';
INSERT INTO behavior._log_walk (projection, next_block, tick_id, done_events, total_events) VALUES ('sessions', -1, 0, 0, 0);
CALL behavior.tick();
SELECT * FROM wrong WHERE what <> 'id';
-- The partition that was walked is gone.
SELECT behavior.rebuild('sessions');
UPDATE behavior._projection SET settings = jsonb_set(settings, '{building}', settings -> 'next') WHERE name = 'sessions';
INSERT INTO behavior._log_walk (projection, relid, relfilenode, next_block, tick_id, done_events, total_events) VALUES ('sessions', 'ever', 1, 7, 2, 0, 0);
CALL behavior.tick();
SELECT * FROM wrong WHERE what <> 'id';
-- Other settings were asked for since it began.
SET behavior.session_timeout = '20min';
SELECT behavior.rebuild('sessions');
UPDATE behavior._projection SET settings = jsonb_set(settings, '{building}', settings - 'next') WHERE name = 'sessions';
INSERT INTO behavior._log_walk (projection, next_block, tick_id, done_events, total_events) VALUES ('sessions', -1, 3, 0, 0);
CALL behavior.tick();
SELECT settings -> 'timeout' AS timeout FROM behavior._projection WHERE name = 'sessions';
SELECT * FROM wrong WHERE what <> 'id';

-- Sessions that have never been folded, or fail, are rebuilt as well.
UPDATE behavior._projection_tick SET tick_id = 1 WHERE projection = 'sessions';
UPDATE behavior._projection SET state = 'failing', attempts = 3, error = 'x', failed_at = now() WHERE name = 'sessions';
DELETE FROM behavior._session;
SELECT behavior.rebuild('sessions');
CALL behavior.tick();
SELECT state, attempts, error FROM behavior.projection WHERE name = 'sessions';
SELECT * FROM wrong WHERE what <> 'id';

-- An id that was an alias lives again, and others now lead to it.
CREATE FUNCTION visit(id text, type text, at time) RETURNS void LANGUAGE sql AS $$
	INSERT INTO behavior.event (event_id, source, type, anonymous_id, occurred_at) VALUES (id, 'shop', type, 'again', '2024-06-01'::date + at)
$$;
RESET behavior.session_timeout;
SELECT behavior.rebuild('sessions'), visit('view', 'View', '10:10'), visit('apart', 'View', '11:00');
CALL behavior.tick();
SELECT visit('ping', 'Ping', '10:00');
CALL behavior.tick();
CREATE VIEW ids AS SELECT e.id AS event, s.session_id IS NOT NULL AS lives, (SELECT x.id FROM unnest('{ping,view,apart}'::text[]) AS x (id)
		WHERE behavior.session_id('shop', 'again', x.id) = a.merged_into) AS leads_to
	FROM unnest('{ping,view,apart}'::text[]) AS e (id)
		LEFT JOIN behavior.session s ON s.session_id = behavior.session_id('shop', 'again', e.id)
		LEFT JOIN behavior.session_alias a ON a.session_id = behavior.session_id('shop', 'again', e.id);
SELECT * FROM ids ORDER BY event;
SET behavior.session_ignore = 'Ping';
SET behavior.session_timeout = '1h';
SELECT behavior.rebuild('sessions');
CALL behavior.tick();
SELECT * FROM ids ORDER BY event;
SELECT * FROM wrong WHERE what <> 'id';
DROP VIEW ids;
DROP FUNCTION visit;

-- Only for the owner of the extension.
CREATE ROLE regress_rebuilder;
GRANT EXECUTE ON FUNCTION behavior.rebuild(text) TO regress_rebuilder;
SET ROLE regress_rebuilder;
SELECT behavior.rebuild('sessions');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION behavior.rebuild(text) FROM regress_rebuilder;
DROP ROLE regress_rebuilder;
DROP VIEW wrong;
DROP TABLE ever, before, before_alias;
DROP FUNCTION send;

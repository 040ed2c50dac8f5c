-- Materialized views that are refreshed on a cadence.
CREATE TABLE behavior._refresh (
	matview			regclass PRIMARY KEY,
	every			interval NOT NULL CHECK (every > '0'),
	only_on_change	boolean NOT NULL,
	next_due_at		timestamptz NOT NULL,
	last_started_at	timestamptz,
	last_duration	interval,				-- of the last one that succeeded
	seen			text,					-- what had been folded when the last one started
	attempts		int NOT NULL DEFAULT 0,	-- that failed since the last success
	failed_at		timestamptz,
	last_error		text
) WITH (fillfactor = 50);
SELECT pg_catalog.pg_extension_config_dump('behavior._refresh', '');
COMMENT ON TABLE behavior._refresh IS 'materialized views that are refreshed on a cadence';
REVOKE ALL ON behavior._refresh FROM PUBLIC;

CREATE VIEW behavior.scheduled_refresh AS
	SELECT matview, every, only_on_change, last_started_at, last_duration, last_error, failed_at, attempts, next_due_at
	FROM behavior._refresh;
COMMENT ON VIEW behavior.scheduled_refresh IS 'materialized views that are refreshed on a cadence, with the last run, its duration and error';
REVOKE ALL ON behavior.scheduled_refresh FROM PUBLIC;
GRANT SELECT ON behavior.scheduled_refresh TO pg_monitor;

CREATE FUNCTION behavior.schedule_refresh(matview regclass, every interval DEFAULT '5 seconds', only_on_change boolean DEFAULT true)
	RETURNS void LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'behavior_schedule_refresh';
COMMENT ON FUNCTION behavior.schedule_refresh(regclass, interval, boolean) IS
	'refreshes a materialized view of the caller''s on a cadence, as its owner; only_on_change: only when something was folded since the last refresh; again: changes the schedule; 42809 not a materialized view, 42501 not the owner''s, 22023 interval not above 0';
REVOKE ALL ON FUNCTION behavior.schedule_refresh(regclass, interval, boolean) FROM PUBLIC;

CREATE FUNCTION behavior.unschedule_refresh(matview regclass)
	RETURNS void LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'behavior_unschedule_refresh';
COMMENT ON FUNCTION behavior.unschedule_refresh(regclass) IS
	'ends what schedule_refresh() began; 42704 when there is no schedule, 42501 when the view is somebody else''s';
REVOKE ALL ON FUNCTION behavior.unschedule_refresh(regclass) FROM PUBLIC;

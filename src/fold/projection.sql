-- Anything folded from the log, and how far it has come.
CREATE TABLE behavior._projection (
	name				text PRIMARY KEY,
	kind				text NOT NULL CHECK (kind IN ('session', 'rollup', 'subscription')),
	state				text NOT NULL CHECK (state IN ('backfilling', 'current', 'failing')),
	settings			jsonb NOT NULL DEFAULT '{}',	-- those it was (re)built with
	events_set_aside	bigint NOT NULL DEFAULT 0,
	attempts			int NOT NULL DEFAULT 0,
	failed_at			timestamptz,
	error				text,
	rebuild				boolean NOT NULL DEFAULT false	-- behavior.rebuild() was called
) WITH (fillfactor = 50);
SELECT pg_catalog.pg_extension_config_dump('behavior._projection', '');
COMMENT ON TABLE behavior._projection IS 'state of each projection';

-- Folded up to and including this tick: one row for each projection, never updated.  Each step inserts its
-- own and deletes the one before it; see fold/projection_progress.c.
CREATE TABLE behavior._projection_tick (
	projection			text NOT NULL,
	tick_id				bigint NOT NULL,
	PRIMARY KEY (projection, tick_id)
);
SELECT pg_catalog.pg_extension_config_dump('behavior._projection_tick', '');
COMMENT ON TABLE behavior._projection_tick IS 'progress of each projection';

-- Open to everybody, since a view's functions run as its reader; tells nothing but a number.
CREATE FUNCTION behavior._projection_tick_id(projection text) RETURNS bigint
	LANGUAGE C STABLE STRICT PARALLEL SAFE COST 10
	AS 'MODULE_PATHNAME', 'behavior_projection_tick_id';
COMMENT ON FUNCTION behavior._projection_tick_id(text) IS 'the tick that a projection is folded up to';

-- Events that a projection's own expressions refused: left out of its fold, tail and verify.
CREATE TABLE behavior._set_aside (
	projection		text NOT NULL,
	batch_id		bigint NOT NULL,
	source			text NOT NULL,
	event_id		text NOT NULL,
	dead_letter_id	bigint NOT NULL,
	PRIMARY KEY (projection, batch_id, source, event_id)
);
SELECT pg_catalog.pg_extension_config_dump('behavior._set_aside', '');
COMMENT ON TABLE behavior._set_aside IS 'events that one projection cannot fold';

-- The sessions settings of the reader's session.  Open to everybody, since a view's functions run as its
-- reader; tells nothing but settings.
CREATE FUNCTION behavior._session_settings() RETURNS jsonb
	LANGUAGE C STABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'behavior_session_settings';
COMMENT ON FUNCTION behavior._session_settings() IS 'the settings that sessions would be built with now';

REVOKE ALL ON behavior._projection, behavior._projection_tick, behavior._set_aside FROM PUBLIC;

CREATE FUNCTION behavior.rebuild(projection text) RETURNS void
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'behavior_rebuild';
COMMENT ON FUNCTION behavior.rebuild(text) IS 'schedules a projection to be built anew from the log beside its old state; for its owner (42501), raises 42704 for an unknown name and 0A000 for a subscription';
REVOKE ALL ON FUNCTION behavior.rebuild(text) FROM PUBLIC;

-- Anything folded from the log, and how far it has come.
CREATE TABLE behavior._projection (
	name				text PRIMARY KEY,
	kind				text NOT NULL CHECK (kind IN ('session', 'rollup', 'subscription')),
	state				text NOT NULL CHECK (state IN ('backfilling', 'current', 'failing')),
	tick_id				bigint NOT NULL,			-- folded up to and including this tick
	settings			jsonb NOT NULL DEFAULT '{}',	-- those it was (re)built with
	events_set_aside	bigint NOT NULL DEFAULT 0,
	attempts			int NOT NULL DEFAULT 0,
	failed_at			timestamptz,
	error				text,
	rebuild				boolean NOT NULL DEFAULT false	-- behavior.rebuild() was called
) WITH (fillfactor = 50);
SELECT pg_catalog.pg_extension_config_dump('behavior._projection', '');
COMMENT ON TABLE behavior._projection IS 'progress and state of each projection';

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
REVOKE ALL ON behavior._projection, behavior._set_aside FROM PUBLIC;

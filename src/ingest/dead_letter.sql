-- Events that were refused, could not be folded or could not be delivered, kept with their reason.
CREATE TABLE behavior.dead_letter (
	dead_letter_id	bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	batch_id		bigint,
	failed_at		timestamptz NOT NULL,
	stage			text NOT NULL CHECK (stage IN ('ingest', 'fold', 'delivery')),
	reason			text NOT NULL,
	detail			text,
	errors			jsonb,
	source			text,
	type			text,
	event_id		text,
	payload			text,
	projection		text,
	attempts		int NOT NULL DEFAULT 1,
	redriven_at		timestamptz
);
CREATE INDEX dead_letter_event_id ON behavior.dead_letter (event_id);
SELECT pg_catalog.pg_extension_config_dump('behavior.dead_letter', '');
SELECT pg_catalog.pg_extension_config_dump('behavior.dead_letter_dead_letter_id_seq', '');
REVOKE ALL ON behavior.dead_letter FROM PUBLIC;
COMMENT ON TABLE behavior.dead_letter IS 'events that were refused, could not be folded or could not be delivered';

CREATE FUNCTION behavior._dead_letter(stage text, reason int, source text, type text, event_id text, payload bytea, detail text)
	RETURNS bigint
	LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'behavior__dead_letter';
COMMENT ON FUNCTION behavior._dead_letter(text, int, text, text, text, bytea, text) IS
	'stores a dead letter of a payload in any bytes, for tests; reason: its number in errors.h';
REVOKE ALL ON FUNCTION behavior._dead_letter(text, int, text, text, text, bytea, text) FROM PUBLIC;

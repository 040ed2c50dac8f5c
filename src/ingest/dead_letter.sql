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
	event_id		text COLLATE "C",
	payload			text,
	projection		text,
	attempts		int NOT NULL DEFAULT 1,
	redriven_at		timestamptz,
	previous		bigint,
	received_at		timestamptz NOT NULL,
	sent_with		jsonb,
	payload_intact	boolean NOT NULL DEFAULT true
);
CREATE INDEX dead_letter_event_id ON behavior.dead_letter (event_id);
SELECT pg_catalog.pg_extension_config_dump('behavior.dead_letter', '');
SELECT pg_catalog.pg_extension_config_dump('behavior.dead_letter_dead_letter_id_seq', '');
REVOKE ALL ON behavior.dead_letter FROM PUBLIC;
COMMENT ON TABLE behavior.dead_letter IS 'events that were refused, could not be folded or could not be delivered';
COMMENT ON COLUMN behavior.dead_letter.errors IS 'schema_violation: type, source and version of the declared type, and the list of errors: instance_path, schema_path, message';
COMMENT ON COLUMN behavior.dead_letter.attempts IS 'how often the event was tried, this letter included';
COMMENT ON COLUMN behavior.dead_letter.redriven_at IS 'when behavior.redrive() sent it again; NULL: it waits';
COMMENT ON COLUMN behavior.dead_letter.previous IS 'the dead letter that was sent again and became this one';
COMMENT ON COLUMN behavior.dead_letter.received_at IS 'when the event came first; what redrive takes for occurred_at where the payload has none';
COMMENT ON COLUMN behavior.dead_letter.sent_with IS 'what came with the payload and is not in it: source (the default then), defaults (of behavior.ingest()), context (of the batch around it), entry (true: an entry of PutEvents)';
COMMENT ON COLUMN behavior.dead_letter.payload_intact IS 'false when the payload was cut or bytes in it are escaped, so that redrive cannot send it again';

CREATE FUNCTION behavior._dead_letter(stage text, reason int, source text, type text, event_id text, payload bytea, detail text)
	RETURNS bigint
	LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'behavior__dead_letter';
COMMENT ON FUNCTION behavior._dead_letter(text, int, text, text, text, bytea, text) IS
	'stores a dead letter of a payload in any bytes, for tests; reason: its number in errors.h';
REVOKE ALL ON FUNCTION behavior._dead_letter(text, int, text, text, text, bytea, text) FROM PUBLIC;

-- Sending dead letters again.
CREATE FUNCTION behavior.redrive(reason text DEFAULT NULL, projection text DEFAULT NULL, since timestamptz DEFAULT NULL,
		until timestamptz DEFAULT NULL, patch jsonb DEFAULT NULL, dry_run boolean DEFAULT false)
	RETURNS TABLE (dead_letter_id bigint, status text, reason text)
	AS 'MODULE_PATHNAME', 'behavior_redrive' LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 100;
COMMENT ON FUNCTION behavior.redrive(text, text, timestamptz, timestamptz, jsonb, boolean) IS
'sends dead letters again that have not been sent again yet: those with this reason, of this projection, that failed in [since, until), NULL for no bound; patch: JSON merge patch (RFC 7396) of the payload of each, for letters of stage ingest only; dry_run: says what would happen, and nothing has; answers with a row for each letter: what became of it, and why it failed again, then as a new letter, or was skipped; 22023 when the patch is not an object';
REVOKE ALL ON FUNCTION behavior.redrive(text, text, timestamptz, timestamptz, jsonb, boolean) FROM PUBLIC;

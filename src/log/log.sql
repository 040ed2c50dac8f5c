-- The log: every accepted event, partitioned by the UTC day of occurred_at.  Partitions are made at
-- run time and are ordinary objects, not members of the extension.  The parent has no index and no
-- constraint of ours: an index of the parent would be cloned by ATTACH PARTITION and then collide with
-- the one that a dump creates.
CREATE TABLE behavior.log (
	occurred_at		timestamptz NOT NULL,
	received_at		timestamptz NOT NULL,
	batch_id		bigint NOT NULL,
	sequence		bigint,
	event_id		text NOT NULL,
	source			text NOT NULL,
	type			text NOT NULL,
	user_id			text,
	anonymous_id	text,
	properties		jsonb NOT NULL,
	context			jsonb,
	hops			smallint			-- NULL: no handler sent it
) PARTITION BY RANGE (occurred_at);
SELECT pg_catalog.pg_extension_config_dump('behavior.log', '');
COMMENT ON TABLE behavior.log IS 'every accepted event; SELECT and CREATE INDEX are supported, write through behavior.event';
REVOKE ALL ON behavior.log FROM PUBLIC;

-- Walks of the log under way (backfills, rebuilds): while there is one, no rows move between partitions.
-- Who starts a walk inserts its row and commits before reading; log_empty_default() holds a lock against that.
-- Not dumped: a restored backfill starts anew.
CREATE TABLE behavior._log_walk (
	projection		text PRIMARY KEY,
	relid			regclass,
	relfilenode		oid,
	next_block		bigint,
	tick_id			bigint,
	done_events		bigint,
	total_events	bigint
);
COMMENT ON TABLE behavior._log_walk IS 'how far each walk of the log has come';
REVOKE ALL ON behavior._log_walk FROM PUBLIC;

-- Writing to the log by hand would leave events that no batch counts and no key protects.  Statement
-- triggers: they fire for statements that name the parent only.  Nobody has the privilege by default; what they
-- stop is the owner's and a superuser's slip.  COPY by the owner passes: pg_restore
-- of a dump made with --load-via-partition-root loads the parent that way.
CREATE FUNCTION behavior._log_guard() RETURNS trigger
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'behavior__log_guard';
COMMENT ON FUNCTION behavior._log_guard() IS 'refuses statements that write to behavior.log (0A000)';
CREATE TRIGGER _log_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON behavior.log
	FOR EACH STATEMENT EXECUTE FUNCTION behavior._log_guard();
ALTER TABLE behavior.log ENABLE ALWAYS TRIGGER _log_guard;

CREATE FUNCTION behavior._log_partition(at timestamptz) RETURNS text
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'behavior__log_partition';
COMMENT ON FUNCTION behavior._log_partition(timestamptz) IS
	'name of the partition that takes events of this time, made when it is missing, as a sender does it; locks it for writing';
CREATE FUNCTION behavior._log_partitions_ahead(days int) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'behavior__log_partitions_ahead';
COMMENT ON FUNCTION behavior._log_partitions_ahead(int) IS
	'makes the partitions from yesterday to so many days ahead, when events have come lately';
CREATE FUNCTION behavior._log_empty_default() RETURNS boolean
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'behavior__log_empty_default';
COMMENT ON FUNCTION behavior._log_empty_default() IS
	'moves rows out of the DEFAULT partition; false when locks could not be had at once';
CREATE FUNCTION behavior._log_restore_in_progress() RETURNS boolean
	LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'behavior__log_restore_in_progress';
COMMENT ON FUNCTION behavior._log_restore_in_progress() IS 'whether a partition still lacks its BRIN indexes';
CREATE FUNCTION behavior._log_read(batches int8multirange, indexed boolean DEFAULT false) RETURNS SETOF behavior.log
	LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'behavior__log_read';
COMMENT ON FUNCTION behavior._log_read(int8multirange, boolean) IS
	'events of these batches by their extents, or with "indexed" through BRIN alone';
REVOKE ALL ON FUNCTION behavior._log_guard(), behavior._log_partition(timestamptz),
	behavior._log_partitions_ahead(int), behavior._log_empty_default(), behavior._log_restore_in_progress(),
	behavior._log_read(int8multirange, boolean) FROM PUBLIC;

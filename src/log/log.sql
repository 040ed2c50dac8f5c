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
	context			jsonb
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

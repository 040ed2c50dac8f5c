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

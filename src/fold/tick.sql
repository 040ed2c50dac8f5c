-- Ticks: the batches that had become visible when the log was cut, numbered in that order.
CREATE TABLE behavior.tick (
	tick_id				bigint PRIMARY KEY,
	ticked_at			timestamptz NOT NULL,
	batches				bigint NOT NULL,
	events				bigint NOT NULL,
	first_occurred_at	timestamptz,
	last_occurred_at	timestamptz
);
SELECT pg_catalog.pg_extension_config_dump('behavior.tick', '');
COMMENT ON TABLE behavior.tick IS 'cuts of the log, gapless and in the order in which batches became visible';

-- Which batches belong to which tick: disjoint runs of batch_id.
CREATE TABLE behavior._tick_range (
	first_batch		bigint PRIMARY KEY,
	last_batch		bigint NOT NULL,
	tick_id			bigint NOT NULL
);
CREATE INDEX _tick_range_tick_id ON behavior._tick_range (tick_id);
SELECT pg_catalog.pg_extension_config_dump('behavior._tick_range', '');
COMMENT ON TABLE behavior._tick_range IS 'runs of batches and the tick they belong to';

-- How far numbering has come: one row, that of the last tick.  Each tick inserts its own and deletes the
-- one before it, and readers take the newest they see from the end of the primary key: what a long
-- snapshot holds back lies behind that and costs nothing.
CREATE TABLE behavior._tick_state (
	tick_id				bigint PRIMARY KEY,
	last_batch			bigint NOT NULL,	-- highest batch_id in any range
	holes				bigint[] NOT NULL,	-- runs (first, last, first, last, ...) below last_batch that may still become visible
	watermark_batch		bigint NOT NULL,	-- holes up to here are rollbacks once
	watermark_xid		xid8 NOT NULL,		-- every transaction before this one has ended
	system_identifier	bigint NOT NULL		-- of the server that watermark_xid belongs to
);
SELECT pg_catalog.pg_extension_config_dump('behavior._tick_state', '');
COMMENT ON TABLE behavior._tick_state IS 'how far numbering has come';

-- Batches that no tick has numbered yet.  The second bound makes the planner take the index whatever it
-- believes about the first; of the holes it is OFFSET 0 that leaves no other way than one look for each.
-- The array of holes is unpacked once: subscripts would do so anew for each comparison.
CREATE VIEW behavior._batch_waiting AS
	SELECT b.*
	FROM behavior._batch b
	WHERE b.batch_id > COALESCE((SELECT s.last_batch FROM behavior._tick_state s ORDER BY s.tick_id DESC LIMIT 1), 0)
		AND b.batch_id < 9223372036854775807
	UNION ALL
	SELECT b.*
	FROM (SELECT pg_catalog.min(h.batch_id) AS first_batch, pg_catalog.max(h.batch_id) AS last_batch
			FROM (SELECT s.holes FROM behavior._tick_state s ORDER BY s.tick_id DESC LIMIT 1) s,
				pg_catalog.unnest(s.holes) WITH ORDINALITY h (batch_id, n)
			GROUP BY (h.n - 1) / 2) r
		CROSS JOIN LATERAL (SELECT * FROM behavior._batch
			WHERE batch_id >= r.first_batch AND batch_id <= r.last_batch OFFSET 0) b;
COMMENT ON VIEW behavior._batch_waiting IS 'batches that no tick has numbered yet';
REVOKE ALL ON behavior.tick, behavior._tick_range, behavior._tick_state, behavior._batch_waiting FROM PUBLIC;
GRANT SELECT ON behavior.tick TO pg_monitor;

-- Open to everybody, since a view's functions run as its reader; tells nothing but a number.
CREATE FUNCTION behavior._tick_id(batch_id bigint) RETURNS bigint
	LANGUAGE C STABLE STRICT PARALLEL SAFE COST 10
	AS 'MODULE_PATHNAME', 'behavior_tick_id';
COMMENT ON FUNCTION behavior._tick_id(bigint) IS 'the tick that a batch belongs to, NULL while it has none';

-- Bringing everything to the present.  A procedure that commits cannot have SET search_path: it pins its own.
CREATE PROCEDURE behavior.tick()
	LANGUAGE C
	AS 'MODULE_PATHNAME', 'behavior_tick';
COMMENT ON PROCEDURE behavior.tick() IS 'cuts a tick and brings every projection, backfill and rebuild to it; at top level commits after each step, in a transaction block (READ COMMITTED only, else 25001) belongs to it';
REVOKE ALL ON PROCEDURE behavior.tick() FROM PUBLIC;

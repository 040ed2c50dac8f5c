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

-- How far numbering has come.  One row, made by the first tick.  Every batch_id below "settled" is
-- either in _tick_range or was rolled back; of those from "settled" up to last_batch, the ones in no
-- range ("holes") may still be in flight.
CREATE TABLE behavior._tick_state (
	singleton		boolean PRIMARY KEY DEFAULT true CHECK (singleton),
	tick_id			bigint NOT NULL,
	last_batch		bigint NOT NULL,		-- highest batch_id in any range
	holes			int8multirange NOT NULL,	-- ids below last_batch that may still become visible
	watermarks		jsonb NOT NULL			-- see tick.c: when a hole is known to be a rollback
);
SELECT pg_catalog.pg_extension_config_dump('behavior._tick_state', '');
COMMENT ON TABLE behavior._tick_state IS 'how far numbering has come';
REVOKE ALL ON behavior.tick, behavior._tick_range, behavior._tick_state FROM PUBLIC;

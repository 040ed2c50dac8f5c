-- Who sent: role, application, correlation and source, interned so that batch rows stay narrow.  The same
-- sender may stand here more than once: two transactions intern it at the same time without waiting for
-- each other, and a row is used for a day only (see batch_sender.c), so that old ones can be dropped.
CREATE TABLE behavior._sender (
	sender_id			bigint PRIMARY KEY,
	role				name NOT NULL,
	application_name	text NOT NULL,
	correlation_id		text NOT NULL,
	source				text NOT NULL,
	seen_at				timestamptz NOT NULL
);
CREATE SEQUENCE behavior._sender_id_seq;
CREATE INDEX _sender_key ON behavior._sender
	(source COLLATE "C", role, application_name COLLATE "C", correlation_id COLLATE "C");
SELECT pg_catalog.pg_extension_config_dump('behavior._sender', '');
SELECT pg_catalog.pg_extension_config_dump('behavior._sender_id_seq', '');
COMMENT ON TABLE behavior._sender IS 'senders that batch rows refer to';

-- What one statement sent.  Written once, when the statement ends; never updated: the tick that a batch
-- belongs to is found through behavior._tick_range.  Eight columns, so that the null bitmap fits
-- into the tuple header's padding: a row of one event takes 92 bytes.
CREATE TABLE behavior._batch (
	batch_id		bigint PRIMARY KEY,
	received_at		timestamptz NOT NULL,
	sender_id		bigint NOT NULL,	-- of the first row
	received		bigint NOT NULL,
	accepted		bigint NOT NULL,
	generated_ids	int,				-- NULL: 0
	extents			bytea,				-- where the events went: see log/log_reader.h
	by_sender		bigint[]			-- NULL: all by sender_id and received = accepted; else for each sender
										-- {sender_id, received, accepted, duplicates, conflicts, dead_letters, generated_ids}
);
CREATE SEQUENCE behavior._batch_id_seq;
SELECT pg_catalog.pg_extension_config_dump('behavior._batch', '');
SELECT pg_catalog.pg_extension_config_dump('behavior._batch_id_seq', '');
COMMENT ON TABLE behavior._batch IS 'what each sending statement did; kept for behavior.batch_retention';

-- Batches summed by hour and sender, as of the last tick; behavior.intake adds those not yet cut.  One row for
-- each, that of the last tick that added to it; never updated, for the reason that _tick_state is not.
CREATE TABLE behavior._intake (
	hour				timestamptz NOT NULL,
	source				text NOT NULL,
	role				name NOT NULL,
	application_name	text NOT NULL,
	received			bigint NOT NULL,
	accepted			bigint NOT NULL,
	duplicates			bigint NOT NULL,
	conflicts			bigint NOT NULL,
	dead_letters		bigint NOT NULL,
	generated_ids		bigint NOT NULL,
	tick_id				bigint NOT NULL,
	PRIMARY KEY (hour, source, role, application_name, tick_id)
);
SELECT pg_catalog.pg_extension_config_dump('behavior._intake', '');
COMMENT ON TABLE behavior._intake IS 'counts of received events by hour, source, role and application, for ever';
REVOKE ALL ON behavior._sender, behavior._batch, behavior._intake, behavior._sender_id_seq, behavior._batch_id_seq FROM PUBLIC;

CREATE FUNCTION behavior._batch_expire(batches bigint) RETURNS bigint
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'behavior__batch_expire';
COMMENT ON FUNCTION behavior._batch_expire(bigint) IS
	'deletes at most so many batch rows that behavior.batch_retention has passed by; returns how many';
REVOKE ALL ON FUNCTION behavior._batch_expire(bigint) FROM PUBLIC;

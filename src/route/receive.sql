-- Receiving events: for consumers that ask for them.
CREATE FUNCTION behavior.receive(subscription text, max_events int DEFAULT 100, visibility_timeout interval DEFAULT NULL,
		wait interval DEFAULT '0')
	RETURNS SETOF behavior.delivery
	AS 'MODULE_PATHNAME', 'behavior_receive' LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 100;
COMMENT ON FUNCTION behavior.receive(text, int, interval, interval) IS
'the next events of a subscription without a handler, at most max_events (1 to 10,000), for its owner (42501); without visibility_timeout the subscription moves on when the caller''s transaction commits; with one the events are in flight until behavior.ack(), or until it is over and they are given out again; wait: for how long to wait for the first event; raises 42704 for an unknown subscription, 55000 for one with a handler, 22023 for a bad argument, 25006 where nothing can be written';
CREATE FUNCTION behavior.ack(delivery_ids bigint[], attempts int[] DEFAULT NULL) RETURNS bigint
	AS 'MODULE_PATHNAME', 'behavior_ack' LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION behavior.ack(bigint[], int[]) IS
'events received with a visibility timeout have been handled; returns how many of them were waiting for that, ids that are unknown or settled already do not count; attempts: only where this attempt, one number for each id, is still the last one; for the owner of the subscription (42501)';
CREATE FUNCTION behavior.nack(delivery_ids bigint[], delay interval DEFAULT '0', attempts int[] DEFAULT NULL, error text DEFAULT NULL)
	RETURNS bigint
	AS 'MODULE_PATHNAME', 'behavior_nack' LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION behavior.nack(bigint[], interval, int[], text) IS
'events received with a visibility timeout have not been handled and are to be given out again after a delay; returns how many of them were in flight; one that has reached max_attempts or max_age of its subscription becomes a dead letter, with error in its detail; attempts: as for behavior.ack()';
REVOKE ALL ON FUNCTION behavior.receive(text, int, interval, interval), behavior.ack(bigint[], int[]),
	behavior.nack(bigint[], interval, int[], text) FROM PUBLIC;

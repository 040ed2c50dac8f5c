-- behavior.event: where events are sent to and read from.
CREATE VIEW behavior.event AS
	SELECT l.event_id, l.source, l.type, l.user_id, l.anonymous_id, l.occurred_at, l.sequence,
		l.properties, l.context, coalesce(l.user_id, l.anonymous_id) AS actor, l.received_at,
		l.batch_id, behavior._tick_id(l.batch_id) AS tick_id
	FROM behavior.log l;
COMMENT ON VIEW behavior.event IS 'send events with INSERT or COPY, read them with SELECT';
COMMENT ON COLUMN behavior.event.event_id IS 'the producer''s idempotency key, unique within source; without one: random, and not protected against retries';
COMMENT ON COLUMN behavior.event.source IS 'producing application; default: setting behavior.default_source';
COMMENT ON COLUMN behavior.event.type IS 'what happened; required';
COMMENT ON COLUMN behavior.event.user_id IS 'known user';
COMMENT ON COLUMN behavior.event.anonymous_id IS 'device or cookie';
COMMENT ON COLUMN behavior.event.occurred_at IS 'when it happened; default: the clock when the row is taken';
COMMENT ON COLUMN behavior.event.sequence IS 'producer''s counter, breaks ties of occurred_at';
COMMENT ON COLUMN behavior.event.properties IS 'an object; default: the empty one';
COMMENT ON COLUMN behavior.event.context IS 'circumstances, an object; never part of an event''s identity';
COMMENT ON COLUMN behavior.event.actor IS 'read only: coalesce(user_id, anonymous_id)';
COMMENT ON COLUMN behavior.event.received_at IS 'read only: the clock when the row was taken';
COMMENT ON COLUMN behavior.event.batch_id IS 'read only: what the same statement sent';
COMMENT ON COLUMN behavior.event.tick_id IS 'read only: NULL until cut; an exact cursor, "tick_id > last" never misses a late commit';

-- The statement triggers of behavior.event and behavior.inbox.
CREATE FUNCTION behavior._door_begin() RETURNS trigger
	AS 'MODULE_PATHNAME', 'behavior__door_begin' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION behavior._door_begin() IS 'before a statement that sends events';
CREATE FUNCTION behavior._door_end() RETURNS trigger
	AS 'MODULE_PATHNAME', 'behavior__door_end' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION behavior._door_end() IS 'after a statement that sends events: brings them into the log';
CREATE FUNCTION behavior._door_refuse() RETURNS trigger
	AS 'MODULE_PATHNAME', 'behavior__door_refuse' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION behavior._door_refuse() IS 'raises 0A000: events are neither updated nor deleted';
CREATE FUNCTION behavior._event_row() RETURNS trigger
	AS 'MODULE_PATHNAME', 'behavior__event_row' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION behavior._event_row() IS 'takes one event';
REVOKE ALL ON FUNCTION behavior._door_begin(), behavior._door_end(), behavior._door_refuse(), behavior._event_row() FROM PUBLIC;

CREATE TRIGGER _begin BEFORE INSERT ON behavior.event
	FOR EACH STATEMENT EXECUTE FUNCTION behavior._door_begin();
CREATE TRIGGER _row INSTEAD OF INSERT ON behavior.event
	FOR EACH ROW EXECUTE FUNCTION behavior._event_row();
CREATE TRIGGER _end AFTER INSERT ON behavior.event
	FOR EACH STATEMENT EXECUTE FUNCTION behavior._door_end();
CREATE TRIGGER _refuse BEFORE UPDATE OR DELETE ON behavior.event
	FOR EACH STATEMENT EXECUTE FUNCTION behavior._door_refuse();
CREATE TRIGGER _refuse_row INSTEAD OF UPDATE OR DELETE ON behavior.event
	FOR EACH ROW EXECUTE FUNCTION behavior._door_refuse();
-- Under session_replication_role = replica a trigger that does not fire ALWAYS lets an INSERT report
-- success and store nothing.  Views refuse ALTER TABLE ... ENABLE ALWAYS TRIGGER; the catalog does not.
-- The REVOKE after it makes every session read the triggers again.
UPDATE pg_catalog.pg_trigger SET tgenabled = 'A'
	WHERE tgrelid = 'behavior.event'::pg_catalog.regclass;
REVOKE ALL ON behavior.event FROM PUBLIC;

CREATE FUNCTION behavior.last_batch() RETURNS behavior.batch
	AS 'MODULE_PATHNAME', 'behavior_last_batch' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION behavior.last_batch() IS 'what this session''s last sending statement did; NULL after it was rolled back or when it sent nothing';
GRANT EXECUTE ON FUNCTION behavior.last_batch() TO PUBLIC;

CREATE FUNCTION behavior.find_event(event_id text, source text DEFAULT NULL)
	RETURNS TABLE (status text, source text, received_at timestamptz, batch_id bigint, occurred_at timestamptz, dead_letter_id bigint)
	AS 'MODULE_PATHNAME', 'behavior_find_event' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 2;
COMMENT ON FUNCTION behavior.find_event(text, text) IS 'what became of an event, by its key: one row if it was accepted, and one for each time it conflicted or was refused; source: default is behavior.default_source';
REVOKE ALL ON FUNCTION behavior.find_event(text, text) FROM PUBLIC;

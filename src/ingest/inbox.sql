-- behavior.inbox: JSON events as lines of text; and behavior.ingest(), JSON events as an argument.
CREATE VIEW behavior.inbox AS SELECT NULL::text AS payload WHERE false;
COMMENT ON VIEW behavior.inbox IS 'send JSON events with INSERT or COPY: one or more a row';
COMMENT ON COLUMN behavior.inbox.payload IS 'events in EventBridge, CloudEvents, Segment or native form';

CREATE FUNCTION behavior._inbox_row() RETURNS trigger
	AS 'MODULE_PATHNAME', 'behavior__inbox_row' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION behavior._inbox_row() IS 'takes a row of JSON events';
REVOKE ALL ON FUNCTION behavior._inbox_row() FROM PUBLIC;

CREATE TRIGGER _begin BEFORE INSERT ON behavior.inbox
	FOR EACH STATEMENT EXECUTE FUNCTION behavior._door_begin();
CREATE TRIGGER _row INSTEAD OF INSERT ON behavior.inbox
	FOR EACH ROW EXECUTE FUNCTION behavior._inbox_row();
CREATE TRIGGER _end AFTER INSERT ON behavior.inbox
	FOR EACH STATEMENT EXECUTE FUNCTION behavior._door_end();
CREATE TRIGGER _refuse BEFORE UPDATE OR DELETE ON behavior.inbox
	FOR EACH STATEMENT EXECUTE FUNCTION behavior._door_refuse();
CREATE TRIGGER _refuse_row INSTEAD OF UPDATE OR DELETE ON behavior.inbox
	FOR EACH ROW EXECUTE FUNCTION behavior._door_refuse();
-- ALWAYS, as for behavior.event.
UPDATE pg_catalog.pg_trigger SET tgenabled = 'A'
	WHERE tgrelid = 'behavior.inbox'::pg_catalog.regclass;
REVOKE ALL ON behavior.inbox FROM PUBLIC;

CREATE FUNCTION behavior.ingest(events jsonb, defaults jsonb DEFAULT '{}')
	RETURNS TABLE (ordinal int, event_id text, status text, reason text, dead_letter_id bigint)
	AS 'MODULE_PATHNAME', 'behavior_ingest' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 100;
COMMENT ON FUNCTION behavior.ingest(jsonb, jsonb) IS
'sends one JSON event or an array of at most 10,000 and answers with a receipt for each, in order: accepted, duplicate, conflict or dead_letter; defaults: columns for events that lack them; 22023 when events are neither object nor array or defaults name no column, 54000 when there are too many';
REVOKE ALL ON FUNCTION behavior.ingest(jsonb, jsonb) FROM PUBLIC;

-- behavior.ingest(): receipts, defaults, limits.
\set VERBOSITY terse
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\pset null '-'

\echo -- a receipt for each, in order
SELECT ordinal, event_id, status, reason, dead_letter_id > 0 AS letter FROM behavior.ingest('[{"type":"A","event_id":"a1"}, {"type":"A","event_id":"a2"}, {"type":"A","event_id":"a1"}, {"type":"B","event_id":"a1"},
	{"event_id":"a3"}, {"type":"A","event_id":""}, 5, "x", null, [], {"type":"A","event_id":"a4","size":1}, {"type":"A","event_id":17}, {"specversion":"1.0","id":"a5","type":"A"},
	{"batch":[{"type":"A","event_id":"a6"}, {"type":"A","event_id":"a2"}]}, {"Entries":[{"Source":"s","DetailType":"A","Detail":"{\"event_id\":\"a7\"}"}]}, {"type":"A","event_id":"a8"}]');
SELECT received, accepted, duplicates, conflicts, dead_letters FROM behavior.last_batch();
SELECT reason, event_id, payload FROM behavior.dead_letter ORDER BY dead_letter_id;
SELECT dead_letter_id FROM behavior.ingest('{"type":"C","event_id":"a1"}') \gset
SELECT reason, source, type, event_id FROM behavior.dead_letter WHERE dead_letter_id = :dead_letter_id;
SELECT ordinal, status FROM behavior.ingest('{"type":"A","event_id":"a9","properties":{"deep":[1,{"x":"é\n\"\\"}]}}');
SELECT properties FROM behavior.event WHERE event_id = 'a9';
SELECT ordinal, event_id ~ '^[0-9a-f-]{36}$' AS generated, status FROM behavior.ingest('{"type":"A"}');
SELECT * FROM behavior.ingest('[]');
SELECT count(*) AS batches FROM behavior.batch WHERE received = 0;

\echo -- defaults: columns for events that lack them
SELECT status FROM behavior.ingest('[{"type":"D","event_id":"d1"}, {"event_id":"d2","source":"own","user_id":"","anonymous_id":"own","occurred_at":"2024-05-02","sequence":0,"properties":{},"context":{}},
	{"type":"D","event_id":"d3","source":"","user_id":null,"context":null}, {"id":"d4","detail-type":"E","detail":{"userId":"v"}}]',
	'{"source":"web","type":"Default","user_id":"u","anonymous_id":"a","occurred_at":"2024-05-01T12:00:00Z","sequence":7,"properties":{"p":1},"context":{"c":1},"received_at":"x"}');
SELECT event_id, source, type, user_id, anonymous_id, occurred_at, sequence, properties, context FROM behavior.event WHERE event_id ~ '^d\d$' ORDER BY 1;
SELECT event_id, status FROM behavior.ingest('[{"type":"F"}, {"type":"F"}]', '{"event_id":"once"}');
SELECT status, event_id FROM behavior.ingest('{"colour":1}', '{"source":"kept","event_id":"kept"}');
SELECT source, payload FROM behavior.dead_letter WHERE event_id = 'kept';
SELECT status FROM behavior.ingest('{"type":"G"}', NULL);
\set VERBOSITY default
SELECT * FROM behavior.ingest('{"type":"H"}', '{"colour":"red"}');
\set VERBOSITY sqlstate
SELECT * FROM behavior.ingest('{"type":"H"}', '[]');
SELECT * FROM behavior.ingest('{"type":"H"}', '"x"');
SELECT * FROM behavior.ingest('{"type":"H"}', '{"sequence":"x"}');
SELECT * FROM behavior.ingest('{"type":"H"}', '{"occurred_at":"soon"}');
SELECT * FROM behavior.ingest('{"type":"H"}', '{"properties":[1]}');
SELECT * FROM behavior.ingest('{"type":"H"}', '{"source":{}}');

\echo -- what is no event and no array of them
SELECT * FROM behavior.ingest('5');
SELECT * FROM behavior.ingest('null');
SELECT * FROM behavior.ingest('"{}"');
SELECT * FROM behavior.ingest(NULL);
\set VERBOSITY default
SELECT * FROM behavior.ingest('true');

\echo -- at most 10,000
SELECT count(*), count(DISTINCT event_id), min(status), max(status), bool_and(ordinal::text = event_id) AS in_order
FROM behavior.ingest((SELECT jsonb_agg(jsonb_build_object('type', 'Many', 'event_id', i::text) ORDER BY i) FROM generate_series(1, 10000) i), '{"source":"many"}');
SELECT count(*) FROM behavior.ingest((SELECT jsonb_agg(jsonb_build_object('type', 'Many', 'event_id', i)) FROM generate_series(1, 10001) i));
\set VERBOSITY sqlstate
SELECT count(*) FROM behavior.ingest((SELECT jsonb_build_object('batch', jsonb_agg(jsonb_build_object('type', 'Many', 'event_id', i))) FROM generate_series(1, 10001) i));
SELECT count(*) FROM behavior.ingest(jsonb_build_array((SELECT jsonb_build_object('Entries', jsonb_agg(1)) FROM generate_series(1, 5000) i), (SELECT jsonb_build_object('batch', jsonb_agg(1)) FROM generate_series(1, 5001) i)));
SELECT count(*) FROM behavior.ingest(jsonb_build_object('type', 'x', 'properties', jsonb_build_object('x', repeat('x', 70000000))));
\set VERBOSITY terse
SELECT count(*) FROM behavior.event WHERE type = 'Many';

\echo -- in blocks, savepoints and functions; under on_invalid = error
DO $$
DECLARE
	answer record;
BEGIN
	SELECT * INTO answer FROM behavior.ingest('{"type":"J","event_id":"j1"}');
	BEGIN
		PERFORM behavior.ingest('{"type":"J","event_id":"j2"}');
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		PERFORM behavior.ingest(jsonb_build_object('type', 'J', 'event_id', 'j3', 'properties', jsonb_build_object('first', answer.status)));
	END;
END $$;
SELECT event_id, properties FROM behavior.event WHERE type = 'J' ORDER BY 1;
INSERT INTO behavior.event (event_id, type, properties) SELECT 'k' || i, 'K', to_jsonb(r) - 'dead_letter_id' FROM generate_series(1, 3) i, behavior.ingest(format('{"type":"K","event_id":"l%s"}', i)::jsonb) r;
SELECT event_id, properties->>'event_id' AS inner_id, properties->>'status' AS status FROM behavior.event WHERE type = 'K' ORDER BY 1;
SET behavior.on_invalid = error;
SELECT * FROM behavior.ingest('[{"type":"L","event_id":"m1"}, {"type":"L","event_id":"m2","size":1}]');
SELECT * FROM behavior.ingest('[{"type":"L","event_id":"j1"}]');
DO $$
BEGIN
	INSERT INTO behavior.event (event_id, type) VALUES ('m3', 'N');
	BEGIN
		PERFORM behavior.ingest('[{"type":"N","event_id":"m4"}, 5]');
	EXCEPTION WHEN invalid_text_representation THEN
		PERFORM behavior.ingest('{"type":"N","event_id":"m5"}');
	END;
	PERFORM behavior.ingest('{"type":"N","event_id":"m6"}');
END $$;
RESET behavior.on_invalid;
SELECT event_id FROM behavior.event WHERE type = 'N' ORDER BY 1;
SELECT count(*) FROM behavior.event WHERE type = 'L';
SELECT status FROM behavior.ingest('{"type":"L","event_id":"m1"}');

\echo -- granted by name, and that is enough
CREATE ROLE regress_ingest_sender;
SET ROLE regress_ingest_sender;
SELECT * FROM behavior.ingest('{"type":"M"}');
RESET ROLE;
GRANT EXECUTE ON FUNCTION behavior.ingest(jsonb, jsonb) TO regress_ingest_sender;
SET ROLE regress_ingest_sender;
SELECT ordinal, event_id, status FROM behavior.ingest('{"type":"M","event_id":"o1"}');
SELECT received, role FROM behavior.last_batch();
SELECT * FROM behavior.event;
RESET ROLE;
DROP OWNED BY regress_ingest_sender;
DROP ROLE regress_ingest_sender;

\echo -- in a transaction that may not write
\set VERBOSITY default
BEGIN READ ONLY;
SELECT * FROM behavior.ingest('{"type":"N"}');
ROLLBACK;

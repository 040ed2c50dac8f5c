-- behavior.redrive() of stage ingest: dead letters through the whole door again.
\set VERBOSITY default
\pset null '-'
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;

\echo -- after the schema was mended, in one transaction with it
SELECT behavior.create_event_type('order', '{"required": ["price"]}');
INSERT INTO behavior.event (event_id, source, type, user_id, occurred_at, sequence, properties, context)
	VALUES ('a1', 'shop', 'order', 'ann', '2024-05-01 10:00+02', 3, '{"sum": 1.50}', '{"ip": "::1"}');
INSERT INTO behavior.event (event_id, type) VALUES ('a2', 'order'), ('a3', '');
SELECT * FROM behavior.redrive(dry_run => true);
SELECT count(*), count(redriven_at), max(attempts) FROM behavior.dead_letter;
BEGIN;
SELECT behavior.alter_event_type('order', NULL);
SELECT * FROM behavior.redrive('schema_violation', dry_run => true);
SELECT * FROM behavior.redrive('schema_violation');
SELECT * FROM behavior.redrive('schema_violation');
SELECT event_id, source, type, user_id, CASE event_id WHEN 'a1' THEN occurred_at END AS occurred_at, sequence, properties, context FROM behavior.event ORDER BY event_id;
ROLLBACK;
SELECT count(*) FROM behavior.event;
SELECT count(redriven_at) FROM behavior.dead_letter;
BEGIN;
SELECT behavior.alter_event_type('order', NULL);
SELECT * FROM behavior.redrive('schema_violation');
SELECT received, accepted, duplicates, conflicts, dead_letters FROM behavior.last_batch();
COMMIT;
SELECT event_id, source, type, user_id, sequence, properties, context FROM behavior.event ORDER BY event_id;
\echo -- the time of an event that named none is that of its first arrival, and a retry of the sender is a duplicate
SELECT e.occurred_at = d.received_at AS then_received, e.received_at > d.received_at AS stored_later
	FROM behavior.event e JOIN behavior.dead_letter d USING (event_id) WHERE event_id = 'a2';
INSERT INTO behavior.event (event_id, type) VALUES ('a2', 'order');
SELECT duplicates FROM behavior.last_batch();

\echo -- what fails again is a new letter with its history
SELECT dead_letter_id AS first FROM behavior.dead_letter WHERE event_id = 'a3' \gset
SELECT status, reason FROM behavior.redrive();
SELECT status, reason FROM behavior.redrive();
WITH RECURSIVE history AS (
	SELECT * FROM behavior.dead_letter WHERE event_id = 'a3' AND redriven_at IS NULL
	UNION ALL SELECT d.* FROM behavior.dead_letter d JOIN history h ON d.dead_letter_id = h.previous
)
SELECT attempts, reason, previous IS NOT NULL AS has_previous, redriven_at IS NOT NULL AS redriven, dead_letter_id = :first AS is_first,
	received_at = (SELECT received_at FROM behavior.dead_letter WHERE dead_letter_id = :first) AS same_time
	FROM history ORDER BY attempts;
SELECT sum(received) = sum(accepted + duplicates + conflicts + dead_letters) AS adds_up,
	sum(dead_letters + conflicts) = (SELECT count(*) FROM behavior.dead_letter) AS all_kept FROM behavior.batch;

\echo -- a merge patch
SELECT status, reason FROM behavior.redrive(patch => '{"type": "order", "properties": {"mended": true, "nothing": null}}');
SELECT type, properties FROM behavior.event WHERE event_id = 'a3';
SELECT behavior.redrive(patch => '[]');
SELECT behavior.redrive(patch => 'null');
SELECT behavior.redrive(patch => '5');
\echo -- of what no jsonb can hold, and leaving the rest as it stands
INSERT INTO behavior.inbox VALUES
	('{"event_id": "b1", "type": "p", "properties": {"note": "\u0000", "n": 1.0e2, "deep": {"a": "\ud800", "b": {"c": [1, {"d": null}]}}}}'),
	('{"event_id": "b2", "type": "p", "\u0000": 1}'),
	('{"event_id": "b3", "type": "p", "note":1 , "note" : 2,"a":{}, "properties":{"note":3}}'),
	('{"event_id": "b4", "type": "p", "properties": [1]}'),
	('{"event_id": "b5", "type": "p", "properties": {"size": 1}, "extra": {"x": 1}}');
SELECT event_id, reason FROM behavior.dead_letter WHERE redriven_at IS NULL ORDER BY dead_letter_id;
SELECT status, reason FROM behavior.redrive(patch => '{"note": null, "a": null, "extra": null, "properties": {"note": null, "deep": {"a": null, "b": {"e": {"f": {"g": null, "é\"": 1}}}}}}');
SELECT event_id, properties FROM behavior.event WHERE type = 'p' ORDER BY 1;
SELECT event_id, reason, payload FROM behavior.dead_letter WHERE redriven_at IS NULL ORDER BY dead_letter_id;
TRUNCATE behavior.dead_letter;

\echo -- defaults of every door count as they did
SET behavior.default_source = 'then';
INSERT INTO behavior.event (event_id, type) VALUES ('c1', '');
INSERT INTO behavior.inbox VALUES ('{"event_id": "c2"}');
SELECT status FROM behavior.ingest('{"event_id": "c3", "colour": 1}', '{"type": "d", "source": "web", "user_id": "u", "properties": {"p": 1}, "occurred_at": "2024-01-01"}');
SELECT status FROM behavior.ingest('{"batch": [{"messageId": "c4", "userId": "u"}], "sentAt": "2024-01-01", "context": {"ip": "::1"}}', '{"source": "lib"}');
INSERT INTO behavior.inbox VALUES ('{"Entries": [{"Source": "app", "Time": "2024-01-01T00:00:00Z", "Detail": "{\"event_id\": \"c5\"}", "Resources": ["r"]}], "EndpointId": "x"}');
INSERT INTO behavior.inbox VALUES ('{"batch": [[{"event_id": "c6", "type": "x"}], {"batch": [], "event_id": "c7"}]}');
RESET behavior.default_source;
SELECT event_id, source, reason, sent_with FROM behavior.dead_letter ORDER BY dead_letter_id;
\echo -- and stay with what fails again
SELECT status, reason FROM behavior.redrive();
SELECT event_id, source, reason, sent_with, attempts FROM behavior.dead_letter WHERE redriven_at IS NULL ORDER BY dead_letter_id;
SELECT status, reason FROM behavior.redrive('missing_field', patch => '{"type": "d", "DetailType": "d"}');
SELECT status, reason FROM behavior.redrive('missing_field', patch => '{"type": "d", "DetailType": null}');
SELECT status, reason FROM behavior.redrive('unknown_field', patch => '{"colour": null, "DetailType": null}');
SELECT event_id, source, type, user_id, properties, context FROM behavior.event WHERE event_id LIKE 'c_' ORDER BY 1;
SELECT event_id, occurred_at FROM behavior.event WHERE event_id IN ('c3', 'c5') ORDER BY 1;
SELECT event_id, reason, payload FROM behavior.dead_letter WHERE redriven_at IS NULL ORDER BY dead_letter_id;
TRUNCATE behavior.dead_letter;

\echo -- conflicts, duplicates and twins
INSERT INTO behavior.event (event_id, type) VALUES ('d1', 'x');
INSERT INTO behavior.event (event_id, type) VALUES ('d1', 'y');
INSERT INTO behavior.event (event_id, type, occurred_at) VALUES ('d2', 'x', 'infinity'), ('d2', 'x', 'infinity');
SELECT status, reason FROM behavior.redrive();
SELECT event_id, reason, attempts FROM behavior.dead_letter WHERE redriven_at IS NULL ORDER BY dead_letter_id;
SELECT status, reason FROM behavior.redrive('invalid_timestamp', patch => '{"occurred_at": "2024-06-01T00:00:00Z"}');
SELECT status, reason FROM behavior.redrive('id_conflict', patch => '{"event_id": "d3"}');
SELECT event_id, type FROM behavior.event WHERE event_id LIKE 'd_' ORDER BY 1;

\echo -- conflicts found when many events are written at once keep what each came with
SELECT event_id, status FROM behavior.ingest('[{"event_id": "e1"}, {"event_id": "e1", "properties": {"n": 2}}, {"event_id": "e2", "type": "own"},
	{"batch": [{"event_id": "e1", "properties": {"n": 3}}], "sentAt": "one"}, {"batch": [{"event_id": "e1", "properties": {"n": 4}}, {"event_id": "e1", "properties": {"n": 5}}], "sentAt": "two"},
	{"event_id": "e2", "properties": {"n": 6}}]', '{"source": "app", "type": "x", "context": {"ip": "::1"}}');
INSERT INTO behavior.inbox VALUES ('{"event_id": "e3", "type": "x"} {"batch": [{"event_id": "e3", "type": "y"}], "lib": 7} {"event_id": "e3", "type": "z"}');
SELECT event_id, payload, sent_with FROM behavior.dead_letter WHERE redriven_at IS NULL ORDER BY dead_letter_id;
SELECT status FROM behavior.redrive(patch => '{"event_id": null}');
SELECT source, type, properties, context FROM behavior.event WHERE properties ? 'n' OR type IN ('y', 'z') ORDER BY properties ->> 'n', type, context;
\echo -- what became of an event
SELECT status, dead_letter_id IS NOT NULL AS letter FROM behavior.find_event('d1');

\echo -- whose payload is not all there, or no JSON
TRUNCATE behavior.dead_letter;
INSERT INTO behavior.inbox SELECT jsonb_build_object('event_id', 'f1', 'type', 'x', 'properties', jsonb_build_object('x', repeat('x', 1100000)))::text;
INSERT INTO behavior.inbox VALUES ('{"event_id": "f2"'), ('{"event_id": "f3", "type": "x"} garbage'), (NULL);
SELECT behavior._dead_letter('ingest', 1, 's', 't', 'f4', '\x7b2261223a20225c807d', NULL) > 0 AS bytes;
SELECT reason, payload_intact, octet_length(payload) FROM behavior.dead_letter ORDER BY dead_letter_id;
SELECT status, reason FROM behavior.redrive(patch => '{"type": "y"}');
SELECT status, reason FROM behavior.redrive();
SELECT event_id, reason, attempts, redriven_at IS NULL AS waits FROM behavior.dead_letter ORDER BY dead_letter_id;
TRUNCATE behavior.dead_letter;

\echo -- behavior.on_invalid = error aborts no redrive
INSERT INTO behavior.event (event_id, type) VALUES ('g1', ''), ('g2', '');
SET behavior.on_invalid = error;
SELECT status, reason FROM behavior.redrive();
RESET behavior.on_invalid;

\echo -- by reason, projection and time
TRUNCATE behavior.dead_letter;
INSERT INTO behavior.event (event_id, type, occurred_at) VALUES ('h1', '', NULL), ('h2', 'x', 'infinity');
SELECT status, reason FROM behavior.redrive('none');
SELECT status, reason FROM behavior.redrive('invalid_timestamp', 'none');
SELECT status, reason FROM behavior.redrive(since => clock_timestamp());
SELECT status, reason FROM behavior.redrive(until => (SELECT min(failed_at) FROM behavior.dead_letter));
SELECT status, reason FROM behavior.redrive(since => (SELECT min(failed_at) FROM behavior.dead_letter), until => clock_timestamp(), dry_run => true);
SELECT status, reason FROM behavior.redrive('invalid_timestamp');
SELECT count(*) FROM behavior.dead_letter WHERE redriven_at IS NOT NULL;
\echo -- the letters of a dry run are where they were, and its batch is gone
SELECT count(*) AS letters, (SELECT count(*) FROM behavior.batch) AS batches FROM behavior.dead_letter \gset before_
SELECT status, reason FROM behavior.redrive(patch => '{"type": "x", "occurred_at": null}', dry_run => true);
SELECT count(*) = :before_letters AS same_letters, (SELECT count(*) FROM behavior.batch) = :before_batches AS same_batches FROM behavior.dead_letter;
SELECT count(*) FROM behavior.event WHERE event_id LIKE 'h_';

\echo -- many, in one batch; by a role that may do nothing else
TRUNCATE behavior.dead_letter;
INSERT INTO behavior.event (event_id, type, properties) SELECT 'k' || i, 'k', '[]' FROM generate_series(1, 2500) i;
CREATE ROLE regress_redrive;
SET ROLE regress_redrive;
SELECT count(*) FROM behavior.redrive();
RESET ROLE;
GRANT EXECUTE ON FUNCTION behavior.redrive(text, text, timestamptz, timestamptz, jsonb, boolean) TO regress_redrive;
SET ROLE regress_redrive;
SELECT status, reason, count(*) FROM behavior.redrive(patch => '{"properties": {"n": 1}}') GROUP BY 1, 2;
RESET ROLE;
SELECT received, accepted, role FROM behavior.last_batch();
REVOKE EXECUTE ON FUNCTION behavior.redrive(text, text, timestamptz, timestamptz, jsonb, boolean) FROM regress_redrive;
SELECT count(*) FROM behavior.event WHERE type = 'k' AND properties = '{"n": 1}';
SELECT count(*) FROM behavior.redrive();
DROP ROLE regress_redrive;

\echo -- in subtransactions and functions
INSERT INTO behavior.event (event_id, type, properties) VALUES ('q1', 'q', '[]');
DO $$
BEGIN
	BEGIN
		PERFORM behavior.redrive(patch => '{"properties": {}}');
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		NULL;
	END;
	IF (SELECT redriven_at IS NOT NULL FROM behavior.dead_letter WHERE event_id = 'q1') THEN
		RAISE 'not rolled back';
	END IF;
	PERFORM behavior.redrive(patch => '{"properties": {"q": 2}}');
END $$;
SELECT event_id, properties FROM behavior.event WHERE type = 'q';
BEGIN READ ONLY;
SELECT * FROM behavior.redrive();
ROLLBACK;

\echo -- the merge patch itself: the cases of RFC 7396, and random documents against the same in PL/pgSQL
SELECT document, patch, result, behavior._json_merge_patch(document, patch)::jsonb = result AS ok FROM (VALUES
	('{"a":"b"}', '{"a":"c"}'::jsonb, '{"a":"c"}'::jsonb), ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'), ('{"a":"b"}', '{"a":null}', '{}'),
	('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'), ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'), ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
	('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'), ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
	('["a","b"]', '["c","d"]', '["c","d"]'), ('{"a":"b"}', '["c"]', '["c"]'), ('{"a":"foo"}', 'null', 'null'), ('{"a":"foo"}', '"bar"', '"bar"'),
	('{"e":null}', '{"a":1}', '{"e":null,"a":1}'), ('[1,2]', '{"a":"b","c":null}', '{"a":"b"}'), ('{}', '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}')) t (document, patch, result);
SELECT behavior._json_merge_patch(' { "a" : 1.50 , "b" : { "c":"\ud800" , "d" : [ ] } } ', '{"b": {"d": null}, "e": "é\"\\"}');
SELECT behavior._json_merge_patch('{"a": 1} 2', '{}') IS NULL AND behavior._json_merge_patch('{"a"', '{}') IS NULL AS no_json;
CREATE FUNCTION pg_temp.merge(target jsonb, patch jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	key text;
	value jsonb;
	result jsonb := '{}';
BEGIN
	IF jsonb_typeof(patch) <> 'object' THEN
		RETURN patch;
	END IF;
	IF jsonb_typeof(target) = 'object' THEN
		result := target;
	END IF;
	FOR key, value IN SELECT * FROM jsonb_each(patch) LOOP
		IF jsonb_typeof(value) = 'null' THEN
			result := result - key;
		ELSE
			result := result || jsonb_build_object(key, pg_temp.merge(result -> key, value));
		END IF;
	END LOOP;
	RETURN result;
END $$;
CREATE FUNCTION pg_temp.random_json(depth int) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	kind int := floor(random() * CASE WHEN depth > 0 THEN 9 ELSE 4 END);
BEGIN
	RETURN CASE kind
		WHEN 0 THEN 'null' WHEN 1 THEN to_jsonb(floor(random() * 3)) WHEN 2 THEN '"a\"b"' WHEN 3 THEN 'true'
		WHEN 4 THEN (SELECT coalesce(jsonb_agg(pg_temp.random_json(depth - 1)), '[]') FROM generate_series(1, floor(random() * 3)::int))
		ELSE (SELECT coalesce(jsonb_object_agg((ARRAY['a', 'b', 'c', 'd"', 'é'])[1 + floor(random() * 5)::int], pg_temp.random_json(depth - 1)), '{}')
			FROM generate_series(1, floor(random() * 5)::int))
	END;
END $$;
SELECT setseed(0.7396);
SELECT count(*) AS tried, count(DISTINCT document::text || patch) > 500 AS many, count(*) FILTER (WHERE behavior._json_merge_patch(document::text, patch)::jsonb IS DISTINCT FROM pg_temp.merge(document, patch)) AS wrong
	FROM (SELECT pg_temp.random_json(4) AS document, pg_temp.random_json(4) AS patch FROM generate_series(1, 2000)) t;

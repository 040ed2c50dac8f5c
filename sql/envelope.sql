-- JSON forms: how each is recognised, and what becomes of each of its keys.
SET client_min_messages = warning;
SET timezone = 'Asia/Tokyo';	-- must not matter
SET datestyle = 'German';
\pset null '-'

-- Sends one row to the inbox and shows what it became.
CREATE FUNCTION pg_temp.take(payload text) RETURNS TABLE (refused text, event_id text, source text, type text, user_id text, anonymous_id text,
	occurred_at text, seq bigint, properties jsonb, context jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
	this bigint;
BEGIN
	INSERT INTO behavior.inbox VALUES (payload);
	this := (behavior.last_batch()).batch_id;
	RETURN QUERY
	SELECT NULL, CASE WHEN event_id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-4' THEN '(random)' ELSE event_id END, source, type, user_id, anonymous_id,
		CASE WHEN occurred_at = received_at THEN '(now)' ELSE to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') END,
		sequence, properties, context
	FROM behavior.event WHERE batch_id = this ORDER BY event_id COLLATE "C";
	RETURN QUERY
	SELECT reason || ': ' || detail, event_id, source, type, NULL, NULL, NULL, NULL::bigint, NULL::jsonb, NULL::jsonb
	FROM behavior.dead_letter WHERE batch_id = this ORDER BY dead_letter_id;
END $$;

\echo -- EventBridge
SELECT t.* FROM pg_temp.take('{"version": "0", "id": "aws-1", "detail-type": "PageView", "source": "web", "account": "1234", "time": "2024-05-01T10:00:00Z", "region": "eu-central-1",
	"resources": [], "detail": {"event_id": "e1", "eventId": "no", "userId": "u1", "anonymousId": "a1", "sequence": 3, "page": "/"}}') t \gx
SELECT t.event_id, t.user_id, t.anonymous_id, t.seq, t.context, t.refused FROM unnest(ARRAY[
	'{"id": "b1", "detail-type": "x", "detail": {"eventId": "b2", "idempotency_key": "b3", "user_id": 7, "anonymous_id": "", "sequence": "4"}}',
	'{"id": "b4", "detail-type": "x", "detail": {"idempotency_key": 12.0, "userId": "", "customer": {"id": "c1", "userId": "c2"}, "sequence": 1.5}}',
	'{"id": "b5", "detail-type": "x", "detail": {"event_id": null, "userId": null, "user_id": {"no": 1}, "customer": {"userId": "c2"}, "sequence": 1e3}}',
	'{"id": "b6", "detail-type": "x", "detail": {"event_id": {}, "customer": "c3", "sequence": null}}',
	'{"id": "b7", "detail-type": "x"}', '{"detail-type": "x", "detail": null, "specversion": "1.0", "messageId": "m", "batch": []}',
	'{"id": "b8", "detail-type": "x", "detail": [1]}', '{"id": "b9", "detail-type": ["x"]}', '{"id": "b10", "detail-type": null}', '{"id": true, "detail-type": "x"}',
	'{"id": "b11", "detail-type": "x", "time": "May 1st"}']) AS row (line), LATERAL pg_temp.take(line) t;

\echo -- CloudEvents
SELECT t.* FROM pg_temp.take('{"specversion": "1.0", "id": "ce1", "source": "/shop", "type": "com.example.order", "time": "2024-05-01T12:00:00+02:00", "subject": "s1",
	"datacontenttype": "application/json", "sequence": 9, "tenant": "t", "data": {"order": 1}}') t \gx
SELECT t.event_id, t.user_id, t.anonymous_id, t.seq, t.properties, t.context, t.refused FROM unnest(ARRAY[
	'{"specversion": "1.0", "id": "ce2", "type": "x", "subject": "s", "data": {"userId": "u", "anonymousId": "a"}}',
	'{"specversion": "1.0", "id": "ce3", "type": "x", "data": "text", "sequence": "0001"}', '{"specversion": "1.0", "id": "ce4", "type": "x", "data": [1, 2], "subject": ""}',
	'{"specversion": "1.0", "id": "ce5", "type": "x", "data": null}', '{"specversion": "1.0", "id": "ce6", "type": "x", "data_base64": "AAA="}',
	'{"specversion": "1.0", "id": 5, "type": "x", "messageId": "m"}', '{"specversion": "1.0", "id": ["ce7"], "type": "x"}', '{"specversion": "1.0", "id": "ce8", "type": 5}',
	'{"specversion": "1.0", "id": "ce9", "source": {}, "type": "x"}', '{"specversion": "1.0", "id": "ce10"}']) AS row (line), LATERAL pg_temp.take(line) t;

\echo -- Segment
SELECT t.* FROM pg_temp.take('{"type": "track", "event": "Order Completed", "messageId": "seg1", "userId": "u1", "anonymousId": "a1", "timestamp": "2024-05-01T10:00:00.5Z",
	"originalTimestamp": "2024-05-01T09:00:00Z", "sentAt": "2024-05-01T10:00:01Z", "channel": "browser", "integrations": {"All": true},
	"properties": {"total": 9.90, "name": "mine"}, "name": "theirs", "category": "c", "context": {"ip": "::1", "channel": "mobile"}}') t \gx
SELECT t.event_id, t.source, t.type, t.user_id, t.anonymous_id, t.occurred_at, t.properties, t.context, t.refused FROM unnest(ARRAY[
	'{"type": "page", "userId": "u", "name": "Home", "category": "Docs", "originalTimestamp": 1714557600}',
	'{"type": "screen", "anonymousId": "a", "name": "Start", "properties": {"name": "own"}}',
	'{"type": "identify", "messageId": "seg2", "userId": 42, "traits": {"email": "x@example.com"}, "timestamp": null, "originalTimestamp": "2024-05-01"}',
	'{"type": "group", "userId": "u", "groupId": "g", "traits": {"plan": "pro"}}', '{"type": "alias", "userId": "u", "previousId": "p"}',
	'{"type": "track", "userId": "u", "properties": {"a": 1}, "traits": {"b": 2}}', '{"messageId": "seg3", "event": "NoType", "userId": null, "anonymousId": "", "anonymous_id": "a"}',
	'{"messageId": "seg4", "type": "custom", "event": "kept"}', '{"messageId": "seg5", "type": "track", "event": "x", "properties": {"userId": "u5"}}',
	'{"messageId": "seg6", "type": "track", "event": "x", "anonymousId": "a6", "properties": {"userId": "somebody else"}}',
	'{"messageId": "seg7"}', '{"messageId": "seg8", "type": "track", "event": "x", "context": "no"}', '{"messageId": "seg9", "type": "page", "properties": [1]}',
	'{"messageId": "seg10", "type": "page", "userId": true}', '{"messageId": "seg11", "type": "page", "context": null, "properties": null}',
	'{"type": "page", "user_id": "native, with an unknown key", "event": 1}']) AS row (line), LATERAL pg_temp.take(line) t;

\echo -- native
SELECT t.* FROM pg_temp.take('{"event_id": "n1", "source": "web", "type": "PageView", "user_id": "u", "anonymous_id": "a", "occurred_at": "2024-05-01T10:00:00",
	"sequence": 5, "properties": {"p": 1}, "context": {"c": 1}, "actor": "no", "received_at": "no", "batch_id": "no", "tick_id": []}') t \gx
SELECT t.* FROM unnest(ARRAY[
	'{"type": "x"}', '{"event_id": null, "source": null, "type": "x", "user_id": null, "anonymous_id": null, "occurred_at": null, "sequence": null, "properties": null, "context": null}',
	'{"event_id": "n2", "source": "", "type": "x", "user_id": "", "anonymous_id": ""}', '{"event_id": "", "type": "x"}', '{"event_id": "n3", "type": ""}', '{"event_id": "n4"}', '{}',
	'{"event_id": "n5", "type": "x", "colour": "red", "size": 1}', '{"event_id": "n6", "type": "x", "Type": "y"}', '{"event_id": "n7", "type": "a", "type": "b", "event_id": "n8"}',
	'{"event_id": false, "type": "x"}', '{"event_id": "n9", "type": {"a": 1}}', '{"event_id": "n10", "type": "x", "user_id": []}', '{"event_id": "n11", "type": "x", "source": true}',
	'{"event_id": "n12", "type": "x", "sequence": "1"}', '{"event_id": "n13", "type": "x", "sequence": 1.5}', '{"event_id": "n14", "type": "x", "sequence": 9223372036854775808}',
	'{"event_id": "n15", "type": "x", "sequence": -9223372036854775808}', '{"event_id": "n16", "type": "x", "sequence": 12.0e1}', '{"event_id": "n17", "type": "x", "properties": 1}',
	'{"event_id": "n18", "type": "x", "properties": "{}"}', '{"event_id": "n19", "type": "x", "context": []}', '{"event_id": "n20", "type": "x", "occurred_at": {}}',
	'{"event_id": "n21", "type": 7, "detail": 1}', '{"event_id": "n22", "type": "x", "batch": 1}', '{"event_id": "n23", "type": "x", "Entries": {}}']) AS row (line), LATERAL pg_temp.take(line) t;

\echo -- ids that are numbers: as they stand, or as jsonb shows them
SELECT id, left(t.event_id, 40) AS event_id, left(t.user_id, 40) AS user_id, left(t.refused, 9) AS refused FROM unnest(ARRAY['1', '1.0', '1.50', '-3', '0', '-0', '-0.0', '1e2', '1E-2', '-1.5e1', '123456789012345678901234567890', '1e400']) AS number (id),
	LATERAL pg_temp.take(format('{"type": "Number", "event_id": %s, "user_id": %s}', id, id)) t;

\echo -- times: RFC 3339 or epoch, UTC where there is no offset
SELECT at, t.occurred_at, t.refused FROM unnest(ARRAY['"2024-05-01T10:00:00Z"', '"2024-05-01 10:00:00"', '"2024-05-01T10:00:00.1234567-05:30"', '"2024-05-01"', '"2016-12-31T23:59:60Z"',
	'1714557600', '1714557600000', '1714557600123', '1714557600.0', '1.7145576e9', '0', '-1', '99999999999', '100000000000', '-62135596800', '-62135596801', '253402300799999',
	'"0000-01-01T00:00:00Z"', '"300000-01-01T00:00:00Z"', '"infinity"', '"-infinity"', '"now"', '"today"', '"yesterday"', '""', '"1714557600"', '1714557600.5', '1e300', '253402300800000',
	'-1e12', '9223372036854775807', 'true', '["2024-05-01"]', '"2024-05-01T10:00:00 Europe/Berlin"', '"01.05.2024"']) AS time (at),
	LATERAL pg_temp.take(format('{"type": "Time", "occurred_at": %s}', at)) t;

\echo -- batches: each event for itself, what is around them in the context of each
SELECT t.* FROM pg_temp.take('{"batch": [{"type": "track", "event": "B1", "messageId": "bt1", "userId": "u", "context": {"ip": "own"}},
	{"type": "B2", "event_id": "bt2"}, {"type": "B3", "event_id": "bt3", "context": {"x": 1}}, {"detail-type": "B4", "id": "bt4", "sentAt": "own"}, {"type": "x", "colour": 1}, 5, null, [],
	{"batch": [{"type": "x"}]}, {"messageId": "bt5", "type": "page", "properties": {"a": "\u0000"}}, {"type": "B6", "event_id": "bt6", "context": null}],
	"sentAt": "2024-05-01T10:00:00Z", "writeKey": "w", "context": {"ip": "::1", "app": "a"}}') t;
SELECT t.* FROM unnest(ARRAY['{"batch": [], "sentAt": "x"}', '{"batch": [{"type": "x", "event_id": "bt7"}], "sentAt": "\ud800"}', '{"batch": [{"type": "x", "event_id": "bt8"}], "\u0000": 1}',
	'{"batch": {"type": "x"}}', '{"messageId": "whole", "batch": [{"type": "B9", "event_id": "bt9"}]}']) AS row (line), LATERAL pg_temp.take(line) t;

\echo -- PutEvents
SELECT t.* FROM pg_temp.take('{"Entries": [
	{"Source": "shop", "DetailType": "Order", "Detail": "{\"event_id\":\"pe1\",\"customer\":{\"id\":9},\"sequence\":2,\"total\":1.10}", "Time": 1714557600, "EventBusName": "main", "Resources": ["r"]},
	{"Source": "shop", "DetailType": "Order", "Detail": "{\"event_id\":\"pe2\",\"name\":\"\\u00e9\"}", "Time": "2024-05-01T10:00:00Z"},
	{"Source": "shop", "DetailType": "Order", "Detail": {"event_id": "pe3"}},
	{"Source": "shop", "DetailType": "Order", "Detail": "{\"event_id\":\"pe4\""}, {"Source": "shop", "DetailType": "Order", "Detail": "{} {}"},
	{"Source": "shop", "DetailType": "Order", "Detail": "[1]"}, {"Source": "shop", "DetailType": "Order", "Detail": "{\"event_id\":\"pe5\",\"x\":\"\\u0000\"}"},
	{"Source": "shop", "Detail": "{\"event_id\":\"pe6\"}"}, {"Source": "shop", "DetailType": "NoDetail"}, {"Source": "shop", "DetailType": "x", "Detail": 7}, "x"], "EndpointId": "e"}') t;

\echo -- the payload of a dead letter is its own slice of the text
SELECT payload FROM behavior.dead_letter WHERE event_id IN ('bt7', 'pe4', 'pe6', 'n5', 'e9') OR detail LIKE 'an event must%' ORDER BY dead_letter_id;

\echo -- the same event through any two doors is one event
INSERT INTO behavior.event (event_id, source, type, user_id, anonymous_id, occurred_at, sequence, properties)
	VALUES ('same', 'web', 'View', 'u', 'a', '2024-05-01 10:00:00.25Z', 100, '{"price": 1.50, "tags": ["x", null]}');
INSERT INTO behavior.inbox VALUES
	('{"event_id":"same","source":"web","type":"View","user_id":"u","anonymous_id":"a","occurred_at":"2024-05-01T12:00:00.250+02:00","sequence":100,"properties":{"tags":["x",null],"price":1.5}}'),
	('{"properties":{"price":1.50,"tags":["x",null]},"sequence":1e2,"occurred_at":1714557600250,"anonymous_id":"a","user_id":"u","type":"View","source":"web","event_id":"same","context":{"retry":1}}');
SELECT status FROM behavior.ingest('{"event_id":"same","source":"web","type":"View","user_id":"u","anonymous_id":"a","occurred_at":"2024-05-01 10:00:00.25","sequence":100.0,"properties":{"price":150e-2,"tags":["x",null]}}');
SELECT status, reason FROM behavior.ingest('{"event_id":"same","source":"web","type":"View","user_id":"u","anonymous_id":"a","occurred_at":"2024-05-01 10:00:00.26","sequence":100,"properties":{"price":1.5,"tags":["x",null]}}');
SELECT status FROM behavior.ingest('[{"specversion":"1.0","id":1e1,"source":"s","type":"t","data":{"userId":"u","n":1}},
	{"id":"other","detail-type":"t","source":"s","detail":{"event_id":10,"user_id":"u"}},
	{"event_id":"10","source":"s","type":"t","user_id":"u","properties":{"userId":"u","n":1.0}}]');
SELECT count(*), sum((event_id = 'same')::int) AS same FROM behavior.event WHERE event_id IN ('same', '10');

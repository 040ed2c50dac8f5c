-- Declared types of events: create, alter, drop, the catalog, and the gate at every door.
\set VERBOSITY default
\pset null '-'
SET timezone = 'UTC';

\echo -- the catalog keeps every version
SELECT behavior.create_event_type('order', '{"type": "object", "required": ["price"], "properties": {"price": {"type": "number"}}}');
SELECT behavior.create_event_type('visit');
SELECT behavior.create_event_type('order', '{"required": ["sum"]}', 'shop');
SELECT type, source, version, schema, owner = current_user AS owned, created_at <= clock_timestamp() AS dated, retired_at, current
	FROM behavior.event_type ORDER BY type, source COLLATE "C", version;
SELECT behavior.alter_event_type('visit', '{"type": "object"}');
SELECT behavior.alter_event_type('visit', NULL);
\echo -- the same schema again changes nothing
SELECT behavior.alter_event_type('visit', NULL);
SELECT behavior.alter_event_type('order', '{"required": ["sum"]}', 'shop');
SELECT behavior.drop_event_type('order', 'shop');
SELECT behavior.create_event_type('order', '{"required": ["sum"]}', 'shop');
SELECT type, source, version, schema, retired_at IS NOT NULL AS retired, current
	FROM behavior.event_type ORDER BY type, source COLLATE "C", version;
SELECT behavior.create_event_type('order', NULL, if_not_exists => true);
SELECT count(*) FROM behavior.event_type WHERE type = 'order' AND source = '*';

\echo -- what cannot be declared
SELECT behavior.create_event_type('order');
SELECT behavior.create_event_type('order', NULL, 'shop');
SELECT behavior.create_event_type('bad', '5');
SELECT behavior.create_event_type('bad', '{"type": "nothing"}');
SELECT behavior.create_event_type('bad', '{"properties": {"a": {"minLength": -1}}}');
SELECT behavior.alter_event_type('order', '{"required": "price"}');
SELECT behavior.create_event_type('');
SELECT behavior.create_event_type(NULL);
SELECT behavior.create_event_type('x', NULL, '');
SELECT behavior.create_event_type('x', NULL, NULL);
SELECT behavior.create_event_type(repeat('x', 256));
SELECT behavior.alter_event_type('none', NULL);
SELECT behavior.alter_event_type('visit', NULL, 'shop');
SELECT behavior.drop_event_type('none');
SELECT behavior.drop_event_type('order', 'none');
BEGIN READ ONLY;
SELECT behavior.create_event_type('x');
ROLLBACK;

\echo -- altering and dropping belongs to the owner
CREATE ROLE regress_type_owner;
CREATE ROLE regress_type_other;
SET ROLE regress_type_owner;
SELECT behavior.create_event_type('mine');
RESET ROLE;
GRANT EXECUTE ON FUNCTION behavior.create_event_type(text, jsonb, text, boolean), behavior.alter_event_type(text, jsonb, text),
	behavior.drop_event_type(text, text) TO regress_type_owner, regress_type_other;
SET ROLE regress_type_owner;
SELECT behavior.create_event_type('mine');
SET ROLE regress_type_other;
SELECT behavior.alter_event_type('mine', '{}');
SELECT behavior.drop_event_type('mine');
SELECT * FROM behavior.event_type;
RESET ROLE;
GRANT regress_type_owner TO regress_type_other;
SET ROLE regress_type_other;
SELECT behavior.alter_event_type('mine', '{}');
RESET ROLE;
SELECT version, owner, current FROM behavior.event_type WHERE type = 'mine' ORDER BY version;
REVOKE EXECUTE ON FUNCTION behavior.create_event_type(text, jsonb, text, boolean), behavior.alter_event_type(text, jsonb, text),
	behavior.drop_event_type(text, text) FROM regress_type_owner, regress_type_other;
DROP ROLE regress_type_other;
DROP ROLE regress_type_owner;
\echo -- of a role that is gone: events are checked as before, and only the owner of the extension may change it
SELECT version, owner, current FROM behavior.event_type WHERE type = 'mine' ORDER BY version;
SELECT behavior.alter_event_type('mine', '{"required": ["a"]}');
BEGIN;
SET LOCAL client_min_messages = warning;
INSERT INTO behavior.event (event_id, type) VALUES ('m1', 'mine');
SELECT errors -> 'version' AS version FROM behavior.dead_letter WHERE event_id = 'm1';
ROLLBACK;
CREATE ROLE regress_type_other;
GRANT EXECUTE ON FUNCTION behavior.alter_event_type(text, jsonb, text) TO regress_type_other;
SET ROLE regress_type_other;
SELECT behavior.alter_event_type('mine', '{}');
RESET ROLE;
SELECT behavior.reassign_owned('regress_type_owner', 'regress_type_other'), behavior.reassign_owned('regress_type_owner', 'regress_type_other') AS again;
SET ROLE regress_type_other;
SELECT behavior.alter_event_type('mine', '{}');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION behavior.alter_event_type(text, jsonb, text) FROM regress_type_other;
SELECT version, owner, current FROM behavior.event_type WHERE type = 'mine' ORDER BY version;
SELECT behavior.drop_event_type('mine');
DROP ROLE regress_type_other;

\echo -- the gate, at every door
SET client_min_messages = warning;
INSERT INTO behavior.event (event_id, type, properties) VALUES ('e1', 'order', '{"price": 1}'), ('e2', 'order', '{"price": "1"}'),
	('e3', 'order', NULL), ('e4', 'visit', '{"price": "1"}'), ('e5', 'other', '{}');
INSERT INTO behavior.event (event_id, source, type, properties) VALUES ('e1', 'shop', 'order', '{"sum": 1}'), ('e2', 'shop', 'order', '{"price": 1}'),
	('e3', 'web', 'order', '{"sum": 1}');
COPY behavior.event (event_id, type, properties) FROM stdin WITH (FORMAT csv);
c1,order,"{""price"": 1}"
c2,order,"{""price"": null}"
c3,order,"{""price"": 1, ""a"": ""\u0041""}"
c4,order,{}
\.
COPY behavior.event (event_id, type, properties) FROM stdin;
t1	order	{"price": 1}
t2	order	{"price": []}
t3	order	{"cost": 1}
\.
INSERT INTO behavior.inbox VALUES ('{"event_id": "i1", "type": "order", "properties": {"price": 2}}'),
	('{"event_id": "i2", "type": "order", "properties": {"price": "2"}} {"event_id": "i3", "type": "order"}'),
	('{"id": "i4", "detail-type": "order", "source": "shop", "detail": {"price": 1}}'),
	('{"specversion": "1.0", "id": "i5", "source": "web", "type": "order", "data": {"price": "x"}}'),
	('{"messageId": "i6", "type": "track", "event": "order", "userId": "u", "properties": {"price": true}}'),
	('{"batch": [{"messageId": "i7", "type": "track", "event": "order", "userId": "u", "properties": {"price": 7}}, {"messageId": "i8", "event": "order", "type": "track", "userId": "u"}]}'),
	('{"Entries": [{"Source": "shop", "DetailType": "order", "Detail": "{\"event_id\": \"i9\", \"price\": 1}"}]}');
COPY behavior.inbox FROM stdin WITH (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02');
{"event_id": "j1", "type": "order", "properties": {"price": 2}}
{"event_id": "j2", "type": "order", "properties": {"price": "2"}}
{"event_id": "j3", "type": "order", "properties": {"price": "2"}, "context": {}}
\.
SELECT ordinal, event_id, status, reason, dead_letter_id > 0 AS letter FROM behavior.ingest(
	'[{"event_id": "n1", "properties": {"price": 3}}, {"event_id": "n2", "properties": {"price": "3"}}, {"event_id": "n3"}]', '{"type": "order", "source": "app"}');
SELECT source, event_id FROM behavior.event ORDER BY source, event_id;
SELECT reason, source, type, event_id, detail, payload FROM behavior.dead_letter ORDER BY dead_letter_id;
SELECT event_id, errors - 'errors' AS declared, e.* FROM behavior.dead_letter, jsonb_to_recordset(errors -> 'errors') AS e (instance_path text, schema_path text, message text)
	WHERE event_id IN ('e2', 'e3', 'i4') ORDER BY dead_letter_id;
SELECT sum(received) = sum(accepted + duplicates + conflicts + dead_letters) AS adds_up,
	sum(dead_letters) = (SELECT count(*) FROM behavior.dead_letter) AS all_kept FROM behavior.batch;

\echo -- context is never checked
INSERT INTO behavior.event (event_id, type, properties, context) VALUES ('x1', 'order', '{"price": 1}', '{"price": "1"}');
SELECT accepted FROM behavior.last_batch();

\echo -- the list of errors is bounded
SELECT behavior.create_event_type('many', '{"additionalProperties": {"type": "number"}}');
INSERT INTO behavior.event (event_id, type, properties) SELECT 'm1', 'many', jsonb_object_agg('k' || i, repeat('v', 10)) FROM generate_series(1, 100) i;
INSERT INTO behavior.event (event_id, type, properties) SELECT 'm2', 'many', jsonb_build_object(repeat('é', 5000), 'x');
SELECT event_id, jsonb_array_length(errors -> 'errors') AS listed, octet_length(errors #>> '{errors,0,instance_path}') AS path, octet_length(detail) AS detail
	FROM behavior.dead_letter WHERE type = 'many' ORDER BY 1;

\echo -- a schema may be true or false
SELECT behavior.create_event_type('never', 'false');
SELECT behavior.create_event_type('ever', 'true');
INSERT INTO behavior.event (event_id, type) VALUES ('b1', 'never'), ('b2', 'ever');
SELECT event_id, detail, errors FROM behavior.dead_letter WHERE type = 'never';
SELECT accepted FROM behavior.last_batch();
SELECT behavior.alter_event_type('never', 'true');
INSERT INTO behavior.event (event_id, type) VALUES ('b1', 'never');
SELECT accepted FROM behavior.last_batch();

\echo -- types that are not declared
SET behavior.unknown_type = dead_letter;
INSERT INTO behavior.event (event_id, source, type) VALUES ('u1', 'web', 'other'), ('u2', 'web', 'visit'), ('u3', 'web', repeat('ü', 127)), ('u4', 'shop', 'visit');
SELECT behavior.create_event_type('only shop', NULL, 'shop');
INSERT INTO behavior.event (event_id, source, type) VALUES ('u5', 'web', 'only shop'), ('u6', 'shop', 'only shop');
SELECT event_id, reason, detail, errors FROM behavior.dead_letter WHERE event_id LIKE 'u%' ORDER BY 1;
\echo -- on_invalid = error
SET behavior.on_invalid = error;
INSERT INTO behavior.event (event_id, type) VALUES ('v1', 'other');
INSERT INTO behavior.event (event_id, type, properties) VALUES ('v2', 'order', '{"price": "secret"}');
\set VERBOSITY sqlstate
INSERT INTO behavior.inbox VALUES ('{"event_id": "v3", "type": "other"}');
INSERT INTO behavior.inbox VALUES ('{"event_id": "v4", "type": "order", "properties": {}}');
SELECT * FROM behavior.ingest('{"event_id": "v5", "type": "order"}');
\set VERBOSITY default
RESET behavior.on_invalid;
RESET behavior.unknown_type;

\echo -- RETURNING shows what was refused, too
INSERT INTO behavior.event (event_id, type, properties) VALUES ('w1', 'order', '{}'), ('w2', 'order', '{"price": 4}')
	RETURNING event_id, type, properties, received_at IS NOT NULL AS received, batch_id IS NOT NULL AS batch;

\echo -- a change counts from the next statement on, and is forgotten with what it was rolled back with
BEGIN;
SELECT behavior.create_event_type('late', '{"required": ["a"]}');
INSERT INTO behavior.event (event_id, type) VALUES ('l1', 'late');
SAVEPOINT s;
SELECT behavior.alter_event_type('late', '{"required": ["b"]}');
INSERT INTO behavior.event (event_id, type, properties) VALUES ('l2', 'late', '{"a": 1}'), ('l3', 'late', '{"b": 1}');
ROLLBACK TO s;
INSERT INTO behavior.event (event_id, type, properties) VALUES ('l4', 'late', '{"a": 1}'), ('l5', 'late', '{"b": 1}');
SAVEPOINT s;
SELECT behavior.drop_event_type('late');
INSERT INTO behavior.event (event_id, type) VALUES ('l6', 'late');
RELEASE s;
INSERT INTO behavior.event (event_id, type) VALUES ('l7', 'late');
SELECT event_id FROM behavior.event WHERE type = 'late' ORDER BY 1;
SELECT event_id, errors #> '{errors,0,message}' AS message, errors -> 'version' AS version FROM behavior.dead_letter WHERE type = 'late' ORDER BY 1;
ROLLBACK;
INSERT INTO behavior.event (event_id, type) VALUES ('l8', 'late');
DO $$
BEGIN
	PERFORM behavior.create_event_type('late', '{"required": ["c"]}');
	INSERT INTO behavior.event (event_id, type) VALUES ('l9', 'late');
	RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
	INSERT INTO behavior.event (event_id, type) VALUES ('l10', 'late');
END $$;
SELECT event_id FROM behavior.event WHERE type = 'late' ORDER BY 1;
SELECT count(*) FROM behavior.event_type WHERE type = 'late';

\echo -- stored events stay as they are; a retry is checked as what it is now
SELECT behavior.create_event_type('late', '{"required": ["c"]}');
SELECT count(*) FROM behavior.event WHERE type = 'late';
INSERT INTO behavior.event (event_id, type) VALUES ('l8', 'late');
SELECT duplicates, dead_letters FROM behavior.last_batch();
SELECT behavior.drop_event_type('late');
INSERT INTO behavior.event (event_id, type) VALUES ('l8', 'late');
SELECT duplicates, dead_letters FROM behavior.last_batch();

\echo -- many types
SELECT count(behavior.create_event_type('type ' || i, jsonb_build_object('required', jsonb_build_array('p' || i)))) FROM generate_series(1, 300) i;
INSERT INTO behavior.event (event_id, type, properties) SELECT 'y' || i, 'type ' || i, jsonb_build_object('p' || i + i % 2, 1) FROM generate_series(1, 301) i;
SELECT accepted, dead_letters FROM behavior.last_batch();
SELECT bool_and(errors ->> 'type' = type AND detail LIKE '%"p' || substr(type, 6) || '"%') AS each_by_its_own FROM behavior.dead_letter WHERE event_id LIKE 'y%';

\echo -- a role that may only send
CREATE ROLE regress_type_sender;
GRANT INSERT ON behavior.event TO regress_type_sender;
SET ROLE regress_type_sender;
INSERT INTO behavior.event (event_id, type, properties) VALUES ('z1', 'order', '{"price": 1}'), ('z2', 'order', '{"price": "1"}');
SELECT accepted, dead_letters FROM behavior.last_batch();
RESET ROLE;
REVOKE INSERT ON behavior.event FROM regress_type_sender;
DROP ROLE regress_type_sender;

\echo -- written by somebody else, as by a restore: read anew, and a schema that is none says whose it is
INSERT INTO behavior._event_type (source, type, version, schema, owner, created_at) VALUES ('*', 'restored', 7, '5', 'regress_type_nobody', now());
INSERT INTO behavior.event (event_id, type) VALUES ('z3', 'restored');
INSERT INTO behavior.event (event_id, type) VALUES ('z4', 'other');
UPDATE behavior._event_type SET schema = '{"required": ["a"]}' WHERE type = 'restored';
INSERT INTO behavior.event (event_id, type) VALUES ('z3', 'restored');
SELECT errors -> 'version' AS version FROM behavior.dead_letter WHERE event_id = 'z3';
BEGIN;
TRUNCATE behavior._event_type;
INSERT INTO behavior.event (event_id, type) VALUES ('z5', 'restored');
SELECT accepted, dead_letters FROM behavior.last_batch();
ROLLBACK;
INSERT INTO behavior.event (event_id, type) VALUES ('z6', 'restored');
SELECT accepted, dead_letters FROM behavior.last_batch();

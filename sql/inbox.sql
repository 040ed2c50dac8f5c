-- behavior.inbox: rows of JSON events, through INSERT and every format of COPY.
\set VERBOSITY terse
SET timezone = 'UTC';
\pset null '-'
CREATE VIEW pg_temp.taken AS SELECT event_id, type, properties FROM behavior.event ORDER BY event_id COLLATE "C";
CREATE VIEW pg_temp.refused AS SELECT reason, detail, source, type, event_id, payload FROM behavior.dead_letter ORDER BY dead_letter_id;
CREATE VIEW pg_temp.last AS SELECT received, accepted, duplicates, conflicts, dead_letters FROM behavior.last_batch();

\echo -- none, one or more events a row
INSERT INTO behavior.inbox VALUES ('{"type":"A","event_id":"i1"}'), (''), (E' \t\r\n '), ('{"type":"A","event_id":"i2"}{"type":"A","event_id":"i3"} {"type":"A","event_id":"i4"}' || E'\r\n'),
	('[{"type":"A","event_id":"i5"}, {"type":"A","event_id":"i6"}]'), ('[]'), (E'{"type":"A",\n\t"event_id":"i7"}\n\n{"type":"A","event_id":"i8"}'), (U&'\FEFF{"type":"A","event_id":"i9"}'), (U&'\FEFF');
SELECT * FROM pg_temp.last;
SELECT event_id FROM pg_temp.taken;
INSERT INTO behavior.inbox VALUES (''), ('  ');
SELECT * FROM behavior.last_batch();

\echo -- what is broken is a dead letter, and the rest goes on
INSERT INTO behavior.inbox (payload) VALUES ('{"type":"B","event_id":"j1"} {"type":"B", {"type":"B","event_id":"lost"}'), (NULL), ('{"type":"B","event_id":"j2"'), ('null'), ('"text"'), ('17'), ('[1, [{"type":"B"}]]'),
	('{"type":"B","event_id":"j3"}'), ('{"type":"B","event_id":"j3"}'), ('{"type":"C","event_id":"j3"}'), ('type=B');
SELECT * FROM pg_temp.last;
SELECT event_id FROM pg_temp.taken WHERE event_id LIKE 'j%';
SELECT * FROM pg_temp.refused;
SET behavior.on_invalid = error;
INSERT INTO behavior.inbox VALUES ('{"type":"D","event_id":"k1"}'), ('{"type":');
INSERT INTO behavior.inbox VALUES (NULL);
INSERT INTO behavior.inbox VALUES ('{"type":"D","event_id":"k2","colour":"red"}');
\set VERBOSITY sqlstate
INSERT INTO behavior.inbox VALUES ('{"type":');
INSERT INTO behavior.inbox VALUES ('7');
INSERT INTO behavior.inbox VALUES ('{"type":"D","colour":"red"}');
INSERT INTO behavior.inbox VALUES ('{"type":"D","properties":{"a":"\u0000"}}');
INSERT INTO behavior.inbox VALUES ('{"type":"D","occurred_at":"soon"}');
INSERT INTO behavior.inbox VALUES ('{"type":{}}');
INSERT INTO behavior.inbox VALUES (repeat('[', 600));
\set VERBOSITY terse
RESET behavior.on_invalid;
SELECT count(*) FROM pg_temp.taken WHERE event_id LIKE 'k%';
TRUNCATE behavior.dead_letter;

\echo -- COPY: csv with quote and delimiter that no text holds takes lines as they are
COPY behavior.inbox FROM STDIN WITH (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02');
{"type":"Csv","event_id":"c1","properties":{"u":"\u00e9\n","q":"say \"hi\"","b":"c:\\x","t":"a\tb","s":"a, b; 'c'"}}

{"type":"Csv","event_id":"c2","properties":{"n":null,"x":"\\N"}} {"type":"Csv","event_id":"c3"}
   
{"type":"Csv","event_id":"c4"
\.
SELECT * FROM pg_temp.last;
\echo -- COPY: the text format takes the backslashes away; who doubles them gets them back
COPY behavior.inbox FROM STDIN;
{"type":"Text","event_id":"d1","properties":{"u":"\\u00e9\\n","q":"say \\"hi\\"","b":"c:\\\\x"}}

{"type":"Text","event_id":"d2","properties":{"q":"say \"hi\""}}
\N
\.
SELECT * FROM pg_temp.last;
\echo -- COPY: plain csv
COPY behavior.inbox (payload) FROM STDIN WITH (FORMAT csv, HEADER);
payload
"{""type"":""Quoted"",""event_id"":""f1"",""properties"":{""u"":""\u00e9"",""lines"":
[1,
2]}}"
\.
SELECT * FROM pg_temp.taken WHERE event_id ~ '^[cdf]';
SELECT * FROM pg_temp.refused;
\echo -- COPY: binary, and a COPY of several thousand
SELECT current_setting('data_directory') || '/behavior_inbox_test' AS file \gset
CREATE TEMP TABLE line AS SELECT format('{"type":"Bulk","event_id":"bulk-%s","occurred_at":%s,"properties":{"i":%s,"e":"\u00e9"}}', i, 1700000000 + i, i) AS payload FROM generate_series(1, 36000) i;
COPY line TO :'file' WITH (FORMAT binary);
COPY behavior.inbox FROM :'file' WITH (FORMAT binary);
SELECT * FROM pg_temp.last;
COPY line TO :'file' WITH (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02');
COPY behavior.inbox FROM :'file' WITH (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02');
SELECT * FROM pg_temp.last;
COPY behavior.inbox FROM :'file' WITH (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02') WHERE payload LIKE '%"bulk-1_"%';
SELECT * FROM pg_temp.last;
SELECT count(*), count(DISTINCT event_id), sum((properties->>'i')::int), min(properties->>'e') FROM behavior.event WHERE type = 'Bulk';
INSERT INTO behavior.inbox SELECT '[' || string_agg(payload, ',') || ']' FROM line;
SELECT * FROM pg_temp.last;

\echo -- COPY inside a function, and a statement inside a COPY
COPY (VALUES ('{"type":"Nested","event_id":"n1"}'), (''), (NULL), ('broken')) TO :'file' WITH (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02');
SELECT format('COPY behavior.inbox FROM %L WITH (FORMAT csv, QUOTE E''\x01'', DELIMITER E''\x02'')', :'file') AS command \gset
CREATE FUNCTION pg_temp.run(command text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE command; END $$;
SELECT pg_temp.run(:'command');
SELECT received, accepted FROM pg_temp.last;
CREATE TABLE carrier (payload text);
CREATE FUNCTION pg_temp.carry() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO behavior.inbox VALUES (NEW.payload), (NULL); RETURN NULL; END $$;
CREATE TRIGGER carry BEFORE INSERT ON carrier FOR EACH ROW EXECUTE FUNCTION pg_temp.carry();
TRUNCATE behavior.dead_letter;
COPY carrier FROM STDIN;
{"type":"Nested","event_id":"n2"}
broken
\.
SELECT reason, detail FROM pg_temp.refused;

\echo -- savepoints, blocks with exceptions, functions
BEGIN;
INSERT INTO behavior.inbox VALUES ('{"type":"E","event_id":"s1"}');
SAVEPOINT s;
INSERT INTO behavior.inbox VALUES ('{"type":"E","event_id":"s2"}');
ROLLBACK TO s;
INSERT INTO behavior.inbox VALUES ('{"type":"E","event_id":"s3"}');
DO $$
BEGIN
	INSERT INTO behavior.inbox VALUES ('{"type":"E","event_id":"s4"}');
	INSERT INTO behavior.inbox SELECT '{"type":"E","event_id":"s5"}' || 1 / i FROM generate_series(1, 0, -1) i;
EXCEPTION WHEN division_by_zero THEN
	INSERT INTO behavior.inbox VALUES ('{"type":"E","event_id":"s6"}');
END $$;
COMMIT;
SELECT event_id FROM pg_temp.taken WHERE type = 'E';
WITH a AS (INSERT INTO behavior.inbox VALUES ('{"type":"F","event_id":"w1"}') RETURNING payload), b AS (INSERT INTO behavior.event (event_id, type) VALUES ('w2', 'F') RETURNING 1)
INSERT INTO behavior.inbox SELECT '{"type":"F","event_id":"w3"}' RETURNING payload;
SELECT event_id FROM pg_temp.taken WHERE type = 'F';

\echo -- sessions that replicate fire no ordinary triggers
SET session_replication_role = replica;
INSERT INTO behavior.inbox VALUES ('{"type":"G","event_id":"r1"}');
RESET session_replication_role;
SELECT event_id FROM pg_temp.taken WHERE type = 'G';

\echo -- nothing to read, nothing to change
SELECT * FROM behavior.inbox;
\set VERBOSITY sqlstate
UPDATE behavior.inbox SET payload = 'x';
DELETE FROM behavior.inbox;
DELETE FROM behavior.inbox WHERE payload = 'x';
SELECT behavior._inbox_row();
CREATE VIEW pg_temp.mine AS SELECT 'x'::text AS payload WHERE false;
CREATE TRIGGER mine INSTEAD OF INSERT ON pg_temp.mine FOR EACH ROW EXECUTE FUNCTION behavior._inbox_row();
INSERT INTO pg_temp.mine VALUES ('{"type":"H"}');
\set VERBOSITY terse

\echo -- a role that may only insert
CREATE ROLE regress_inbox_sender;
GRANT INSERT ON behavior.inbox TO regress_inbox_sender;
SET ROLE regress_inbox_sender;
INSERT INTO behavior.inbox VALUES ('{"type":"I","event_id":"g1"}'), ('{"type":');
COPY behavior.inbox FROM STDIN WITH (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02');
{"type":"I","event_id":"g2"}
\.
\set VERBOSITY sqlstate
SELECT * FROM behavior.inbox;
INSERT INTO behavior.event (type) VALUES ('x');
SELECT * FROM behavior.ingest('{"type":"x"}');
CREATE TEMP VIEW mine2 AS SELECT 'x'::text AS payload;
CREATE TRIGGER mine INSTEAD OF INSERT ON mine2 FOR EACH ROW EXECUTE FUNCTION behavior._inbox_row();
RESET ROLE;
SELECT event_id FROM pg_temp.taken WHERE type = 'I';
DROP OWNED BY regress_inbox_sender;
DROP ROLE regress_inbox_sender;

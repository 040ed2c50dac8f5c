-- What no sender should send, at every door that takes JSON: each piece is stored or is one dead letter, and its neighbours are stored.
SET client_min_messages = warning;
SET timezone = 'UTC';
\pset null '-'

CREATE TABLE poison (id int GENERATED ALWAYS AS IDENTITY, name text, payload text);
INSERT INTO poison (name, payload) VALUES
	('broken escape', '{"type":"P","properties":{"a":"\x41"}}'), ('escape cut short', '{"type":"P","properties":{"a":"\u12"}}'), ('escape at the end', '{"type":"P\'),
	('lost backslash', '{"type":"P","properties":{"a":"say "hi""}}'), ('escaped null', '{"type":"P","properties":{"a":"\u0000"}}'), ('escaped null in a key', '{"type":"P","properties":{"\u0000":1}}'),
	('escaped null in the type', '{"type":"P\u0000"}'), ('escaped null as a key', '{"\u0000":1,"type":"P"}'), ('lone high surrogate', '{"type":"P","properties":{"a":"\ud800"}}'),
	('lone low surrogate', '{"type":"P","properties":{"a":["\udc00"]}}'), ('surrogates in the wrong order', '{"type":"P","properties":{"a":"\udc00\ud800"}}'), ('surrogate in the id', '{"type":"P","event_id":"\ud800"}'),
	('control character', E'{"type":"P","properties":{"a":"\x01"}}'), ('a lone quote', '"'), ('no comma', '{"type":"P" "a":1}'), ('a key alone', '{"type"}'), ('closed twice', '{"type":"P"}}'), ('half an object', '{"type":"P"'),
	('not JSON', 'type=P'), ('NaN', '{"type":"P","properties":{"a":NaN}}'), ('a number', '1e5'), ('text', '"P"'), ('null', 'null'), ('array of rubbish', '[1,"x",null,[],{}]'),
	('nested 400 levels', '{"type":"P","properties":{"a":' || repeat('[', 400) || repeat(']', 400) || '}}'), ('nested 1000 levels', '{"type":"P","properties":{"a":' || repeat('[', 1000) || repeat(']', 1000) || '}}'),
	('objects 1000 levels', '{"type":"P","properties":' || repeat('{"a":', 1000) || '1' || repeat('}', 1000) || '}'), ('only brackets', repeat('[', 1000)), ('100000 brackets', repeat('[', 100000) || repeat(']', 100000)),
	('long string', '{"type":"P","properties":{"a":"' || repeat('x', 3000000) || '"}}'), ('long escapes', '{"type":"P","properties":{"a":"' || repeat('\u00e9', 500000) || '"}}'), ('long type', '{"type":"' || repeat('é', 128) || '"}'),
	('type of 255 bytes', '{"type":"' || repeat('é', 127) || 'e"}'), ('long id', '{"type":"P","event_id":"' || repeat('x', 256) || '"}'), ('long key', '{"type":"P","' || repeat('k', 5000) || '":1}'),
	('long garbage', repeat('garbage ', 300000)), ('many keys', '{"type":"P","properties":{' || (SELECT string_agg(format('"k%s":%s', i, i), ',' ORDER BY i) FROM generate_series(1, 5000) i) || '}}'),
	('number too large', '{"type":"P","properties":{"a":1e200000}}'), ('number too small', '{"type":"P","properties":{"a":1e-20000}}'), ('number of 10^131071', '{"type":"P","properties":{"a":1e131071}}'),
	('exponent too large', '{"type":"P","properties":{"a":1e99999999999999999999}}'), ('id too large a number', '{"type":"P","event_id":1e999999}'), ('sequence too large', '{"type":"P","sequence":1e30}'),
	('year 0', '{"type":"P","occurred_at":"0000-01-01T00:00:00Z"}'), ('year 300000', '{"type":"P","occurred_at":"300000-01-01T00:00:00Z"}'), ('infinity', '{"type":"P","occurred_at":"infinity"}'), ('minus infinity', '{"type":"P","occurred_at":"-infinity"}'),
	('no such day', '{"type":"P","occurred_at":"2023-02-29T00:00:00Z"}'), ('now', '{"type":"P","occurred_at":"now"}'), ('epoch far ahead', '{"type":"P","occurred_at":9e18}'), ('epoch seconds', '{"type":"P","occurred_at":1700000000}'),
	('epoch milliseconds', '{"type":"P","occurred_at":1700000000000}'), ('time of another kind', '{"type":"P","occurred_at":false}'), ('in the future', '{"type":"P","occurred_at":"2999-01-01T00:00:00Z"}'),
	('duplicate keys', '{"type":1,"type":"P","properties":{"a":1,"a":2,"a":{"b":1,"b":2}}}'), ('empty keys', '{"type":"P","properties":{"":{"":""}}}'), ('empty key', '{"type":"P","":1}'), ('no keys', '{}'),
	('ids as numbers', '{"type":"P","event_id":12.50,"user_id":0,"anonymous_id":-7}'), ('nulls', '{"event_id":null,"source":null,"type":null,"user_id":null,"anonymous_id":null,"occurred_at":null,"sequence":null,"properties":null,"context":null}'),
	('nulls and a type', '{"event_id":null,"source":null,"type":"P","user_id":null,"anonymous_id":null,"occurred_at":null,"sequence":null,"properties":null,"context":null}'), ('object for an id', '{"type":"P","user_id":{"id":1}}'),
	('unknown field', '{"type":"P","colour":"red"}'), ('SQL', '{"type":"P''); DROP TABLE x; --","properties":{"a":"$$ || ''"}}'), ('format', '{"type":"P","%s%n":"%s"}'), ('byte order mark', U&'\FEFF{"type":"P"}'), ('not a blank', U&'\00A0'),
	('noncharacters', U&'{"type":"P","properties":{"a":"\FFFF\+10FFFF\FEFF"}}'), ('empty batch', '{"batch":[]}'), ('batch of rubbish', '{"batch":[1,{"type":"P","x":1},{"type":"P"}]}'), ('batch in a batch', '{"batch":[{"batch":[{"type":"P"}]}]}'),
	('detail that is no JSON', '{"Entries":[{"Source":"s","DetailType":"P","Detail":"{\"a\":}"}]}'), ('detail with \u0000', '{"Entries":[{"Source":"s","DetailType":"P","Detail":"{\"a\":\"\\u0000\"}"}]}'), ('NULL', NULL);

-- What each piece became. Between any two goes a good event.
CREATE TABLE outcome (door text, id int, received bigint, accepted bigint, reasons text[]);
CREATE FUNCTION pg_temp.note(door text, id int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO outcome SELECT door, id, b.received, b.accepted, ARRAY(SELECT DISTINCT reason FROM behavior.dead_letter d WHERE d.batch_id = b.batch_id ORDER BY 1) FROM behavior.last_batch() b $$;
DO $$
DECLARE
	this record;
BEGIN
	FOR this IN SELECT * FROM poison LOOP
		INSERT INTO behavior.inbox VALUES (format('{"type":"Good","event_id":"inbox-%s-a"}', this.id)), (this.payload), (format('{"type":"Good","event_id":"inbox-%s-b"}', this.id));
		PERFORM pg_temp.note('inbox', this.id);
	END LOOP;
END $$;
-- ingest() takes jsonb: what is no jsonb is an error of the cast, before it.
CREATE FUNCTION pg_temp.as_jsonb(payload text) RETURNS jsonb LANGUAGE plpgsql AS
$$ BEGIN RETURN payload::jsonb; EXCEPTION WHEN OTHERS THEN RETURN NULL; END $$;
DO $$
DECLARE
	this record;
	argument jsonb;
BEGIN
	FOR this IN SELECT * FROM poison LOOP
		argument := pg_temp.as_jsonb(this.payload);
		IF argument IS NOT NULL THEN
			PERFORM behavior.ingest(jsonb_build_array(jsonb_build_object('type', 'Good', 'event_id', format('ingest-%s-a', this.id)), argument, jsonb_build_object('type', 'Good', 'event_id', format('ingest-%s-b', this.id))));
			PERFORM pg_temp.note('ingest', this.id);
		END IF;
	END LOOP;
END $$;
SELECT p.name, i.received - 2 AS received, i.accepted - 2 AS accepted, i.reasons AS inbox, j.reasons AS ingest
FROM poison p LEFT JOIN outcome i ON i.id = p.id AND i.door = 'inbox' LEFT JOIN outcome j ON j.id = p.id AND j.door = 'ingest' ORDER BY p.id;
SELECT count(*) = 2 * (SELECT count(*) FROM outcome) AS neighbours_stored FROM behavior.event WHERE type = 'Good';
SELECT sum(received) = sum(accepted + duplicates + conflicts + dead_letters) AS adds_up, sum(accepted) = (SELECT count(*) FROM behavior.event) AS all_stored,
	sum(conflicts + dead_letters) = (SELECT count(*) FROM behavior.dead_letter) AS all_kept FROM behavior.batch;
SELECT count(*) > 50 AS enough, max(octet_length(payload)) <= 1024 * 1024 AS cut, count(*) FILTER (WHERE detail IS NULL) AS unexplained, max(octet_length(detail)) < 400 AS short FROM behavior.dead_letter;
SELECT reason, left(detail, 40) AS detail, octet_length(payload) AS payload FROM behavior.dead_letter WHERE octet_length(payload) > 1000000 ORDER BY dead_letter_id;

-- All of it again, in one COPY of each format; and nothing comes through but what came through before.
CREATE TABLE poison_line AS SELECT id, regexp_replace(payload, E'[\\r\\n]', ' ', 'g') AS payload FROM poison;
INSERT INTO poison_line SELECT id, format('{"type":"Good","event_id":"copy-%s"}', id) FROM poison;
SELECT current_setting('data_directory') || '/behavior_poison_test' AS file \gset
SET behavior.default_source = 'csv';
COPY (SELECT payload FROM poison_line ORDER BY id, payload LIKE '%Good%') TO :'file' WITH (FORMAT csv, QUOTE E'\x02', DELIMITER E'\x03');
COPY behavior.inbox FROM :'file' WITH (FORMAT csv, QUOTE E'\x02', DELIMITER E'\x03');
SET behavior.default_source = 'text';
COPY (SELECT payload FROM poison_line ORDER BY id, payload LIKE '%Good%') TO :'file';
COPY behavior.inbox FROM :'file';
SET behavior.default_source = 'binary';
COPY (SELECT payload FROM poison_line ORDER BY id, payload LIKE '%Good%') TO :'file' WITH (FORMAT binary);
COPY behavior.inbox FROM :'file' WITH (FORMAT binary);
RESET behavior.default_source;
-- NULL is a blank line to COPY, and the two entries with a detail bring a source of their own: three less than the inbox got by INSERT.
SELECT b.sender, e.good, e.events - e.good = i.accepted AS same_accepted, b.received - e.good + 3 = i.received AS same_received
FROM (SELECT source, count(*) AS events, count(*) FILTER (WHERE type = 'Good') AS good FROM behavior.event WHERE source IN ('csv', 'text', 'binary') GROUP BY source) e
JOIN (SELECT s.source AS sender, sum(received) AS received FROM behavior.intake s GROUP BY s.source) b ON b.sender = e.source,
	(SELECT sum(accepted - 2) AS accepted, sum(received - 2) AS received FROM outcome WHERE door = 'inbox') i ORDER BY b.sender;
-- JSON lines with escapes, by hand: doubled for the text format, as they are for csv with a quote that no text holds.
COPY behavior.inbox FROM STDIN;
{"type":"Line","event_id":"text","properties":{"a":"\\u00e9\\n\\t\\"\\\\\\/\\ud83d\\ude00","b":"\\\\N"}}
\.
COPY behavior.inbox FROM STDIN WITH (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02');
{"type":"Line","event_id":"raw","properties":{"a":"\u00e9\n\t\"\\\/\ud83d\ude00","b":"\\N"}}
\.
COPY behavior.inbox FROM STDIN WITH (FORMAT csv);
"{""type"":""Line"",""event_id"":""csv"",""properties"":{""a"":""\u00e9\n\t\""\\\/\ud83d\ude00"",""b"":""\\N""}}"
\.
INSERT INTO behavior.inbox VALUES ('{"type":"Line","event_id":"insert","properties":{"a":"\u00e9\n\t\"\\\/\ud83d\ude00","b":"\\N"}}');
SELECT properties, count(*), string_agg(event_id, ' ' ORDER BY event_id) FROM behavior.event WHERE type = 'Line' GROUP BY 1;

-- Larger than a row may be.
INSERT INTO behavior.inbox SELECT '{"type":"P","properties":{"a":"' || repeat('x', 65 * 1024 * 1024) || '"}}';
SELECT reason, left(detail, 60) AS detail, octet_length(payload) FROM behavior.dead_letter ORDER BY dead_letter_id DESC LIMIT 1;

-- One too many for one call.
\set VERBOSITY default
SELECT count(*) FROM behavior.ingest((SELECT jsonb_agg('{"type":"P"}'::jsonb) FROM generate_series(1, 10001)));

-- Under on_invalid = error: the SQLSTATE of its reason, and nothing stored.
SET behavior.on_invalid = error;
CREATE FUNCTION pg_temp.sqlstate_of(payload text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO behavior.inbox VALUES (payload);
	RAISE EXCEPTION USING ERRCODE = '00ZZZ';
EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$;
SELECT count(*) AS before FROM behavior.event \gset
SELECT pg_temp.sqlstate_of(payload) AS sqlstate, (o.reasons)[1] AS reason, count(*) FROM poison JOIN outcome o USING (id) WHERE door = 'inbox' AND cardinality(o.reasons) <= 1 GROUP BY 1, 2 ORDER BY 2;
SELECT count(*) - :before AS stored FROM behavior.event;

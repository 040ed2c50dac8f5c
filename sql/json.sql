-- The JSON parser against jsonb_in: it accepts the same texts and makes the same bytes of them.
\pset null '(null)'

CREATE FUNCTION pg_temp.is_good(document text) RETURNS boolean LANGUAGE plpgsql AS
$$ BEGIN RETURN document::jsonb IS NOT NULL; EXCEPTION WHEN OTHERS THEN RETURN false; END $$;

-- How the parser differs from jsonb_in: NULL where it does not.
CREATE FUNCTION pg_temp.difference(document text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	expected jsonb;
	actual jsonb := behavior._json_parse(document);
BEGIN
	IF pg_temp.is_good(document) THEN
		expected := document::jsonb;
	END IF;
	IF (actual IS NULL) <> (expected IS NULL) THEN
		RETURN format('jsonb_in: %s, _json_parse: %s', left(expected::text, 60), left(actual::text, 60));
	ELSIF (actual IS NULL) <> (behavior._json_refusal(document) IS NOT NULL) THEN
		RETURN 'refused without a reason';
	ELSIF actual <> expected OR actual::text <> expected::text
		OR pg_column_size(actual) <> pg_column_size(expected)
		OR jsonb_send(actual) <> jsonb_send(expected) THEN
		RETURN format('another value: %s, %s', left(expected::text, 60), left(actual::text, 60));
	END IF;
	RETURN NULL;
END $$;

CREATE TEMP TABLE sample (id int GENERATED ALWAYS AS IDENTITY, document text);
INSERT INTO sample (document) VALUES
	('{}'), ('[]'), (' { } '), (E'\t[\n]\r '), ('null'), ('true'), ('false'), ('0'), ('-0'), ('-0.0'), ('""'), ('"a"'),
	('{"a":1}'), ('{"b":1,"a":2}'), ('{"bb":1,"a":2,"c":3,"aa":4}'), ('{"a":1,"a":2}'), ('{"a":{"x":1},"a":[]}'),
	('{"":0}'), ('{"":{"":[]}}'), ('[1,[2,[3,[]]],{}]'), ('[{},{},[],[[]]]'), ('{"a":null,"b":true,"c":false}'),
	('{"k":[1,"two",3.50,{"x":-1e3}],"key":"v"}'), ('[null,null]'), ('[1.0,1.00,1e0,1E+2,1e-2,100e-2,-12.5e1]'),
	('[0.1,0.01,0.001,0.0001,0.00001,1234567890123456789012345678901234567890.5]'),
	('[9999,10000,10001,99999999,100000000,-9223372036854775808,18446744073709551615]'),
	('"\u0041\u00e9\u20ac\ud83d\ude00"'), ('"\"\\\/\b\f\n\r\t"'), ('{"\u0061":1,"a":2}'), ('"é€😀"'), ('{"é":"ü"}'),
	('"0123456789abcdef0123456789"'), ('"01234567\n"'), ('"01234567é"'),
	-- broken
	(''), (' '), ('{'), ('['), ('}'), (']'), ('{]'), ('[}'), ('{"a"}'), ('{"a":}'), ('{"a":1,}'), ('[1,]'), ('[,1]'), ('{,}'), ('{1:2}'),
	('{"a" 1}'), ('{"a":1 "b":2}'), ('[1 2]'), ('{"a":1}}'), ('[1]]'), ('1 2'), ('nul'), ('nulll'), ('True'), ('truefalse'), ('tru e'),
	('01'), ('-'), ('+1'), ('1.'), ('.5'), ('1e'), ('1e+'), ('1.e1'), ('0x10'), ('1a'), ('1_000'), ('--1'), ('1-'), ('NaN'), ('Infinity'), ('-Infinity'),
	('"'), ('"a'), ('"\'), ('"\"'), ('"\x"'), ('"\u"'), ('"\u12"'), ('"\u12g4"'), ('"\u 123"'), ('''a'''), ('{''a'':1}'), ('{a:1}'), ('/**/1'),
	(E'"a\tb"'), (E'"a\nb"'), (E'"\\\n"'), (E'"\x7f"'), (E'\x01'), (E'"\\é"'), (U&'\FEFF{}'), (U&'"\FEFF"'), (E'1\u00e9'), (E'1\u00a0'),
	-- what jsonb cannot keep
	('"\u0000"'), ('"a\u0000b"'), ('{"\u0000":1}'), ('"\ud83d"'), ('"\ude00"'), ('"\ud83dx"'), ('"\ud83d\n"'), ('"\ud83d\ud83d"'), ('"\ud83d\u0041"'),
	('"\ud83d\ude00\ude00"'), ('{"a":["\udead"]}'), ('"\ud83d\u0000"'),
	('1e131071'), ('1e131072'), ('9.9e131071'), ('-1e131072'), ('10e131071'), ('0.1e131072'), ('0.0001e131076'), ('1e-16383'), ('1e-16384'), ('0e-16384'), ('0e99999'),
	('1.5e-16382'), ('1.5e-16383'), ('123e-16383'), ('1e2147483647'), ('1e-2147483647'), ('1e99999999999999999999'), ('0e1073741822'), ('0e99999999999'),
	('1e0000000000000000000000000000000001'), ('1e00001000'), ('[1e400,1e-400]'), ('12345e-10'), ('1e63'), ('1e252'), ('1e256'), ('1e-252'), ('1e-260'), ('1.1e-63'), ('1.1e-62');
INSERT INTO sample (document) VALUES
	(repeat('9', 131072)), (repeat('9', 131073)), ('0.' || repeat('0', 16382) || '1'), ('0.' || repeat('0', 16383) || '1'), (repeat('1', 999)), (repeat('1', 1000)),
	(repeat('7', 70000) || '.' || repeat('7', 16383)), (repeat('9', 131072) || '.5'),
	('"' || repeat('x', 300000) || '"'), ('"' || repeat('\u00e9\n', 5000) || '"'), ('["' || repeat('é', 3000) || '"]'),
	(repeat('[', 100) || repeat(']', 100)), (repeat('{"a":', 100) || '1' || repeat('}', 100)), (repeat('[', 100) || repeat(']', 99)), (repeat('[', 99) || repeat(']', 100)),
	(repeat('[', 512) || repeat(']', 512)), (repeat('{"a":', 512) || '1' || repeat('}', 512));
INSERT INTO sample (document)
SELECT '[' || string_agg(i::text, ',' ORDER BY i) || ']' FROM (VALUES (1), (31), (32), (33), (64), (65), (1000)) AS v (n), generate_series(1, n) i GROUP BY n
UNION ALL
SELECT '{' || string_agg(format('"%s":%s', md5(i::text), i), ',' ORDER BY i) || '}' FROM (VALUES (15), (16), (17), (31), (32), (33), (1000)) AS v (n), generate_series(1, n) i GROUP BY n
UNION ALL
SELECT '{' || string_agg(format('"%s":"%s"', left(md5((i % 50)::text), 1 + i % 7), i), ',' ORDER BY i) || '}' FROM (VALUES (20), (40), (400)) AS v (n), generate_series(1, n) i GROUP BY n
UNION ALL
SELECT '{' || string_agg(format('"%s":[%s.5,{"x":"%s"},true]', left(md5(i::text), 1 + i % 5), i, i), ',' ORDER BY i) || '}' FROM generate_series(1, 60) i;

SELECT left(document, 60) AS document, pg_temp.difference(document) FROM sample WHERE pg_temp.difference(document) IS NOT NULL ORDER BY id;
SELECT count(*) FILTER (WHERE behavior._json_parse(document) IS NULL) > 80 AS refused, count(behavior._json_parse(document)) > 70 AS accepted FROM sample;

-- What a refusal says: place and rule, nothing of the text.
SELECT document, behavior._json_refusal(document) FROM (VALUES ('{"a":1'), ('{"a":1,}'), ('[1 2]'), ('{"a";1}'), ('"\x"'), (E'"a\tb"'), ('1.'), ('nul'), ('{} x'), ('"\u0000"'),
	('{"a":"\ud83d"}'), ('{"\udc00":1}'), ('[1e999999]'), ('{}')) AS t (document);

-- Deeper than the limit: found out without recursion, and only of those containers.
SELECT behavior._json_refusal(repeat('[', 513) || repeat(']', 513));
SELECT behavior._json_refusal(repeat('{"a":[', 100000) || repeat(']}', 100000));
SELECT behavior._json_refusal(repeat('{"a":[', 100000) || repeat('}]', 100000));
SELECT behavior._json_refusal(repeat('[', 3000000));
SELECT behavior._json_refusal('[' || repeat('1,', 4200000) || '1]');

-- Numbers, one by one and in an array, where they are aligned.
SELECT setseed(0.25);
CREATE TEMP TABLE number AS
SELECT (CASE WHEN random() < 0.4 THEN '-' ELSE '' END)
	|| CASE WHEN random() < 0.2 THEN '0' ELSE (1 + floor(random() * 9))::text || left(floor(random() * 1e15)::text || floor(random() * 1e15)::text, floor(random() * 25)::int) END
	|| CASE WHEN random() < 0.5 THEN '.' || repeat('0', floor(random() * 6)::int) || floor(random() * 1e12)::text ELSE '' END
	|| CASE WHEN random() < 0.3 THEN (ARRAY['e', 'E', 'e+', 'e-', 'E-'])[1 + floor(random() * 5)] || floor(random() * 300)::text ELSE '' END AS document
FROM generate_series(1, 3000);
SELECT document, pg_temp.difference(document) FROM number WHERE pg_temp.difference(document) IS NOT NULL;
SELECT pg_temp.difference('["x",' || string_agg(document, ',"é",') || ']') FROM number;

-- Texts made of random tokens, and good texts with one to three of their bytes changed, removed or doubled.
CREATE FUNCTION pg_temp.any_value(depth int) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	kind int := floor(random() * CASE WHEN depth > 3 THEN 6 ELSE 10 END);
	n int := floor(random() * 5);
BEGIN
	RETURN CASE
		WHEN kind < 2 THEN (ARRAY['null', 'true', 'false', '0', '-1.50', '12e2', '123456789012'])[1 + floor(random() * 7)]
		WHEN kind < 6 THEN (ARRAY['""', '"a"', '"\n\u00e9"', '"long enough to leave a word"', '"é😀"', '"\ud83d\ude00"', '"\\"'])[1 + floor(random() * 7)]
		WHEN kind < 8 THEN '[' || coalesce((SELECT string_agg(pg_temp.any_value(depth + 1), ', ') FROM generate_series(1, n)), '') || ']'
		ELSE '{' || coalesce((SELECT string_agg((ARRAY['"a"', '"b"', '"ab"', '""', '"\u0061"', '"é"'])[1 + floor(random() * 6)] || ':' || pg_temp.any_value(depth + 1), ',')
			FROM generate_series(1, n)), '') || '}'
	END;
END $$;
CREATE FUNCTION pg_temp.mutate(document text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	place int;
BEGIN
	FOR i IN 1 .. 1 + floor(random() * 3) LOOP
		place := 1 + floor(random() * length(document));
		document := CASE floor(random() * 3)
			WHEN 0 THEN overlay(document PLACING substr('{}[]",:\u0019eE.-+ ntf/éxud83', 1 + floor(random() * 29)::int, 1) FROM place FOR 1)
			WHEN 1 THEN overlay(document PLACING '' FROM place FOR 1)
			ELSE overlay(document PLACING substr(document, place, 1) || substr(document, place, 1) FROM place FOR 1)
		END;
	END LOOP;
	RETURN document;
END $$;
SELECT setseed(0.5);
CREATE TEMP TABLE fuzz AS SELECT pg_temp.any_value(0) AS document FROM generate_series(1, 2000);
INSERT INTO fuzz SELECT pg_temp.mutate(document) FROM fuzz;
INSERT INTO fuzz SELECT string_agg(substr('{}[]",:\u0019e.- ntf', 1 + floor(random() * 19)::int, 1), '') FROM generate_series(1, 2000) t, generate_series(1, 1 + t % 6) GROUP BY t;
SELECT document, pg_temp.difference(document) FROM fuzz WHERE pg_temp.difference(document) IS NOT NULL;
SELECT count(*) FILTER (WHERE behavior._json_parse(document) IS NULL) > 1000 AS refused, count(behavior._json_parse(document)) > 1000 AS accepted FROM fuzz;

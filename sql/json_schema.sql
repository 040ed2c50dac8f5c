-- JSON Schema: what is valid, what is said about what is not, which schemas are refused, and limits.
\pset null '(null)'

-- What an event of five properties looks like, and everything that may be wrong with it.
CREATE TEMP TABLE purchase AS SELECT '{
	"type": "object",
	"required": ["item", "price", "quantity"],
	"properties": {
		"item": {"type": "string", "minLength": 1, "maxLength": 40},
		"price": {"type": "number", "minimum": 0, "multipleOf": 0.01},
		"quantity": {"type": "integer", "exclusiveMinimum": 0, "maximum": 1000},
		"currency": {"enum": ["EUR", "USD", "GBP"]},
		"gift": {"type": "boolean"}
	}
}'::jsonb AS schema;
SELECT i AS instance, behavior.json_schema_valid(schema, i::jsonb) FROM purchase, (VALUES
	('{"item": "cup", "price": 9.99, "quantity": 1}'),
	('{"item": "cup", "price": 10, "quantity": 1.0, "currency": "EUR", "gift": false, "more": [1, 2]}'),
	('{"item": "", "price": -0.01, "quantity": 0}'),
	('{"item": "cup", "price": 9.999, "quantity": 1.5}'),
	('{"price": 1}'), ('{}'), ('[]'), ('"cup"'), ('null'), ('true'), ('1')) AS t (i);
SELECT e.* FROM purchase, behavior.json_schema_errors(schema,
	'{"item": "", "price": -0.011, "quantity": 1000.5, "currency": "eur", "gift": "yes"}') e;
SELECT e.* FROM purchase, behavior.json_schema_errors(schema, '{"gift": null}') e;
SELECT e.* FROM purchase, behavior.json_schema_errors(schema, '[]') e;
SELECT e.* FROM purchase, behavior.json_schema_errors(schema, '{"item": "cup", "price": 1, "quantity": 1}') e;
SELECT behavior.json_schema_valid(NULL, '1'), behavior.json_schema_valid('true', NULL),
	(SELECT count(*) FROM behavior.json_schema_errors(NULL, '1')) AS rows;

-- Paths and messages of every keyword.
CREATE FUNCTION pg_temp.errors(schema jsonb, instance jsonb) RETURNS TABLE (at text, rule text, message text) LANGUAGE sql AS
$$ SELECT * FROM behavior.json_schema_errors(schema, instance, true) $$;
SELECT s AS schema, e.at, e.rule, e.message FROM (VALUES
	('false', '1'),
	('{"type": ["string", "null"]}', '1'),
	('{"type": ["number", "integer"]}', '"x"'),
	('{"const": {"a": [1, "é"]}}', '{"a": [1]}'),
	('{"enum": []}', '1'),
	('{"enum": [1, "a", null, {"b": 2}]}', '"b"'),
	('{"minimum": 1e3}', '999.9'), ('{"maximum": -1}', '0'), ('{"exclusiveMinimum": 0}', '0.0'), ('{"exclusiveMaximum": 5}', '5'),
	('{"multipleOf": 0.1}', '0.25'),
	('{"maxLength": 2}', '"äöü"'), ('{"minLength": 4}', '"äöü"'), ('{"pattern": "^a"}', '"b"'), ('{"format": "date"}', '"2023-02-29"'),
	('{"minItems": 2}', '[1]'), ('{"maxItems": 0}', '[1]'), ('{"uniqueItems": true}', '[1, {"a": 2}, 1.0]'),
	('{"prefixItems": [true, {"type": "string"}], "items": false}', '[1, 2, 3]'),
	('{"contains": {"const": 1}}', '[2]'), ('{"contains": {"const": 1}, "minContains": 2}', '[1, 2]'),
	('{"contains": {"const": 1}, "maxContains": 1}', '[1, 2, 1]'),
	('{"unevaluatedItems": false, "prefixItems": [true]}', '[1, 2]'),
	('{"minProperties": 1}', '{}'), ('{"maxProperties": 1}', '{"a": 1, "b": 2}'),
	('{"required": ["a/b", "~"]}', '{}'),
	('{"properties": {"a/b~c": {"type": "null"}}}', '{"a/b~c": 1}'),
	('{"patternProperties": {"^x": {"type": "null"}}, "additionalProperties": false}', '{"x1": 1, "y": 2}'),
	('{"propertyNames": {"maxLength": 1}}', '{"long": 1}'),
	('{"unevaluatedProperties": {"type": "string"}, "properties": {"a": true}}', '{"a": 1, "b": 2}'),
	('{"dependentRequired": {"a": ["b", "c"]}}', '{"a": 1, "b": 2}'),
	('{"dependentSchemas": {"a": {"minProperties": 2}}}', '{"a": 1}'),
	('{"$schema": "http://json-schema.org/draft-07/schema#", "dependencies": {"a": ["b"], "b": {"maxProperties": 1}}}', '{"a": 1}'),
	('{"allOf": [{"type": "string"}, {"minimum": 2}]}', '1'),
	('{"anyOf": [{"type": "string"}, {"minimum": 2}]}', '1'),
	('{"oneOf": [{"type": "string"}, {"minimum": 2}]}', '1'), ('{"oneOf": [true, {"minimum": 2}, true]}', '1'),
	('{"not": {}}', '1'),
	('{"if": {"type": "number"}, "then": {"minimum": 2}, "else": false}', '1'), ('{"if": {"type": "number"}, "else": {"minLength": 2}}', '"a"'),
	('{"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#b"}}, "c": {"$anchor": "b", "type": "integer"}}}', '[1, 2.5]'),
	('{"$ref": "https://json-schema.org/draft/2020-12/schema"}', '{"minLength": -1}'),
	('{"$ref": "http://json-schema.org/draft-07/schema"}', '{"required": "a"}')
) AS t (s, i), pg_temp.errors(s::jsonb, i::jsonb) e;

-- Numbers are compared by value, to the last digit.
SELECT s AS schema, i AS instance, behavior.json_schema_valid(s::jsonb, i::jsonb) FROM (VALUES
	('{"type": "integer"}', '1.0'), ('{"type": "integer"}', '1e2'), ('{"type": "integer"}', '1.000000000000000000001'), ('{"type": "integer"}', '1e300'),
	('{"type": "integer"}', '-0.0'), ('{"type": "number"}', '1'), ('{"const": 1}', '1.00'), ('{"enum": [[1.0]]}', '[1]'), ('{"const": 0}', '-0'),
	('{"const": false}', '0'), ('{"const": 1}', 'true'), ('{"const": "1"}', '1'),
	('{"maximum": 9007199254740993}', '9007199254740992'), ('{"maximum": 9007199254740992}', '9007199254740993'),
	('{"minimum": 0.1}', '0.10000000000000000000000000001'), ('{"exclusiveMinimum": 0.1}', '0.100'),
	('{"minimum": -1e400}', '-1e399'), ('{"maximum": -1e-400}', '0'), ('{"maximum": -20000}', '-30000'), ('{"minimum": 10000}', '9999.9999'),
	('{"multipleOf": 0.01}', '19.99'), ('{"multipleOf": 0.01}', '19.999'), ('{"multipleOf": 1e-8}', '12391239123'), ('{"multipleOf": 3}', '1e50'),
	('{"multipleOf": 123456789}', '1524157875019052100'), ('{"multipleOf": 7}', '700000000000000000000000000000000000000000000000000007'),
	('{"multipleOf": 7}', '700000000000000000000000000000000000000000000000000008'), ('{"multipleOf": 0.3}', '-0.9'), ('{"multipleOf": 5}', '0'),
	('{"multipleOf": 1e400}', '1e399'), ('{"multipleOf": 1e-400}', '1e400'), ('{"multipleOf": 2.5e-300}', '1e-299'),
	('{"maxLength": 1e100}', '"a"'), ('{"minLength": 2.0}', '"💩"'), ('{"maxItems": 99999999999}', '[1]'), ('{"minItems": 99999999999}', '[1]')
) AS t (s, i);
-- Against numeric itself.
SELECT setseed(0.4);
CREATE TEMP TABLE pair AS
SELECT CASE WHEN i % 3 = 0 THEN b ELSE a END AS a, b FROM (
	SELECT i, round((random() - 0.5)::numeric * 10::numeric ^ (floor(random() * 30))::int, (floor(random() * 12))::int) AS a,
		round((random() - 0.5)::numeric * 10::numeric ^ (floor(random() * 30))::int, (floor(random() * 12))::int) AS b
	FROM generate_series(1, 3000) i) t;
INSERT INTO pair SELECT a, round(a) FROM pair;
INSERT INTO pair SELECT a * 12, a FROM pair WHERE a <> 0;
SELECT count(*) AS pairs, count(*) FILTER (WHERE
	behavior.json_schema_valid(jsonb_build_object('minimum', b), to_jsonb(a)) <> (a >= b)
	OR behavior.json_schema_valid(jsonb_build_object('maximum', b), to_jsonb(a)) <> (a <= b)
	OR behavior.json_schema_valid(jsonb_build_object('exclusiveMinimum', b), to_jsonb(a)) <> (a > b)
	OR behavior.json_schema_valid(jsonb_build_object('exclusiveMaximum', b), to_jsonb(a)) <> (a < b)
	OR behavior.json_schema_valid(jsonb_build_object('const', b), to_jsonb(a)) <> (a = b)
	OR behavior.json_schema_valid('{"type": "integer"}', to_jsonb(a)) <> (a = trunc(a))
	OR CASE WHEN b > 0 THEN behavior.json_schema_valid(jsonb_build_object('multipleOf', b), to_jsonb(a)) <> (a % b = 0) END) AS wrong
FROM pair;

-- uniqueItems by values, in short arrays and in long ones.
SELECT behavior.json_schema_valid('{"uniqueItems": true}', (SELECT jsonb_agg(jsonb_build_array(i, i * 2)) FROM generate_series(1, 5000) i)) AS unique,
	behavior.json_schema_valid('{"uniqueItems": true}', (SELECT jsonb_agg(jsonb_build_object('a', i % 4999, 'b', 1)) FROM generate_series(1, 5000) i)) AS not_unique;
SELECT message FROM behavior.json_schema_errors('{"uniqueItems": true}', '[[1], 1, 2, 3, "3", null, false, true, {}, [], {"a": 1}, "a", 2.00, [1.0]]');

-- Large objects: each way to look for properties, and bits beyond the first words.
SELECT behavior.json_schema_valid(s, o) AS fits, behavior.json_schema_valid(s, o - 'p77') AS p77_is_missing,
	behavior.json_schema_valid(s, o || '{"p300": 1}') AS p300_is_a_number, behavior.json_schema_valid(s, '{"p1": "a", "p77": "b"}') AS few,
	behavior.json_schema_valid(s, '{"p1": "a", "p76": "b"}') AS few_without
FROM (SELECT jsonb_object_agg('p' || i, 'x') AS o,
	jsonb_build_object('required', '["p77"]'::jsonb, 'properties', jsonb_object_agg('p' || i, '{"type": "string"}'::jsonb)) AS s
	FROM generate_series(1, 500) i) t;
SELECT behavior.json_schema_valid(s, o) AS all_known, behavior.json_schema_valid(s, o || '{"q": 1}') AS q_is_not
FROM (SELECT jsonb_object_agg('p' || i, 'x') AS o,
	'{"allOf": [{"patternProperties": {"^p[0-9]*[02468]$": true}}, {"patternProperties": {"^p[0-9]*[13579]$": true}}], "unevaluatedProperties": false}'::jsonb AS s
	FROM generate_series(1, 500) i) t;

-- Formats are remarks until they are asserted.
SELECT behavior.json_schema_valid('{"format": "uuid"}', '"x"'), behavior.json_schema_valid('{"format": "uuid"}', '"x"', assert_format => true),
	behavior.json_schema_valid('{"format": "no such format"}', '"x"', true), behavior.json_schema_valid('{"format": "uuid"}', '5', true);
-- A schema may ask for it by itself, for an event type for instance.
SELECT behavior.json_schema_valid('{"x-assert-format": true, "items": {"format": "uuid"}}', '["x"]'),
	behavior.json_schema_valid('{"x-assert-format": false, "items": {"format": "uuid"}}', '["x"]'),
	behavior.json_schema_valid('{"items": {"x-assert-format": true, "format": "uuid"}}', '["x"]');
SELECT f AS format, array_agg(v) FILTER (WHERE ok) AS valid, array_agg(v) FILTER (WHERE NOT ok) AS invalid
FROM (SELECT f, v, behavior.json_schema_valid(jsonb_build_object('format', f), to_jsonb(v), true) AS ok FROM (VALUES
	('date-time', ARRAY['2024-02-29T12:00:00Z', '1985-04-12t23:20:50.52z', '1990-12-31T15:59:60-08:00', '2024-02-29 12:00:00Z', '2024-02-29T12:00:00',
		'2023-02-29T12:00:00Z', '1990-12-31T15:59:60Z', '2024-13-01T00:00:00Z', '2024-01-01T24:00:00Z', '2024-01-01T00:00:00+24:00', '2024-1-1T00:00:00Z', '']),
	('date', ARRAY['2000-02-29', '1900-02-29', '2024-04-31', '2024-4-3', '2024-04-03Z']),
	('time', ARRAY['08:30:06Z', '23:59:60Z', '01:29:60+01:30', '22:59:60Z', '08:30:06', '8:30:06Z', '08:30:06.Z', '08:30:06+00']),
	('duration', ARRAY['P4DT12H30M5S', 'P4Y', 'PT0S', 'P2W', 'P1Y2M3DT4H5M6S', 'PT1M', 'P', 'PT', 'P1', 'P1YT', '4D', 'P1Y2D', 'P2W1D', 'PT1D', 'P1D2H', 'P1.5D']),
	('email', ARRAY['joe@example.org', 'a.b+c@d', '"joe bloggs"@example.org', 'joe@[127.0.0.1]', 'joe@[IPv6:::1]', 'joe', '@d', 'a@', '.a@d', 'a.@d', 'a..b@d',
		'a b@d', 'a@-d', 'joe@[300.0.0.1]', '"a@d']),
	('hostname', ARRAY['www.example.com', 'a', 'xn--4gbwdl.xn--wgbh1c', '1.2', '', '-a', 'a-', 'a..b', 'a_b', 'a.', repeat('a', 64), repeat('a.', 127) || 'a']),
	('ipv4', ARRAY['0.0.0.0', '255.255.255.255', '256.0.0.0', '1.2.3', '1.2.3.4.5', '01.2.3.4', '1.2.3.', '0x7f.1.2.3', '1.2.3.4 ']),
	('ipv6', ARRAY['::', '::1', '1::', '1:2:3:4:5:6:7:8', '::ffff:192.168.0.1', '1:2::8', 'abcd::', '1:2:3:4:5:6:7', '1:2:3:4:5:6:7:8:9', ':::', '1::2::3', '12345::',
		'::1%eth0', '1:2:3:4:5:6:7:', ':2:3:4:5:6:7:8', '1.2.3.4', '::1.2.3', '1:2:3:4:5:6:7::8', '::1:2:3:4:5:6:7:8']),
	('uri', ARRAY['http://example.com/a?b=c#d', 'urn:isbn:123', 'mailto:a@b', 'http://[::1]:80/', 'ldap://[2001:db8::7]/c=GB?x', 'a:', 'http://u:p@h:8/%20', 'tel:+1-816',
		'//x/y', '/a', 'a', '', ':a', 'http:// a', 'http://a/b c', 'http://a/%zz', 'http://a/ü', 'http://a/<b>', 'http://[::1', 'http://a:b/', '1a:b', 'http://a/\b']),
	('uuid', ARRAY['2EB8AA08-aa98-11EA-b4aa-73b441d16380', '2eb8aa08aa9811eab4aa73b441d16380', '2eb8aa08-aa98-11ea-b4aa-73b441d1638', '2eb8aa08-aa98-11ea-b4aa-73b441d1638g']),
	('json-pointer', ARRAY['', '/', '/a/0/~0~1', 'a', '/~', '/~2', '#/a']),
	('regex', ARRAY['^a|b$', '(?<n>a)\k<n>', '\p{L}', '[', '(', ')', '*', '\Z', '\a', 'a{2}{3}', 'a++', '(?>a)', '(?i)a', '(*UTF)a', '\'])
) AS t (f, vs), unnest(vs) AS v) t GROUP BY f ORDER BY f;

-- Regular expressions as ECMA-262 has them.
-- Not aligned: how wide some of these characters are depends on psql's version.
\pset format unaligned
SELECT p AS pattern, array_agg(v) FILTER (WHERE ok) AS match, array_agg(v) FILTER (WHERE NOT ok) AS no_match
FROM (SELECT n, p, v, behavior.json_schema_valid(jsonb_build_object('pattern', p), to_jsonb(v)) AS ok FROM (VALUES
	(1, '^\d$', ARRAY['5', '٥', 'a']), (2, '^\w$', ARRAY['a', '_', 'é', '-']), (3, '^\s$', ARRAY[' ', E'\u00a0', E'\ufeff', E'\u200b', 'a']), (4, '^\S$', ARRAY['a', 'é', E'\u2003']),
	(5, '^.$', ARRAY['a', '💩', E'\n', E'\u2028', E'\u0085']), (6, '^a$', ARRAY['a', E'a\n', E'b\na']), (7, '^\p{Lu}\p{Letter}+$', ARRAY['Éa', 'éa', 'A1']),
	(8, '^\p{Script=Greek}+$', ARRAY['αβ', 'ab']), (9, '^\P{L}$', ARRAY['1', 'a']), (10, '^\cJ$', ARRAY[E'\n', 'J']), (11, '^\u00e9\x41\u{1F4A9}\ud83d\udca9$', ARRAY['éA💩💩', 'e']),
	(12, '^[\d-x]$', ARRAY['5', '-', 'x', 'y']), (13, '^[[:alpha:]]$', ARRAY['a]', ':]', 'z']), (14, '^[^\d\s]$', ARRAY['a', '5', ' ']), (15, '^[\S]$', ARRAY['a', ' ']),
	(16, '^(?:a|b)\1?(c)?$', ARRAY['a', 'bc', 'c']), (17, '^(?=a)(?!ab)\w+$', ARRAY['ac', 'ab']), (18, '(?<!a)b', ARRAY['b', 'ab', 'cb']), (19, '^a{2,3}$', ARRAY['a', 'aa', 'aaaa']),
	(20, '^a{,2}$', ARRAY['a{,2}', 'aa']), (21, '\bfoo\b', ARRAY['a foo b', 'food', 'éfoo']), (22, 'x*?y', ARRAY['xxy', 'x']), (23, '[]', ARRAY['', 'a']), (24, '^[^]$', ARRAY['a', E'\n', '']),
	(25, '^[\b]$', ARRAY[E'\b', 'b']), (26, '^\/\-\.\$$', ARRAY['/-.$', 'a']), (27, '^$', ARRAY['', 'a']), (28, '^[a-c\-]+$', ARRAY['a-b', 'd']), (29, '(a)|b\1$', ARRAY['b', 'c'])
) AS t (n, p, vs), unnest(vs) AS v) t GROUP BY n, p ORDER BY n;
\pset format aligned

-- A pattern cannot hang: what takes too long is not valid, and says so, whatever stands around it.
SELECT * FROM behavior.json_schema_errors('{"pattern": "^(a+)+$"}', to_jsonb(repeat('a', 40) || 'b'));
SELECT * FROM behavior.json_schema_errors('{"not": {"pattern": "^(a|aa)*$"}}', to_jsonb(repeat('a', 60) || 'b'));
SELECT * FROM behavior.json_schema_errors('{"patternProperties": {"^(x+x+)+[yz]$": false}}', jsonb_build_object(repeat('x', 60), 1));
SELECT behavior.json_schema_valid('{"pattern": "^(.*)*(.*)*(.*)*x$"}', to_jsonb(repeat('a', 100000))) AS long,
	behavior.json_schema_valid('{"pattern": "z"}', to_jsonb(repeat('a', 250000) || 'z')) AS late,
	behavior.json_schema_valid('{"pattern": "^(a|b)*z$"}', to_jsonb(repeat('a', 20000) || 'z')) AS alternatives,
	behavior.json_schema_valid('{"pattern": "^[a-y]*z$"}', to_jsonb(repeat('a', 1000000) || 'z')) AS later;
-- Nor can references: 2^60 evaluations.
SELECT * FROM behavior.json_schema_errors(
	(SELECT jsonb_build_object('$ref', '#/$defs/d0', '$defs', jsonb_object_agg('d' || i,
		CASE WHEN i = 60 THEN '{"type": "string"}'::jsonb ELSE jsonb_build_object('anyOf', jsonb_build_array(
			jsonb_build_object('$ref', '#/$defs/d' || i + 1), jsonb_build_object('$ref', '#/$defs/d' || i + 1))) END))
	FROM generate_series(0, 60) i), '1');
-- Nor depth.
SELECT * FROM behavior.json_schema_errors('{"$dynamicAnchor": "a", "$dynamicRef": "#a"}', '1');
SELECT n, behavior.json_schema_valid('{"items": {"$ref": "#"}}', (repeat('[', n) || repeat(']', n))::jsonb) FROM unnest(ARRAY[500, 2000, 4000]) n;
SELECT behavior.json_schema_valid(jsonb_build_object('const', d), d), behavior.json_schema_valid(jsonb_build_object('const', d), e) FROM
	(SELECT (repeat('[', 3000) || 1 || repeat(']', 3000))::jsonb AS d, (repeat('[', 3000) || 2 || repeat(']', 3000))::jsonb AS e) t;

-- Whatever takes time takes steps: values that are compared, members and elements that are passed by.
SELECT name, behavior.json_schema_valid(schema, instance)
FROM (SELECT jsonb_agg(i) AS numbers, jsonb_object_agg('k' || i, i) AS members FROM generate_series(1, 10000) i) n,
	LATERAL (VALUES
	('const', jsonb_build_object('const', numbers), numbers), ('uniqueItems', '{"uniqueItems": true}', jsonb_build_array(numbers, numbers - 9999 || '0')),
	('items', '{"items": true}', numbers), ('required', '{"required": ["k1"]}', members), ('unevaluatedProperties', '{"unevaluatedProperties": true}', members)) t (name, leaf, instance),
	LATERAL (SELECT jsonb_build_object('$ref', '#/$defs/d0', '$defs', jsonb_object_agg('d' || i, CASE WHEN i = 14 THEN leaf
		ELSE jsonb_build_object('allOf', jsonb_build_array(jsonb_build_object('$ref', '#/$defs/d' || i + 1), jsonb_build_object('$ref', '#/$defs/d' || i + 1))) END)) AS schema
		FROM generate_series(0, 14) i) s;

-- Schemas that are refused, with the place.
CREATE FUNCTION pg_temp.refusal(schema text, OUT state text, OUT message text, OUT detail text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM behavior.json_schema_valid(schema::jsonb, '1');
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
END $$;
SELECT s AS schema, r.* FROM unnest(ARRAY[
	'1', 'null', '[]', '"object"',
	'{"type": "strin"}', '{"type": ["string", 1]}', '{"type": []}', '{"properties": {"a/b": {"items": {"type": 5}}}}',
	'{"minimum": "1"}', '{"minLength": -1}', '{"minLength": 1.5}', '{"multipleOf": 0}', '{"multipleOf": -2}',
	'{"pattern": "("}', '{"pattern": "a**"}', '{"pattern": 1}', '{"patternProperties": {"[b-a]": true}}',
	'{"required": "a"}', '{"required": ["a", 1]}', '{"required": ["a", "a"]}', '{"enum": 1}', '{"allOf": []}', '{"allOf": {}}', '{"items": [true]}', '{"items": 1}',
	'{"properties": []}', '{"additionalProperties": 1}', '{"uniqueItems": 1}', '{"dependentRequired": {"a": true}}', '{"title": 1}', '{"$defs": {"a": 1}}', '{"if": 1}',
	'{"$ref": 1}', '{"$ref": "#/$defs/a"}', '{"$ref": "#a"}', '{"$ref": "#/type", "type": "object"}', '{"$ref": "http://example.com/schema"}', '{"$ref": "other.json#/a"}',
	'{"$ref": "#/x", "x": {"type": "z"}}', '{"$ref": "#/x", "x": {"title": 1}}', '{"properties": {"a": {"$ref": "#/properties/b"}}}',
	'{"$ref": "#"}', '{"allOf": [{"$ref": "#"}]}', '{"$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"anyOf": [true, {"$ref": "#/$defs/a"}]}}, "properties": {"x": {"$ref": "#/$defs/a"}}}',
	'{"$schema": "http://json-schema.org/draft-04/schema#"}', '{"$schema": 1}', '{"properties": {"a": {"$schema": "http://json-schema.org/draft-07/schema#", "$id": "a"}}}',
	'{"x-assert-format": 1}', '{"$anchor": "a", "items": {"$anchor": "a"}}', '{"$defs": {"a": {"$id": "x"}, "b": {"$id": "x"}}}', '{"$id": "a#b"}', '{"$anchor": "1"}', '{"$id": 1}',
	'{"$schema": "http://json-schema.org/draft-07/schema#", "items": []}', '{"$schema": "http://json-schema.org/draft-07/schema", "dependencies": {"a": 1}}'
]) AS s, pg_temp.refusal(s) r;
-- In PCRE2's words, which change.
SELECT s AS schema, r.state, r.detail FROM unnest(ARRAY['{"pattern": "\\p{Nonsense}"}', '{"pattern": "(?<=a+)b"}', '{"pattern": "\\2(a)"}', '{"pattern": "a{70000}"}']) AS s,
	pg_temp.refusal(s) r;
SELECT r.* FROM pg_temp.refusal((SELECT repeat('{"items": ', 600) || 'true' || repeat('}', 600))) r;
SELECT r.* FROM pg_temp.refusal((SELECT jsonb_build_object('$ref', '#/$defs/d0', '$defs', jsonb_object_agg('d' || i,
	CASE WHEN i = 1000 THEN '{}' ELSE jsonb_build_object('$ref', '#/$defs/d' || i + 1) END)) FROM generate_series(0, 1000) i)::text) r;
-- Unknown keywords are remarks, and what they hold is no schema unless something refers to it.
SELECT behavior.json_schema_valid('{"x": {"type": 5, "$id": 7}, "dependencies": {"a": ["b"]}, "$ref": "#/y", "y": {"type": "object"}}', '{"a": 1}');
-- A schema that refers to itself for what is inside is fine.
SELECT behavior.json_schema_valid(s, '{"v": 1, "next": {"v": 2, "next": {"v": 3}}}'), behavior.json_schema_valid(s, '{"v": 1, "next": {"v": 2, "next": {"v": "3"}}}')
FROM (SELECT '{"properties": {"v": {"type": "integer"}, "next": {"$ref": "#"}}, "required": ["v"]}'::jsonb AS s) t;
-- In draft 7 nothing counts beside a $ref.
SELECT behavior.json_schema_valid(s || '{"$schema": "http://json-schema.org/draft-07/schema#"}', '"long"'), behavior.json_schema_valid(s, '"long"')
FROM (SELECT '{"$ref": "#/definitions/a", "maxLength": 2, "definitions": {"a": {"type": "string"}}}'::jsonb AS s) t;

-- The cache holds many schemas, forgets, and finds again; one of a bad schema leaves nothing.
SELECT count(*) FILTER (WHERE behavior.json_schema_valid(jsonb_build_object('maximum', i % 700), to_jsonb(i)) <> (i <= i % 700)) AS wrong
FROM generate_series(1, 3000) i;
SELECT sum(used_bytes) < 16 * 1024 * 1024 AS bounded FROM pg_backend_memory_contexts WHERE name LIKE 'behavior%';

-- Everybody may; tests have a function of their own.
CREATE ROLE regress_json_schema_reader;
SET ROLE regress_json_schema_reader;
SELECT behavior.json_schema_valid('{"type": "integer"}', '1'), (SELECT count(*) FROM behavior.json_schema_errors('false', '1'));
SELECT behavior._json_schema_fuzz('{true}', '{1}', 1, 1);
RESET ROLE;
DROP ROLE regress_json_schema_reader;

-- Random schemas made of those above; test/oracle has more of them.
SELECT compiled > 100 AS compiled, refused > 10 AS refused, valid > 100 AS valid, invalid > 100 AS invalid, growth < 1024 * 1024 AS no_leak
FROM behavior._json_schema_fuzz((SELECT array_agg(schema::text) FROM purchase) || ARRAY[
	'{"$defs": {"a": {"$anchor": "x", "properties": {"n": {"$ref": "#"}}}}, "anyOf": [{"$ref": "#x"}, {"type": "array", "prefixItems": [{"minimum": 1}], "items": {"$ref": "#/$defs/a"}}], "unevaluatedProperties": false}',
	'{"$dynamicAnchor": "t", "patternProperties": {"^(a+)+$": {"$dynamicRef": "#t"}}, "contains": {"multipleOf": 0.3}, "uniqueItems": true, "not": {"const": [1, "a"]}}',
	'{"$schema": "http://json-schema.org/draft-07/schema#", "dependencies": {"a": ["b"], "b": {"maxProperties": 3}}, "items": [{"format": "uri"}], "additionalItems": {"pattern": "^\\w+\\s$"}}'],
	ARRAY['{"item": "cup", "price": 9.99, "quantity": 1, "currency": "EUR"}', '[1, "a", {"n": {"n": []}}]', '{"a": 1, "b": [2, 2.0], "aa": {"aaab": null}}', '"http://a/b"', '0.9'], 1, 3000);

-- Event patterns: the language, its errors, sets of patterns, and the form of an event that patterns see.
\pset null '(null)'
SET timezone = 'America/New_York';	-- must not matter

-- One field x with each list of alternatives, against each value.
CREATE FUNCTION matching(alternatives text, VARIADIC vals text[]) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(v, '  ' ORDER BY n) FILTER (WHERE behavior.event_matches(
		format('{"x": [%s]}', alternatives)::jsonb, format('{"x": %s}', v)::jsonb)), 'none')
	FROM unnest(vals) WITH ORDINALITY AS u (v, n) $$;

SELECT a AS alternatives, matching(a, '"a"', '"A"', '""', '"abc"', '"null"', '"true"', '"1"', '1', '1.0', '0', '-0.0', 'true', 'false', 'null', '[]', '{}', '["a"]', '[1, "b"]', '[[["a"]]]', '[null]')
FROM (VALUES ('"a"'), ('""'), ('"null"'), ('"1"'), ('1'), ('1.00'), ('0'), ('true'), ('false'), ('null'), ('"a", 1'), ('{"exactly": "a"}'),
	('{"exists": true}'), ('{"exists": false}'), ('{"exists": true}, {"exists": false}'), ('{"exists": false}, "a"')) AS t (a);
SELECT behavior.event_matches('{"x": [{"exists": true}]}', '{}') AS exists_true, behavior.event_matches('{"x": [{"exists": false}]}', '{}') AS exists_false,
	behavior.event_matches('{"x": {"y": [{"exists": false}]}}', '{"x": 1}') AS below_a_scalar, behavior.event_matches('{"x": [null]}', '{}') AS no_null;

-- Strings.
SELECT a AS alternatives, matching(a, '"abc"', '"ABC"', '"abcd"', '"xabc"', '"a"', '""', '"b"', '1', 'null', '"中文字"', '"文字"')
FROM (VALUES ('{"prefix": "abc"}'), ('{"prefix": ""}'), ('{"suffix": "abc"}'), ('{"suffix": ""}'), ('{"suffix": "文字"}'), ('{"prefix": "中"}'),
	('{"prefix": {"equals-ignore-case": "aB"}}'), ('{"prefix": {"equals-ignore-case": ""}}'), ('{"suffix": {"equals-ignore-case": "bC"}}'),
	('{"suffix": {"equals-ignore-case": "文字"}}'), ('{"equals-ignore-case": "aBc"}'), ('{"equals-ignore-case": ""}'), ('{"prefix": "ab"}, {"suffix": "文字"}')) AS t (a);

-- Case: by character of the pattern, its lower and its upper form; not symmetric, nothing outside of the basic plane.
SELECT a AS pattern, matching(format('{"equals-ignore-case": "%s"}', a), VARIADIC ARRAY(SELECT to_json(w)::text FROM unnest(words) w)) AS accepts
FROM (VALUES ('ß', ARRAY['ß', 'SS', 'ss', 'ẞ']), ('ss', ARRAY['ß', 'SS', 'ss', 'sS']), ('ẞ', ARRAY['ß', 'SS', 'ẞ']), ('ⱥ', ARRAY['ⱥ', 'Ⱥ']), ('Ⱥ', ARRAY['ⱥ', 'Ⱥ']),
	('ΰ', ARRAY['ΰ', U&'\03A5\0308\0301', U&'\03AB']), ('ǅ', ARRAY['ǅ', 'ǆ', 'Ǆ']), ('ǆ', ARRAY['ǅ', 'ǆ', 'Ǆ']), ('i', ARRAY['i', 'I', 'İ', 'ı']), ('İ', ARRAY['i', 'I', 'İ', 'i̇']), ('ı', ARRAY['i', 'I', 'ı']),
	(U&'\212A', ARRAY['K', 'k', U&'\212A']), ('k', ARRAY['K', 'k', U&'\212A']), ('Σ', ARRAY['σ', 'ς', 'Σ']), ('ς', ARRAY['σ', 'ς', 'Σ']), ('ﬃ', ARRAY['ﬃ', 'FFI', 'ffi']), ('éÀ', ARRAY['Éà', 'éÀ', 'EA']),
	('𐐀', ARRAY['𐐀', '𐐨']), ('Привет', ARRAY['пРИВЕТ', 'ПРИВЕТ', 'привет', 'прива'])) AS t (a, words);
SELECT matching('{"prefix": {"equals-ignore-case": "straß"}}', '"STRASSE"', '"Straße"', '"strasse"', '"stra"') AS prefix,
	matching('{"suffix": {"equals-ignore-case": "ße"}}', '"STRASSE"', '"Straße"', '"strasse"', '"e"') AS suffix;

-- Wildcards.
SELECT a AS wildcard, matching(format('{"wildcard": %s}', a), '""', '"a"', '"abc"', '"abcabc"', '"a*c"', '"a\\c"', '"abcb"', '"*"', '"hello"', '"he*lo"', '"he*o*o"', '"中*文"', '1')
FROM (VALUES ('"*"'), ('""'), ('"abc"'), ('"a*"'), ('"*c"'), ('"a*c"'), ('"*b*"'), ('"*bc"'), ('"a*b*c"'), ('"a\\*c"'), ('"a\\\\c"'), ('"\\*"'), ('"he\\**o"'), ('"h*l*o"'), ('"*abc*abc*"'), ('"中*文"'), ('"*a*b*c*"')) AS t (a);
-- In linear time, however many asterisks.
SELECT behavior.event_matches(jsonb_build_object('x', jsonb_build_array(jsonb_build_object('wildcard', repeat('*a', 1000) || '*b'))),
	jsonb_build_object('x', repeat('a', 200000))) AS many;

-- Numbers: exact decimals, and only numbers.
SELECT a AS numeric, matching(format('{"numeric": [%s]}', a), '300', '300.0', '3.0e2', '299.99999999999999999', '300.00000000000000001', '0', '-0.0', '1e-320', '-5', '9007199254740993', '1e400', '"300"', 'null', '[1, 300]')
FROM (VALUES ('"=", 300'), ('"=", 0'), ('">", 300'), ('">=", 300'), ('"<", 300'), ('"<=", 300'), ('">", 0, "<=", 300'), ('">=", -5, "<", 0'), ('">", 9007199254740992'), ('">", 1e308'), ('"=", 1e-320')) AS t (a);
SELECT matching('123456789012345678901', '123456789012345678901', '123456789012345678900', '123456789012345678901.0') AS literal_of_any_size;

-- Addresses.
SELECT a AS alternatives, matching(a, '"10.0.0.0"', '"10.0.0.255"', '"10.0.1.0"', '"10.0.0.256"', '"10.0.0"', '"10.00.0.1"', '"::"', '"0:0:0:0:0:0:0:0"', '"2001:db8::1"', '"2001:DB8:0::1"', '"2001:db9::1"', '"::ffff:10.0.0.1"', '"::ffff:a00:1"', '"fe80::1%eth0"', '10', '"10.0.0.0/24"')
FROM (VALUES ('{"cidr": "10.0.0.0/24"}'), ('{"cidr": "10.0.0.77/24"}'), ('{"cidr": "0.0.0.0/0"}'), ('{"cidr": "10.0.0.254/31"}'), ('{"cidr": "::/0"}'), ('{"cidr": "2001:db8::/32"}'), ('{"cidr": "2001:db8::/127"}'),
	('"::0"'), ('"2001:0db8::0001"'), ('"10.0.0.255"'), ('{"exactly": "2001:0db8::0001"}'), ('{"anything-but": "2001:0db8::0001"}')) AS t (a);

-- Anything but: whatever is there and is not equal, also of another type; never what is absent.
SELECT a AS "anything-but", matching(format('{"anything-but": %s}', a), '"a"', '"A"', '"abc"', '""', '"123"', '123', '123.0', '12', 'null', 'true', '[]', '{}', '["a", "b"]', '["a"]')
FROM (VALUES ('"a"'), ('""'), ('["a", "abc"]'), ('123'), ('[123, 12]'), ('0'), ('{"prefix": "a"}'), ('{"prefix": ["a", "1"]}'), ('{"suffix": "c"}'), ('{"suffix": ["c", "A"]}'),
	('{"equals-ignore-case": "a"}'), ('{"equals-ignore-case": ["a", ""]}'), ('{"wildcard": "*b*"}'), ('{"wildcard": ["a*", "*3"]}'), ('{"wildcard": ""}')) AS t (a);
SELECT behavior.event_matches('{"x": [{"anything-but": "a"}]}', '{"y": 1}') AS absent, matching('{"anything-but": ["roses"]}, {"exists": false}', '"roses"', '"tulips"') AS or_absent,
	matching('{"anything-but": "a"}, {"anything-but": "b"}', '"a"', '"b"', '"c"') AS two_are_or;

-- Paths: dots join, arrays add nothing, keys are case-sensitive.
SELECT p, e, behavior.event_matches(p::jsonb, e::jsonb) FROM (VALUES
	('{"a": {"b": [1]}}', '{"a.b": 1}'), ('{"a.b": [1]}', '{"a": {"b": 1}}'), ('{"a.b": {"c": [1]}}', '{"a": {"b.c": 1}}'), ('{"a.b": [1]}', '{"a": {"b": 1}, "a.b": 2}'),
	('{"a": {"": [1]}}', '{"a.": 1}'), ('{"": {"": [1]}}', '{".": 1}'), ('{"": [1]}', '{"": 1}'), ('{".a": [1]}', '{"": {"a": 1}}'), ('{".a": [1]}', '{"a": 1}'),
	('{"a": {"b": [1]}}', '{"a": [{"b": 2}, {"b": 1}]}'), ('{"a": {"b": [1]}}', '{"a": [[{"b": [2, [1]]}]]}'), ('{"A": [1]}', '{"a": 1}'),
	('{"a": {"b": [1]}}', '{"a": "{\"b\": 1}"}'), ('{"a": [1]}', '{"a": 1, "a": 2}'), ('{"a": [2]}', '{"a": 1, "a": 2}'), ('{"a": [1], "a": [2]}', '{"a": 2}'),
	('{"$": [1]}', '{"$": 1}'), ('{"a": [1]}', '[{"a": 1}]'), ('{"a": [{"exists": false}]}', '1')) AS t (p, e);

-- Objects and arrays of many entries, with a dot in a key and without; many paths, and few.
WITH big AS (SELECT jsonb_object_agg('k' || n, n) AS o, jsonb_agg(n) AS a FROM generate_series(1, 200) n)
SELECT count(*) FILTER (WHERE behavior.event_matches(jsonb_build_object('k' || n, jsonb_build_array(n)), o)) AS without,
	count(*) FILTER (WHERE behavior.event_matches(jsonb_build_object('k' || n, jsonb_build_array(n)), o || '{"k1.x": 1}')) AS with_a_dot,
	count(*) FILTER (WHERE behavior.event_matches(jsonb_build_object('k' || n, jsonb_build_array(n)), jsonb_build_object('k' || n, n))) AS alone,
	count(*) FILTER (WHERE behavior.event_matches(jsonb_build_object('a', jsonb_build_array(n)), jsonb_build_object('a', a))) AS elements,
	count(*) FILTER (WHERE behavior.event_matches(jsonb_build_object('k' || n, jsonb_build_array(n + 1)), o)) AS wrong
FROM big, generate_series(1, 200) n GROUP BY o;
SELECT behavior.event_matches((SELECT jsonb_object_agg('k' || n, jsonb_build_array(n)) FROM generate_series(1, 200) n), o) AS all_of_them,
	behavior.event_matches((SELECT jsonb_object_agg('k' || n, jsonb_build_array(n)) FROM generate_series(1, 200) n), o || '{"k77": 0}') AS but_one
FROM (SELECT jsonb_object_agg('k' || n, n) AS o FROM generate_series(1, 200) n) big;
SELECT event, cardinality(matched), matched[1:3] AS first FROM behavior._pattern_set_matches((SELECT jsonb_agg(jsonb_build_object('k' || n, jsonb_build_array(n)) ORDER BY n) FROM generate_series(1, 200) n),
	jsonb_build_array('{"k7": 7}'::jsonb, '{"k7": 7, "k200": 200, "a.b": 1}'::jsonb, (SELECT jsonb_object_agg('k' || n, n) FROM generate_series(51, 200) n)));

-- Arrays: no two fields from different elements of the same one.
SELECT p, e, behavior.event_matches(p::jsonb, e::jsonb) FROM (VALUES
	('{"employees": {"firstName": ["Anna"], "lastName": ["Jones"]}}', '{"employees": [{"firstName": "Anna", "lastName": "Smith"}, {"firstName": "Peter", "lastName": "Jones"}]}'),
	('{"employees": {"firstName": ["Anna"], "lastName": ["Smith"]}}', '{"employees": [{"firstName": "Anna", "lastName": "Smith"}, {"firstName": "Peter", "lastName": "Jones"}]}'),
	('{"a": {"b": {"c": [1], "d": [2]}}}', '{"a": [{"b": [{"c": 1}, {"d": 2}]}]}'), ('{"a": {"b": {"c": [1], "d": [2]}}}', '{"a": [{"b": [{"c": 1}]}, {"b": [{"d": 2}]}]}'),
	('{"a": {"b": {"c": [1], "d": [2]}}}', '{"a": [{"b": [{"c": 1}]}, {"b": [{"c": 1}, {"c": 1, "d": 2}]}]}'), ('{"a": {"b": {"c": [1]}, "e": [3]}}', '{"a": [{"b": [{"c": 1}]}, {"e": 3}]}'),
	('{"a": {"b": {"c": [1]}, "e": [3]}}', '{"a": [{"b": [{"c": 0}, {"c": 1}], "e": 3}]}'), ('{"a": {"x": [1]}, "b": {"y": [2]}}', '{"a": [{"x": 0}, {"x": 1}], "b": [{"y": 2}, {"y": 0}]}'),
	('{"a": [1], "b": [2]}', '{"a": [0, 1], "b": [2, 3]}'), ('{"a": {"x": [1]}, "c": [5]}', '{"a": [{"x": 1}], "c": 5}'), ('{"a": {"x": [1], "y": [2]}}', '{"a": [[{"x": 1}], [{"y": 2}]]}'),
	('{"a": {"x": [1], "y": [2]}}', '{"a": [[{"x": 1, "y": 2}]]}'), ('{"a": {"x": [1], "y": [2], "z": [3]}}', '{"a": [{"x": 1}, {"x": 1, "y": 2}, {"x": 1, "y": 2, "z": 3}]}'),
	('{"a": {"x": [1]}, "a.y": [2]}', '{"a": [{"x": 1}, {"x": 2}], "a.y": 2}'), ('{"a": ["s"], "a.x": [1]}', '{"a": ["s", {"x": 1}]}'), ('{"a": [5], "a.x": [1]}', '{"a": [[5], {"x": 1}]}'),
	('{"d": {"a": [{"exists": true}], "b": [{"exists": false}]}}', '{"d": [{"a": 1}, {"b": 2}]}'),	-- b is in another element
	('{"d": {"a": [{"exists": false}], "b": [{"exists": true}]}}', '{"d": [{"a": 1}, {"b": 2}]}'),	-- a comes first
	('{"d": {"a": [1, {"exists": false}], "b": [2]}}', '{"d": [{"b": 2}]}'), ('{"d": {"a": [1], "b": [2, {"exists": false}]}}', '{"d": [{"a": 1, "b": 3}, {"a": 1}]}'),
	('{"d": {"a": [1], "b": [2, {"exists": false}]}}', '{"d": [{"a": 1, "b": 3}]}')) AS t (p, e);
-- Many elements in many arrays: choices are carried along, not gone through.
WITH big AS (SELECT jsonb_object_agg(k, (SELECT jsonb_agg(jsonb_build_object('x', 1)) FROM generate_series(1, 300))) AS e FROM unnest('{a,b,c,d,e,f}'::text[]) k)
SELECT behavior.event_matches('{"a": {"x": [1]}, "b": {"x": [1]}, "c": {"x": [1]}, "d": {"x": [1]}, "e": {"x": [1]}, "f": {"x": [1]}, "g": [1]}', e) AS no_last_field,
	behavior.event_matches('{"a": {"x": [1], "y": [{"exists": false}]}, "b": {"x": [1]}, "c": {"x": [1]}, "d": {"x": [1]}, "e": {"x": [1]}, "f": {"x": [1]}}', e) AS all_fields FROM big;
SELECT behavior.event_matches('{"a": {"x": [1], "y": [1]}}', jsonb_build_object('a', jsonb_agg(CASE WHEN n % 2 = 0 THEN '{"x": 1}'::jsonb ELSE '{"y": 1}' END))) AS one_of_many
FROM generate_series(1, 20000) n;

-- The same path with dots and nested, an array in each: the only way to many combinations, which come to an end.
WITH big AS (SELECT jsonb_agg('{"x": 1, "y": 1}'::jsonb) AS a FROM generate_series(1, 400))
SELECT behavior.event_matches('{"a": {"b": {"x": [1], "y": [1], "z": [1]}}}', jsonb_build_object('a.b', a, 'a', jsonb_build_object('b', a || '{"z": 1}'))) AS z,
	behavior.event_matches('{"a": {"b": {"x": [1], "y": [1], "z": [2]}}}', jsonb_build_object('a.b', a, 'a', jsonb_build_object('b', a || '{"z": 1}'))) AS no_z FROM big;

-- $or.
SELECT p, string_agg(e, '  ') FILTER (WHERE behavior.event_matches(p::jsonb, e::jsonb)) AS matches FROM (VALUES
	('{"$or": [{"a": [1]}, {"b": [2]}]}'), ('{"$or": [{"a": [1]}, {"b": [2]}], "c": [3]}'), ('{"$or": [{"$or": [{"a": [1]}, {"b": [2]}], "c": [3]}, {"a": [9]}]}'),
	('{"a": [1], "$or": [{"a": [9]}, {"b": [2]}]}'), ('{"d": {"$or": [{"a": [1]}, {"b": [{"exists": false}]}]}}'), ('{"$or": [{"a": [1], "b": [2]}, {"c": [3]}]}')) AS p (p),
	(VALUES ('{"a": 1}'), ('{"b": 2}'), ('{"a": 1, "b": 2}'), ('{"a": 1, "c": 3}'), ('{"a": 9}'), ('{"d": {"a": 1, "b": 1}}'), ('{"d": {"b": 1}}')) AS e (e)
GROUP BY p ORDER BY p COLLATE "C";
-- Multiplied out, to at most 1,000 rules.
CREATE FUNCTION ors(factors int, branches int) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_object_agg('f' || f, jsonb_build_object('$or', (SELECT jsonb_agg(jsonb_build_object('k' || b, '[1]'::jsonb)) FROM generate_series(1, branches) b)))
	FROM generate_series(1, factors) f $$;
SELECT behavior.event_matches(ors(3, 10), '{"f1": {"k10": 1}, "f2": {"k1": 1}, "f3": {"k5": 1}}') AS a_thousand;

-- Errors: the reason, and where.
CREATE FUNCTION refusal(pattern jsonb) RETURNS TABLE (sqlstate_ text, reason text, at text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM behavior.event_matches(pattern, '{}');
	reason := 'accepted'; RETURN NEXT;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS sqlstate_ = RETURNED_SQLSTATE, reason = MESSAGE_TEXT, at = PG_EXCEPTION_DETAIL; RETURN NEXT;
END $$;
SELECT p AS pattern, r.* FROM (VALUES ('[]'), ('1'), ('"a"'), ('null'), ('{}'), ('{"a": {}}'), ('{"a": {"b": {}}}'), ('{"a": []}'), ('{"a": 1}'), ('{"a": {"b": "c"}}'), ('{"a": null}'), ('{"a": [[1]]}'), ('{"a": [1, {"b": 2}]}'),
	('{"$or": 1}'), ('{"$or": {}}'), ('{"$or": []}'), ('{"$or": [{"a": [1]}]}'), ('{"$or": [1, 2]}'), ('{"$or": [{"a": [1]}, [1]]}'), ('{"$or": [{"a": [1]}, {}]}'), ('{"a": {"$or": [{"b": [1]}, {"b": 1}]}}'),
	('{"$or": [{"prefix": [1]}, {"a": [1]}]}'), ('{"$or": [{"a": {"<=": [1]}}, {"a": [1]}]}'), ('{"prefix": [1]}'), ('{"$or": [{"a": [1]}, {"regex": [1]}]}')) AS t (p), LATERAL refusal(p::jsonb) r;
SELECT (refusal(ors(3, 11))).*;
SELECT a AS alternative, left(r.reason, 110) AS reason FROM (VALUES ('{}'), ('{"exists": 1}'), ('{"EXISTS": true}'), ('{"NUMERIC": ["=", 5]}'), ('{"regex": "a"}'), ('{"foo": 1}'), ('{"prefix": "a", "suffix": "b"}'),
	('{"exactly": 1}'), ('{"prefix": 1}'), ('{"prefix": ["a"]}'), ('{"prefix": {}}'), ('{"prefix": {"suffix": "a"}}'), ('{"prefix": {"equals-ignore-case": 1}}'), ('{"prefix": {"equals-ignore-case": "a", "b": 1}}'),
	('{"suffix": 1}'), ('{"suffix": ["a"]}'), ('{"suffix": {}}'), ('{"suffix": {"prefix": "a"}}'), ('{"suffix": {"equals-ignore-case": []}}'), ('{"equals-ignore-case": ["a"]}'), ('{"equals-ignore-case": {"prefix": "a"}}'),
	('{"wildcard": 1}'), ('{"wildcard": ["*"]}'), ('{"wildcard": "a**"}'), ('{"wildcard": "**"}'), ('{"wildcard": "é**"}'), ('{"wildcard": "a\\b"}'), ('{"wildcard": "ab\\"}'), ('{"wildcard": "\\**"}'),
	('{"anything-but": null}'), ('{"anything-but": true}'), ('{"anything-but": []}'), ('{"anything-but": ["a", 1]}'), ('{"anything-but": ["a", null]}'), ('{"anything-but": [["a"]]}'), ('{"anything-but": {}}'), ('{"anything-but": {"numeric": 1}}'), ('{"anything-but": {"cidr": "10.0.0.0/8"}}'),
	('{"anything-but": {"prefix": ""}}'), ('{"anything-but": {"suffix": ["a", ""]}}'), ('{"anything-but": {"prefix": 1}}'), ('{"anything-but": {"suffix": [1]}}'), ('{"anything-but": {"prefix": {"equals-ignore-case": "a"}}}'), ('{"anything-but": {"prefix": []}}'), ('{"anything-but": {"prefix": "a", "suffix": "b"}}'),
	('{"anything-but": {"equals-ignore-case": 1}}'), ('{"anything-but": {"equals-ignore-case": ["a", null]}}'), ('{"anything-but": {"wildcard": 1}}'), ('{"anything-but": {"wildcard": ["a", 1]}}'), ('{"anything-but": {"wildcard": "a**"}}'), ('{"anything-but": 12345678901234567890}'),
	('{"numeric": 5}'), ('{"numeric": []}'), ('{"numeric": [5]}'), ('{"numeric": ["="]}'), ('{"numeric": ["=", "5"]}'), ('{"numeric": ["<"]}'), ('{"numeric": [">", null]}'), ('{"numeric": ["==", 5]}'), ('{"numeric": ["<>", 5]}'), ('{"numeric": ["!=", 5]}'),
	('{"numeric": ["=", 1, 2]}'), ('{"numeric": ["<", 1, ">", 0]}'), ('{"numeric": [">", 1, 2]}'), ('{"numeric": [">", 0, ">", 1]}'), ('{"numeric": [">", 0, "<"]}'), ('{"numeric": [">", 0, "<=", "1"]}'), ('{"numeric": [">", 0, "<", 1, 2]}'),
	('{"numeric": [">", 5, "<", 1]}'), ('{"numeric": [">=", 5, "<=", 5]}'), ('{"numeric": ["=", 9007199254740993]}'), ('{"numeric": ["<", 1e-325]}'), ('{"numeric": [">", 2.0e422]}'), ('{"numeric": ["=", 0.1]}'), ('{"numeric": ["=", 1e-320]}'),
	('{"cidr": 1}'), ('{"cidr": ["10.0.0.0/8"]}'), ('{"cidr": "10.0.0.0"}'), ('{"cidr": "10.0.0.0/8/9"}'), ('{"cidr": "10.0.0.0/"}'), ('{"cidr": "10.0.0.0/a"}'), ('{"cidr": "10.0.0.0/99999999999"}'), ('{"cidr": "10.0.0.0/-1"}'), ('{"cidr": "10.0.0.0/32"}'), ('{"cidr": "::/128"}'),
	('{"cidr": "10.0.0.0/31"}'), ('{"cidr": "::/127"}'), ('{"cidr": "10.0.0.256/8"}'), ('{"cidr": "xx.11.xx/8"}'), ('{"cidr": "xxxx:db8::/8"}'), ('{"cidr": "1:::2/8"}'), ('{"cidr": "localhost/8"}'), ('{"cidr": "/8"}')) AS t (a),
	LATERAL refusal(format('{"a": [%s]}', a)::jsonb) r;

-- The operator, in WHERE, with a constant and with patterns from a table.
SET search_path = public, behavior;
CREATE TABLE sample (n int, e jsonb);
INSERT INTO sample SELECT n, jsonb_build_object('source', CASE n % 3 WHEN 0 THEN 'web' WHEN 1 THEN 'shop' ELSE 'app' END, 'detail', jsonb_build_object('amount', n)) FROM generate_series(1, 1000) n;
ANALYZE sample;
SELECT count(*) FROM sample WHERE e @~ '{"source": ["web"], "detail": {"amount": [{"numeric": [">", 500]}]}}';
CREATE TABLE rule (r int, p jsonb);
INSERT INTO rule SELECT r, jsonb_build_object('detail', jsonb_build_object('amount', jsonb_build_array(r))) FROM generate_series(1, 1500) r;
SELECT count(*), count(*) FILTER (WHERE n <> r) AS wrong FROM rule JOIN sample ON e @~ p WHERE r % 100 = 0;
SELECT count(*) FROM rule WHERE '{"detail": {"amount": 7}}' @~ p;		-- more patterns than are kept
SELECT e @~ NULL AS no_pattern, NULL @~ '{"a": [1]}' AS no_event FROM sample LIMIT 1;
RESET search_path;
-- PL/pgSQL evaluates one expression with other values; what is kept must not be taken for them.
CREATE FUNCTION same_expression(p jsonb, e jsonb) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN behavior.event_matches(p, e); END $$;
SELECT same_expression('{"a": [1]}', '{"a": 1}') AS yes, same_expression('{"a": [2]}', '{"a": 1}') AS no, same_expression('{"a": [1]}', '{"a": 1}') AS yes;
PREPARE matching (jsonb) AS SELECT behavior.event_matches($1, '{"a": 1}');
EXECUTE matching ('{"a": [1]}');
EXECUTE matching ('{"a": [2]}');

-- Why.
CREATE FUNCTION explain(pattern jsonb, event jsonb) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT format('%s %s: %s', CASE matched WHEN true THEN '+' WHEN false THEN '-' ELSE ' ' END, path, why) FROM behavior.explain_match(pattern, event) $$;
SELECT explain('{"source": ["web", "app"], "detail": {"amount": [{"numeric": [">", 5]}, {"exists": false}], "page": [{"prefix": "/p/"}], "ref": [{"exists": true}], "no": [{"exists": false}], "tags": ["x"], "ok": [true], "n": [null]}}',
	'{"source": "web", "detail": {"amount": 7.50, "page": "/q/1", "ref": {}, "tags": ["a", "b"], "ok": true, "n": null}}');
SELECT explain('{"employees": {"firstName": ["Anna"], "lastName": ["Jones"]}}', '{"employees": [{"firstName": "Anna", "lastName": "Smith"}, {"firstName": "Peter", "lastName": "Jones"}]}');
SELECT explain('{"d": {"a": [{"exists": true}], "b": [{"exists": false}]}}', '{"d": [{"a": 1}, {"b": 2}]}');
SELECT explain('{"d": {"a": [{"exists": false}], "b": [{"exists": true}]}}', '{"d": [{"a": 1}, {"b": 2}]}');
SELECT explain('{"x": [1], "$or": [{"a": [1], "x": [2]}, {"b": [2]}, {"c": [{"suffix": "z"}]}]}', '{"x": 1, "b": 2, "c": "y"}');
SELECT explain('{"x": [1], "$or": [{"x": [2]}, {"x": [3]}]}', '{"x": 3}');
SELECT explain('{"x": [1]}', '[]');
SELECT * FROM behavior.explain_match('{"x": 1}', '{}');
SELECT explain('{"x": [{"anything-but": "a"}]}', jsonb_build_object('x', repeat('é', 60)));

-- What patterns see.
SELECT behavior.event_json(jsonb_populate_record(NULL::behavior.event, '{"event_id": "e1", "source": "web", "type": "PageView", "user_id": "u1", "anonymous_id": "d1", "occurred_at": "2024-02-29 13:47:31.120Z",
	"sequence": 42, "properties": {"page": "/"}, "context": {"ip": "10.0.0.1"}, "actor": "u1", "received_at": "2024-03-01 00:00:00Z", "batch_id": 7, "tick_id": 8}'));
SELECT behavior.event_json(jsonb_populate_record(NULL::behavior.event, '{"event_id": "e1", "source": "web", "type": "PageView", "occurred_at": "0044-03-15 12:00:00+00 BC"}'));
SELECT behavior.event_json(NULL);

-- A row of the log, without making that first, and a set against one after the other.
INSERT INTO behavior.event (event_id, source, type, user_id, anonymous_id, occurred_at, sequence, properties, context)
SELECT 'e' || n, CASE n % 3 WHEN 0 THEN 'web' ELSE 'shop' END, CASE n % 2 WHEN 0 THEN 'PageView' ELSE 'Purchase' END, CASE WHEN n % 4 > 0 THEN 'u' || n % 7 END, CASE WHEN n % 5 > 0 THEN 'd' || n % 11 END,
	'2024-05-06 07:08:09Z'::timestamptz + n * interval '1.5 seconds', NULLIF(n % 10, 0), jsonb_build_object('page', '/p/' || n, 'amount', n / 4.0, 'tags', jsonb_build_array('t' || n % 6, n % 3), 'items',
	jsonb_build_array(jsonb_build_object('sku', n % 9, 'n', n % 2), jsonb_build_object('sku', n % 8, 'n', n % 3)), 'long', repeat('x', CASE n WHEN 50 THEN 10000 ELSE 1 END)), CASE WHEN n % 3 > 0 THEN jsonb_build_object('ip', '10.0.' || n % 4 || '.1') END
FROM generate_series(1, 200) n;
CREATE TABLE seen (n serial, p jsonb);
INSERT INTO seen (p) VALUES ('{"source": ["web"]}'), ('{"detail-type": ["Purchase"], "detail": {"amount": [{"numeric": [">", 20, "<=", 30]}]}}'), ('{"version": ["0"]}'), ('{"version": ["1"]}'), ('{"id": ["e7", {"suffix": "9"}]}'),
	('{"time": [{"prefix": "2024-05-06T07:08:1"}]}'), ('{"time": [{"suffix": ".5Z"}]}'), ('{"resources": [{"exists": false}], "user_id": [{"exists": false}]}'), ('{"actor": ["u1", "d3"]}'), ('{"anonymous_id": [{"anything-but": "d1"}]}'),
	('{"sequence": [{"numeric": ["<", 4]}]}'), ('{"context": {"ip": [{"cidr": "10.0.2.0/23"}]}}'), ('{"context.ip": [{"exists": false}]}'), ('{"detail": {"items": {"sku": [5], "n": [1]}}}'), ('{"detail": {"tags": ["t1", 2]}}'),
	('{"received_at": [{"wildcard": "2*T*Z"}]}'), ('{"detail": {"long": [{"prefix": "xxxx"}]}}'), ('{"detail": {"page": [{"wildcard": "*/1*9"}]}}'), ('{"account": [{"exists": false}], "hops": [{"exists": false}]}'),
	('{"$or": [{"source": ["web"]}, {"detail": {"page": ["/p/7"]}}]}'), ('{"detail-type": [{"equals-ignore-case": "pageview"}], "detail.amount": [1.5, 3]}');
CREATE TEMP TABLE alone AS SELECT e.event_id, p.n FROM behavior.event e, seen p WHERE behavior.event_matches(p.p, behavior.event_json(e));
SELECT p.p, count(a.n) FROM seen p LEFT JOIN alone a USING (n) GROUP BY p.n, p.p ORDER BY p.n;
SELECT count(*) AS events, sum(cardinality(matched)) AS matches FROM behavior._pattern_set_log((SELECT jsonb_agg(p ORDER BY n) FROM seen));
SELECT count(*) AS wrong FROM (
	(SELECT event_id, n FROM alone EXCEPT SELECT event_id, r + 1 FROM behavior._pattern_set_log((SELECT jsonb_agg(p ORDER BY n) FROM seen)), unnest(matched) r)
	UNION ALL (SELECT event_id, r + 1 FROM behavior._pattern_set_log((SELECT jsonb_agg(p ORDER BY n) FROM seen)), unnest(matched) r EXCEPT SELECT event_id, n FROM alone)) d;
SELECT count(*) AS wrong FROM (SELECT e, row_number() OVER (ORDER BY event_id) - 1 AS i FROM (SELECT event_id, behavior.event_json(v) AS e FROM behavior.event v) v) v,
	(SELECT jsonb_agg(p ORDER BY n) AS ps FROM seen) s, LATERAL (SELECT array_agg(n - 1 ORDER BY n) AS ns FROM seen WHERE behavior.event_matches(p, e)) one,
	LATERAL behavior._pattern_set_matches(ps, jsonb_build_array(e)) m WHERE m.matched <> one.ns;
-- Rules that say the same come each once, in order; patterns with $or once.
SELECT * FROM behavior._pattern_set_matches('[{"a": [1]}, {"$or": [{"a": [1]}, {"b": [2]}]}, {"a": [2]}, {"a": [1]}, {"a": [{"exists": false}]}]', '[{"a": 1, "b": 2}, {"a": 3}, {}, {"a": [1, 2]}, 5]');
SELECT * FROM behavior._pattern_set_matches('[]', '[{}]');
SELECT * FROM behavior._pattern_set_matches('[{"a": [1]}, {"a": 1}]', '[{}]');
-- It can be cancelled, and goes on well after that.
SET statement_timeout = '200ms';
SELECT * FROM behavior._pattern_set_matches('[{"a": {"x": [1], "y": [1]}}]', '[{"a": [{"x": 1}, {"y": 1}, {"x": 1, "y": 1}]}]', 2000000000);
RESET statement_timeout;
SELECT * FROM behavior._pattern_set_matches('[{"a": {"x": [1], "y": [1]}}]', '[{"a": [{"x": 1}, {"y": 1}, {"x": 1, "y": 1}]}]');
DROP TABLE sample, rule, seen;

-- time_bucket and the try_ casts.
SET timezone = 'America/New_York';	-- must not matter
SET datestyle = 'ISO, DMY';
\pset null '(null)'

CREATE FUNCTION pg_temp.utc(at timestamptz) RETURNS text LANGUAGE sql AS
$$ SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') $$;

-- Buckets of UTC: weeks start on Mondays, months and years where the calendar has them.
SELECT width, pg_temp.utc(behavior.time_bucket(width::interval, '2024-02-29 13:47:31.123456Z')) FROM (VALUES
	('1 microsecond'), ('250 milliseconds'), ('5 seconds'), ('1 minute'), ('7 minutes'), ('1 hour'), ('90 minutes'), ('1 day'), ('36 hours'),
	('1 day 12 hours'), ('1 week'), ('2 weeks'), ('1 month'), ('2 months'), ('3 months'), ('5 months'), ('1 year'), ('10 years'), ('100 years')) AS t (width);
SELECT width, pg_temp.utc(behavior.time_bucket(width::interval, '1999-12-31 23:59:59Z')) FROM (VALUES
	('1 hour'), ('1 day'), ('1 week'), ('1 month'), ('7 months'), ('1 year'), ('1000 years')) AS t (width);
SELECT behavior.time_bucket('1 hour', 'infinity'), behavior.time_bucket('1 hour', '-infinity', 'Europe/Berlin'),
	behavior.time_bucket(NULL, now()) IS NULL AS no_width, behavior.time_bucket('1 day', NULL) IS NULL AS no_time;

-- Against the arithmetic in SQL.
SELECT setseed(0.1);
CREATE TEMP TABLE instant AS
SELECT timestamptz '1950-01-01 00:00Z' + random() * interval '120 years' AS at, (1 + floor(random() * 1e6)) * interval '1.25 seconds' AS width,
	1 + floor(random() * 40)::int AS months
FROM generate_series(1, 2000);
SELECT count(*) AS wrong FROM instant
WHERE behavior.time_bucket(width, at) <> date_bin(width, at, '2000-01-03 00:00Z')
	OR behavior.time_bucket('1 day', at) <> date_trunc('day', at, 'UTC')
	OR behavior.time_bucket('1 week', at) <> date_trunc('week', at, 'UTC')
	OR behavior.time_bucket('1 month', at) <> date_trunc('month', at, 'UTC')
	OR behavior.time_bucket('3 months', at) <> date_trunc('quarter', at, 'UTC')
	OR behavior.time_bucket('1 year', at) <> date_trunc('year', at, 'UTC')
	OR NOT (at >= behavior.time_bucket(months * interval '1 month', at)
		AND at AT TIME ZONE 'UTC' < behavior.time_bucket(months * interval '1 month', at) AT TIME ZONE 'UTC' + months * interval '1 month');

-- By a zone's clock: days of 23 and 25 hours, days that start at 01:00 or twice, the hour that is there twice.
SELECT zone, at, width, pg_temp.utc(behavior.time_bucket(width::interval, at::timestamptz, zone)) FROM (VALUES
	('Europe/Berlin', '2024-03-31 00:30Z', '1 day'), ('Europe/Berlin', '2024-03-31 21:59Z', '1 day'), ('Europe/Berlin', '2024-03-31 22:00Z', '1 day'),
	('Europe/Berlin', '2024-10-26 22:00Z', '1 day'), ('Europe/Berlin', '2024-10-27 22:59Z', '1 day'), ('Europe/Berlin', '2024-10-27 23:00Z', '1 day'),
	('Europe/Berlin', '2024-10-27 00:30Z', '1 hour'), ('Europe/Berlin', '2024-10-27 01:30Z', '1 hour'), ('Europe/Berlin', '2024-10-27 02:30Z', '1 hour'),
	('Europe/Berlin', '2024-03-31 01:30Z', '2 hours'), ('Europe/Berlin', '2024-03-31 03:30Z', '6 hours'), ('Europe/Berlin', '2024-10-27 03:30Z', '6 hours'),
	('Europe/Berlin', '2024-06-30 22:00Z', '1 month'), ('Europe/Berlin', '2024-06-30 21:59Z', '1 month'), ('Europe/Berlin', '2024-03-30 23:30Z', '1 week'),
	('America/Sao_Paulo', '2018-11-04 03:00Z', '1 day'), ('America/Sao_Paulo', '2018-11-04 12:00Z', '1 day'), ('America/Sao_Paulo', '2018-11-04 02:59Z', '1 day'),
	('America/Havana', '2023-11-05 04:30Z', '1 day'), ('America/Havana', '2023-11-05 05:30Z', '1 day'), ('America/Havana', '2023-11-05 05:30Z', '1 hour'),
	('Asia/Kathmandu', '2024-01-01 18:15Z', '1 day'), ('Australia/Lord_Howe', '2024-04-06 15:10Z', '1 hour'), ('UTC', '2024-01-01 18:15Z', '1 day'),
	('Europe/Berlin', '2080-07-01 12:00Z', '1 day'), ('Europe/Berlin', '0500-07-01 12:00Z', '1 day'), ('Pacific/Apia', '2011-12-31 09:00Z', '1 day')) AS t (zone, at, width);
SELECT zone, count(*) FILTER (WHERE behavior.time_bucket('1 day', at, zone) <> date_trunc('day', at, zone)) AS days,
	count(*) FILTER (WHERE behavior.time_bucket('1 month', at, zone) <> date_trunc('month', at, zone)) AS months,
	count(*) FILTER (WHERE behavior.time_bucket('1 hour', at, zone) <> date_trunc('hour', at, zone)) AS hours,
	count(*) FILTER (WHERE behavior.time_bucket('45 minutes', at, zone) > at) AS later
FROM instant, (VALUES ('Europe/Berlin'), ('America/New_York'), ('Asia/Tokyo')) AS t (zone) WHERE at > '1980-01-01' GROUP BY zone ORDER BY zone;

-- What is no width and no zone.
\set VERBOSITY sqlstate
SELECT behavior.time_bucket('0', now());
SELECT behavior.time_bucket('-1 hour', now());
SELECT behavior.time_bucket('-1 month', now());
SELECT behavior.time_bucket('1 month 1 day', now());
SELECT behavior.time_bucket('1 month 1 second', now(), 'UTC');
SELECT behavior.time_bucket('1 day -24 hours', now());
SELECT behavior.time_bucket('1 day', now(), 'Mars/Olympus');
SELECT behavior.time_bucket('1 day', now(), '');
SELECT behavior.time_bucket('1 day', now(), repeat('x', 1000));
SELECT behavior.time_bucket('1000000 years', '4713-01-01 BC'::timestamptz);
SELECT behavior.time_bucket('250000 years', '4713-01-01 BC'::timestamptz);
SELECT behavior.time_bucket('100000000 days', '4713-01-01 BC'::timestamptz);
\set VERBOSITY default
SELECT behavior.time_bucket('1 month 1 day', now());
SELECT pg_temp.utc(behavior.time_bucket('290000 years', '290000-01-01Z'));

-- Casts that answer NULL: the same as the casts where those answer.
CREATE FUNCTION pg_temp.cast_or_null(value text, type text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
	EXECUTE format('SELECT $1::%s::text', type) INTO result USING value;
	RETURN result;
EXCEPTION WHEN OTHERS THEN RETURN NULL;
END $$;
CREATE TEMP TABLE word (value text);
INSERT INTO word VALUES (''), (' '), ('0'), ('-0'), ('+7'), (' 42 '), (E'\t42\n'), ('4 2'), ('- 4'), ('--4'), ('+-4'), ('.'), ('.5'), ('5.'), ('-.5'), ('+.5e1'), ('1e3'), ('1E-3'), ('1e'), ('1e+'), ('e5'),
	('1 e5'), ('1.2.3'), ('12abc'), ('abc'), ('1,000'), ('$5'), ('0012'), ('9223372036854775807'), ('9223372036854775808'), ('-9223372036854775808'), ('-9223372036854775809'),
	('00000000000000000000000000000000000001'), ('99999999999999999999999999999'), ('1.5'), ('1.0'), ('NaN'), ('nan'), ('inf'), ('Infinity'), ('-Infinity'), ('+inf'), ('- inf'), ('infinit'),
	('1e131071'), ('1e131072'), ('1e-16383'), ('1e-16384'), ('1e999999999999'), ('0.000000000000000000000000000000000000000000000000000000000000000000001'), ('12345678.90123'), ('null'),
	('t'), ('true'), ('TRUE'), ('tru'), ('truer'), ('f'), ('fal'), ('false'), ('y'), ('yes'), ('n'), ('no'), ('o'), ('on'), ('of'), ('off'), ('1'), ('10'), (' true '), ('é');
SELECT value, type, attempt, pg_temp.cast_or_null(value, type) AS reference
FROM word, LATERAL (VALUES ('numeric', behavior.try_numeric(value)::text), ('bigint', behavior.try_bigint(value)::text), ('boolean', behavior.try_boolean(value)::text)) AS t (type, attempt)
WHERE attempt IS DISTINCT FROM pg_temp.cast_or_null(value, type);
SELECT count(behavior.try_numeric(value)) > 20 AS numerics, count(behavior.try_bigint(value)) > 8 AS bigints, count(behavior.try_boolean(value)) > 12 AS booleans FROM word;
-- Not only the same text: the same number inside.
SELECT value FROM word WHERE behavior.try_numeric(value) <> pg_temp.cast_or_null(value, 'numeric')::numeric
	OR numeric_send(behavior.try_numeric(value)) <> numeric_send(pg_temp.cast_or_null(value, 'numeric')::numeric);

-- Instants: the text alone decides.
SELECT value, pg_temp.utc(behavior.try_timestamptz(value)) FROM (VALUES
	('2024-02-29T12:34:56Z'), ('2024-02-29t12:34:56z'), ('2024-02-29 12:34:56'), ('2024-02-29T12:34:56+02:00'), ('2024-02-29T12:34:56-0530'), ('2024-02-29 12:34:56+02'),
	('2024-02-29 12:34:56 +02'), (' 2024-02-29T12:34Z '), ('2024-02-29'), ('2024-02-29T12:34:56.7Z'), ('2024-02-29T12:34:56.123456Z'), ('2024-02-29T12:34:56.1234567Z'),
	('2024-02-29T12:34:56.9999999Z'), ('2024-02-29T23:59:59.9999995Z'), ('2024-02-29T12:34:56.00000000000000000000000000000000000000000000001Z'), ('2016-12-31T23:59:60Z'),
	('2016-12-31T23:59:60.5+01:00'), ('2024-02-29T24:00:00Z'), ('0001-01-01T00:00:00Z'), ('9999-12-31T23:59:59Z'), ('2024-01-01T00:00:00+15:59'), ('2024-01-01T00:00:00-00:00')) AS t (value);
SELECT value FROM (VALUES
	(''), ('now'), ('today'), ('epoch'), ('infinity'), ('-infinity'), ('allballs'), ('2023-02-29'), ('1900-02-29T00:00Z'), ('2024-13-01'), ('2024-00-01'), ('2024-01-00'), ('2024-04-31'),
	('0000-01-01T00:00:00Z'), ('300000-01-01T00:00:00Z'), ('-2024-01-01'), ('+2024-01-01'), ('12024-01-01'), ('2024-1-1'), ('24-01-01'), ('20240101'), ('2024-01-01T'), ('2024-01-01T12'),
	('2024-01-01T12:'), ('2024-01-01T12:3'), ('2024-01-01T12:34:'), ('2024-01-01T12:34:5'), ('2024-01-01T12:34:56.'), ('2024-01-01T12:34:56.Z'), ('2024-01-01T25:00:00Z'), ('2024-01-01T24:00:01Z'),
	('2024-01-01T12:60:00Z'), ('2024-01-01T12:00:61Z'), ('2024-01-01T12:00:00+'), ('2024-01-01T12:00:00+1'), ('2024-01-01T12:00:00+1:00'), ('2024-01-01T12:00:00+16:00'), ('2024-01-01T12:00:00+01:60'),
	('2024-01-01T12:00:00+01:'), ('2024-01-01T12:00:00ZZ'), ('2024-01-01T12:00:00 Europe/Berlin'), ('2024-01-01T12:00:00Z BC'), ('2024-01-01T12:00:00CET'), ('01/02/2024'), ('Jan 1 2024'),
	('1700000000'), ('2024-01-01  12:00'), ('2024-01-01Z'), ('２０２４-01-01')) AS t (value)
WHERE behavior.try_timestamptz(value) IS NOT NULL;
-- With an offset it agrees with the cast, fractions rounded alike.
SELECT setseed(0.3);
CREATE TEMP TABLE written AS
SELECT to_char(timestamp '0001-01-01' + random() * interval '9998 years', 'YYYY-MM-DD"T"HH24:MI:SS') || '.' || left(floor(random() * 1e15)::text, 1 + floor(random() * 12)::int)
	|| (ARRAY['Z', '+00:00', '-03:30', '+0545', '+14', '-11:00'])[1 + floor(random() * 6)] AS value
FROM generate_series(1, 2000);
SELECT value FROM written WHERE behavior.try_timestamptz(value) IS DISTINCT FROM value::timestamptz;

-- Indexable, and everybody's.
CREATE TEMP TABLE price (amount text);
CREATE INDEX ON price (behavior.try_numeric(amount), behavior.try_timestamptz(amount), behavior.time_bucket('1 day', behavior.try_timestamptz(amount), 'Europe/Berlin'));
CREATE ROLE regress_functions_role;
SET ROLE regress_functions_role;
SELECT behavior.try_bigint('1'), behavior.try_boolean('x'), behavior.time_bucket('1 year', '2024-05-05Z') = '2024-01-01Z' AS year;
\set VERBOSITY sqlstate
SELECT behavior._json_parse('1');
RESET ROLE;
DROP ROLE regress_functions_role;

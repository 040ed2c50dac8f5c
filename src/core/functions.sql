-- Pure functions: time_bucket and the try_ casts.
CREATE FUNCTION behavior.time_bucket(width interval, at timestamptz) RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'behavior_time_bucket' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION behavior.time_bucket(interval, timestamptz) IS
'start of the bucket that holds at: multiples of width from Monday 2000-01-03 00:00 UTC, for months and years from 2000-01-01; 22023 for a width that is not positive or mixes months with days or time';

CREATE FUNCTION behavior.time_bucket(width interval, at timestamptz, zone text) RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'behavior_time_bucket_zone' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION behavior.time_bucket(interval, timestamptz, text) IS
'start of the bucket that holds at, by the wall clock of a time zone: a day begins at its midnight and has 23 to 25 hours; 22023 for a width that is not positive or mixes months with days or time, and for an unknown zone';

CREATE FUNCTION behavior.try_numeric(value text) RETURNS numeric
	AS 'MODULE_PATHNAME', 'behavior_try_numeric' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION behavior.try_numeric(text) IS 'value::numeric, NULL where the cast would raise';
CREATE FUNCTION behavior.try_bigint(value text) RETURNS bigint
	AS 'MODULE_PATHNAME', 'behavior_try_bigint' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION behavior.try_bigint(text) IS 'value::bigint, NULL where the cast would raise';
CREATE FUNCTION behavior.try_boolean(value text) RETURNS boolean
	AS 'MODULE_PATHNAME', 'behavior_try_boolean' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION behavior.try_boolean(text) IS 'value::boolean, NULL where the cast would raise';
CREATE FUNCTION behavior.try_timestamptz(value text) RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'behavior_try_timestamptz' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION behavior.try_timestamptz(text) IS
'the instant that an RFC 3339 date and time names, in UTC where it has no offset, whatever the session''s TimeZone and DateStyle; NULL for anything else';

-- Internal: the tests' way to the hash and the JSON parser.
CREATE FUNCTION behavior._siphash(data bytea, seed bytea, wide boolean) RETURNS bytea
	AS 'MODULE_PATHNAME', 'behavior__siphash' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION behavior._siphash(bytea, bytea, boolean)
	IS 'SipHash-2-4 of data under a seed of 16 bytes: 16 bytes when wide, else 8';
REVOKE ALL ON FUNCTION behavior._siphash(bytea, bytea, boolean) FROM PUBLIC;

CREATE FUNCTION behavior._json_parse(document text) RETURNS jsonb
	AS 'MODULE_PATHNAME', 'behavior__json_parse' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION behavior._json_parse(text) IS 'what the JSON doors make of a text; NULL where they refuse it';
CREATE FUNCTION behavior._json_refusal(document text) RETURNS text
	AS 'MODULE_PATHNAME', 'behavior__json_refusal' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION behavior._json_refusal(text) IS 'why the JSON doors refuse a text; NULL where they accept it';
CREATE FUNCTION behavior._json_merge_patch(document text, patch jsonb) RETURNS text
	AS 'MODULE_PATHNAME', 'behavior__json_merge_patch' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION behavior._json_merge_patch(text, jsonb) IS 'a JSON text with a merge patch (RFC 7396) applied, as behavior.redrive() does; NULL where it is no JSON';
REVOKE ALL ON FUNCTION behavior._json_parse(text), behavior._json_refusal(text), behavior._json_merge_patch(text, jsonb) FROM PUBLIC;

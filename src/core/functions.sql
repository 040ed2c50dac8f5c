-- Pure functions: time_bucket and the try_ casts.

CREATE FUNCTION behavior._siphash(data bytea, seed bytea, wide boolean) RETURNS bytea
	AS 'MODULE_PATHNAME', 'behavior__siphash' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION behavior._siphash(bytea, bytea, boolean)
	IS 'SipHash-2-4 of data under a seed of 16 bytes: 16 bytes when wide, else 8';
REVOKE ALL ON FUNCTION behavior._siphash(bytea, bytea, boolean) FROM PUBLIC;

CREATE FUNCTION behavior._json_parse(json text) RETURNS jsonb
	AS 'MODULE_PATHNAME', 'behavior__json_parse' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION behavior._json_parse(text) IS 'what the JSON doors make of a text; NULL where they refuse it';
CREATE FUNCTION behavior._json_refusal(json text) RETURNS text
	AS 'MODULE_PATHNAME', 'behavior__json_refusal' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION behavior._json_refusal(text) IS 'why the JSON doors refuse a text; NULL where they accept it';
REVOKE ALL ON FUNCTION behavior._json_parse(text), behavior._json_refusal(text) FROM PUBLIC;

-- Pure functions: time_bucket and the try_ casts.

CREATE FUNCTION behavior._siphash(data bytea, seed bytea, wide boolean) RETURNS bytea
	AS 'MODULE_PATHNAME', 'behavior__siphash' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION behavior._siphash(bytea, bytea, boolean)
	IS 'SipHash-2-4 of data under a seed of 16 bytes: 16 bytes when wide, else 8';
REVOKE ALL ON FUNCTION behavior._siphash(bytea, bytea, boolean) FROM PUBLIC;

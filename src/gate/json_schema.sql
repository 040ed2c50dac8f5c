-- JSON Schema, drafts 2020-12 and 7.
CREATE FUNCTION behavior.json_schema_valid(schema jsonb, instance jsonb, assert_format boolean DEFAULT false) RETURNS boolean
	AS 'MODULE_PATHNAME', 'behavior_json_schema_valid' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION behavior.json_schema_valid(jsonb, jsonb, boolean) IS
'does instance satisfy a JSON Schema (of draft 7 where its $schema says so, else 2020-12); assert_format: "format" is a rule, as where the schema has "x-assert-format": true at its root; an instance that cannot be checked within the limits is not valid; 22023 for a schema that is not valid or refers to something that is not in it';

CREATE FUNCTION behavior.json_schema_errors(schema jsonb, instance jsonb, assert_format boolean DEFAULT false)
	RETURNS TABLE (instance_path text, schema_path text, message text)
	AS 'MODULE_PATHNAME', 'behavior_json_schema_errors' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 10;
COMMENT ON FUNCTION behavior.json_schema_errors(jsonb, jsonb, boolean) IS
'what keeps instance from satisfying a JSON Schema, with JSON pointers into both: no row where it does, 1,000 at most; 22023 as with json_schema_valid';

-- Internal: the tests' way to random schemas.
CREATE FUNCTION behavior._json_schema_fuzz(schemas text[], instances text[], seed bigint, calls bigint,
		OUT compiled bigint, OUT refused bigint, OUT valid bigint, OUT invalid bigint, OUT growth bigint)
	AS 'MODULE_PATHNAME', 'behavior__json_schema_fuzz' LANGUAGE C STRICT PARALLEL SAFE;
COMMENT ON FUNCTION behavior._json_schema_fuzz(text[], text[], bigint, bigint) IS
'compiles random schemas made of these, checks random instances against them, and counts; growth: bytes of memory kept; XX000 where two ways to check differ';
REVOKE ALL ON FUNCTION behavior._json_schema_fuzz(text[], text[], bigint, bigint) FROM PUBLIC;

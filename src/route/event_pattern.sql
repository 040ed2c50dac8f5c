-- Event patterns: the form that they see, and whether they match.
CREATE FUNCTION behavior.event_json(event behavior.event) RETURNS jsonb
	AS 'MODULE_PATHNAME', 'behavior_event_json' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION behavior.event_json(behavior.event) IS
'an event in EventBridge''s form, which event patterns see: version, id, detail-type, source, time, resources and detail (its properties), and user_id, anonymous_id, actor, sequence, context and received_at where they are not NULL';

CREATE FUNCTION behavior.event_matches(pattern jsonb, event jsonb) RETURNS boolean
	AS 'MODULE_PATHNAME', 'behavior_event_matches' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION behavior.event_matches(jsonb, jsonb) IS
'does an event match an EventBridge event pattern? 22023 for a pattern that is not valid, with the reason as message and the place in the detail; an event that is not an object matches nothing';

CREATE FUNCTION behavior.event_matched(event jsonb, pattern jsonb) RETURNS boolean
	AS 'MODULE_PATHNAME', 'behavior_event_matched' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION behavior.event_matched(jsonb, jsonb) IS 'event_matches with its arguments the other way round, for the operator @~';

CREATE OPERATOR behavior.@~ (
	LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = behavior.event_matched,
	RESTRICT = pg_catalog.matchingsel, JOIN = pg_catalog.matchingjoinsel);
COMMENT ON OPERATOR behavior.@~ (jsonb, jsonb) IS 'does the event match the pattern?';

CREATE FUNCTION behavior.explain_match(pattern jsonb, event jsonb)
	RETURNS TABLE (path text, matched boolean, why text)
	AS 'MODULE_PATHNAME', 'behavior_explain_match' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 10;
COMMENT ON FUNCTION behavior.explain_match(jsonb, jsonb) IS
'a row for each field of an event pattern: where it stands, whether the event has what it asks for, and why; matched is NULL for a field that another one of the same path replaces; 22023 for a pattern that is not valid';

-- Internal: the tests' and the benchmark's way to sets of patterns.
CREATE FUNCTION behavior._pattern_set_matches(patterns jsonb, events jsonb, repeat int DEFAULT 1)
	RETURNS TABLE (event int, matched int[])
	AS 'MODULE_PATHNAME', 'behavior__pattern_set_matches' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION behavior._pattern_set_matches(jsonb, jsonb, int) IS
'for each event of an array, from 0, the numbers of those patterns of an array that match it; each event is matched so many times';
CREATE FUNCTION behavior._pattern_set_log(patterns jsonb, repeat int DEFAULT 1)
	RETURNS TABLE (event_id text, matched int[])
	AS 'MODULE_PATHNAME', 'behavior__pattern_set_log' LANGUAGE C STABLE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION behavior._pattern_set_log(jsonb, int) IS 'the same for each event of the log';
REVOKE ALL ON FUNCTION behavior._pattern_set_matches(jsonb, jsonb, int), behavior._pattern_set_log(jsonb, int) FROM PUBLIC;

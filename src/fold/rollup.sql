-- Rollups: derived tables declared by the SQL query that they answer.  The definition is a real view, state
-- and token are ordinary tables, all owned by whoever created the rollup; here is only how they belong together.
CREATE TABLE behavior._rollup (
	name			text PRIMARY KEY,		-- of the projection
	relation		regclass NOT NULL,		-- live
	folded			regclass NOT NULL,
	definition		regclass NOT NULL,
	storage			regclass NOT NULL,
	token_table		regclass NOT NULL,
	token			uuid NOT NULL,			-- what the live view must show to read its tail
	built			boolean NOT NULL,		-- storage holds every event up to the projection's tick
	next_definition	regclass,				-- a build beside: another definition (alter) or the same (rebuild)
	next_storage	regclass
);
SELECT pg_catalog.pg_extension_config_dump('behavior._rollup', '');
COMMENT ON TABLE behavior._rollup IS 'the objects of each rollup';
REVOKE ALL ON behavior._rollup FROM PUBLIC;

CREATE VIEW behavior.rollup AS
SELECT r.name, r.relation, r.storage, pg_catalog.pg_get_viewdef(r.definition) AS query, o.rolname AS owner, p.state,
	CASE
		WHEN r.built AND r.next_storage IS NULL THEN 100
		WHEN w.projection IS NULL OR w.total_events IS NULL OR w.total_events = 0 THEN 0
		ELSE LEAST(99.9, pg_catalog.round(100.0 * w.done_events / w.total_events, 1))
	END AS progress,
	p.events_set_aside
FROM behavior._rollup r
JOIN behavior._projection p ON p.name = r.name
LEFT JOIN pg_catalog.pg_class c ON c.oid = r.relation
LEFT JOIN pg_catalog.pg_roles o ON o.oid = c.relowner
LEFT JOIN behavior._log_walk w ON w.projection = r.name;
COMMENT ON VIEW behavior.rollup IS 'rollups: relation, state table, query, owner, and how far a build has come in percent';
REVOKE ALL ON behavior.rollup FROM PUBLIC;
GRANT SELECT ON behavior.rollup TO pg_monitor;

-- What a rollup may aggregate, and how two partial results become one.
CREATE VIEW behavior.aggregate_merge AS
SELECT p.oid::pg_catalog.regprocedure AS aggregate, m.merge_aggregate, m.exact
FROM (VALUES
		(NULL,		'count',			'pg_catalog.sum',			true),
		(NULL,		'sum',				'pg_catalog.sum',			true),
		(NULL,		'avg',				'pg_catalog.sum, pg_catalog.count', true),
		(NULL,		'min',				'pg_catalog.min',			true),
		(NULL,		'max',				'pg_catalog.max',			true),
		(NULL,		'bool_and',			'pg_catalog.bool_and',		true),
		(NULL,		'bool_or',			'pg_catalog.bool_or',		true),
		(NULL,		'every',			'pg_catalog.bool_and',		true),
		(NULL,		'bit_and',			'pg_catalog.bit_and',		true),
		(NULL,		'bit_or',			'pg_catalog.bit_or',		true),
		('hll',		'hll_add_agg',		'hll_union_agg',			true),
		('hll',		'hll_union_agg',	'hll_union_agg',			true),
		('tdigest',	'tdigest',			'tdigest',					false)
	) AS m (extension, aggregate, merge_aggregate, exact)
JOIN pg_catalog.pg_proc p ON p.proname = m.aggregate AND p.prokind = 'a'
LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e'
LEFT JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
WHERE CASE
	WHEN m.extension IS NULL THEN p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND e.oid IS NULL
	ELSE e.extname = m.extension
END;
COMMENT ON VIEW behavior.aggregate_merge IS 'aggregates that a rollup may use, what merges their partial results, and whether that is exact';
REVOKE ALL ON behavior.aggregate_merge FROM PUBLIC;

CREATE FUNCTION behavior._tail(definition regclass, storage regclass, token uuid) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'behavior__tail' LANGUAGE C STABLE PARALLEL UNSAFE COST 1000 ROWS 100;
COMMENT ON FUNCTION behavior._tail(regclass, regclass, uuid)
	IS 'partial aggregates of the events that a rollup has not folded yet, for its live view: asks for the token that only the view''s owner may read';
CREATE FUNCTION behavior._ready(definition regclass, storage regclass) RETURNS boolean
	AS 'MODULE_PATHNAME', 'behavior__ready' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION behavior._ready(regclass, regclass)
	IS 'true when a rollup''s state is complete; raises 55000 while it is being built';
-- These two are called by the views of rollups, as whoever reads them.
GRANT EXECUTE ON FUNCTION behavior._tail(regclass, regclass, uuid), behavior._ready(regclass, regclass) TO PUBLIC;

CREATE FUNCTION behavior.create_rollup(name text, query text, if_not_exists boolean DEFAULT false) RETURNS regclass
	AS 'MODULE_PATHNAME', 'behavior_create_rollup' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION behavior.create_rollup(text, text, boolean)
	IS 'makes the relation "name", which answers the query over behavior.event from now on, live, and "name_folded", as of the last tick; 0A000 with the replacement when the query cannot be kept';
CREATE FUNCTION behavior.alter_rollup(name text, query text) RETURNS void
	AS 'MODULE_PATHNAME', 'behavior_alter_rollup' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION behavior.alter_rollup(text, text)
	IS 'builds a rollup for another query beside the old one, which answers meanwhile, and swaps when it has caught up';
CREATE FUNCTION behavior.drop_rollup(name text, if_exists boolean DEFAULT false, cascade boolean DEFAULT false) RETURNS void
	AS 'MODULE_PATHNAME', 'behavior_drop_rollup' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION behavior.drop_rollup(text, boolean, boolean) IS 'drops a rollup and all that belongs to it; cascade: views on top of it as well';
CREATE FUNCTION behavior._verify_rollup(name text, since timestamptz, until timestamptz,
		OUT projection text, OUT key jsonb, OUT folded jsonb, OUT recomputed jsonb) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'behavior__verify_rollup' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION behavior._verify_rollup(text, timestamptz, timestamptz)
	IS 'recomputes a rollup from the log up to its progress and returns the differences; since, until: cells whose time bucket starts there, NULL for no bound';
REVOKE ALL ON FUNCTION behavior.create_rollup(text, text, boolean), behavior.alter_rollup(text, text),
	behavior.drop_rollup(text, boolean, boolean), behavior._verify_rollup(text, timestamptz, timestamptz) FROM PUBLIC;

-- The built-in rollup: its objects are members of the extension, its catalog rows are made by the first tick.
SELECT behavior.create_rollup('behavior.activity', $$
	SELECT behavior.time_bucket('5 seconds', occurred_at) AS bucket, source, type, count(*) AS events
	FROM behavior.event GROUP BY 1, 2, 3 $$);
SELECT pg_catalog.pg_extension_config_dump('behavior._activity_state', '');
SELECT pg_catalog.pg_extension_config_dump('behavior._activity_token', '');
COMMENT ON VIEW behavior.activity IS 'events by 5 seconds, source and type; fresh to the last commit';
COMMENT ON VIEW behavior.activity_folded IS 'behavior.activity as of the last tick';
COMMENT ON VIEW behavior._activity_definition IS 'the query of behavior.activity';
COMMENT ON TABLE behavior._activity_state IS 'folded state of behavior.activity';
COMMENT ON TABLE behavior._activity_token IS 'what the view behavior.activity shows to behavior._tail()';
REVOKE ALL ON behavior.activity, behavior.activity_folded, behavior._activity_definition, behavior._activity_state,
	behavior._activity_token FROM PUBLIC;

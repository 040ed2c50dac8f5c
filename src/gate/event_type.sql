-- Declared types of events: every version that there ever was, so that the version in dead_letter.errors keeps its meaning.
CREATE TABLE behavior._event_type (
	source		text COLLATE "C" NOT NULL,	-- '*': any that has no declaration of its own
	type		text COLLATE "C" NOT NULL,
	version		int NOT NULL,
	schema		jsonb,						-- NULL: any properties
	owner		text COLLATE "C" NOT NULL,	-- a role's name; there may be no such role (any more)
	created_at	timestamptz NOT NULL,
	retired_at	timestamptz,				-- NULL: it is in force
	PRIMARY KEY (source, type, version)
);
SELECT pg_catalog.pg_extension_config_dump('behavior._event_type', '');
COMMENT ON TABLE behavior._event_type IS 'declared types of events, all versions';

CREATE VIEW behavior.event_type AS
SELECT t.type, t.source, t.version, t.schema, t.owner::pg_catalog.name AS owner, t.created_at, t.retired_at,
	t.retired_at IS NULL AS current
FROM behavior._event_type t;
COMMENT ON VIEW behavior.event_type IS
'declared types of events, all versions: a change of the schema is a new version; that of each (source, type) with current is in force, and none after it was dropped';
COMMENT ON COLUMN behavior.event_type.source IS '* means every source that has no declaration of its own for this type';
COMMENT ON COLUMN behavior.event_type.version IS 'counted from 1 and never used again, not even after drop and create; behavior.dead_letter.errors names it';
COMMENT ON COLUMN behavior.event_type.schema IS 'JSON Schema of properties; NULL: any';
COMMENT ON COLUMN behavior.event_type.owner IS 'the role that may alter and drop it; where there is none of that name, the extension''s owner alone may';
COMMENT ON COLUMN behavior.event_type.retired_at IS 'when another version took its place or the type was dropped; NULL: it is in force';
REVOKE ALL ON behavior._event_type, behavior.event_type FROM PUBLIC;

-- The functions below tell other sessions by themselves; this is for whatever else writes the table: a restore, or a superuser.
CREATE FUNCTION behavior._event_type_changed() RETURNS trigger
	AS 'MODULE_PATHNAME', 'behavior__event_type_changed' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION behavior._event_type_changed() IS 'lets every session read the types anew';
REVOKE ALL ON FUNCTION behavior._event_type_changed() FROM PUBLIC;
CREATE TRIGGER _changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON behavior._event_type
	FOR EACH STATEMENT EXECUTE FUNCTION behavior._event_type_changed();
ALTER TABLE behavior._event_type ENABLE ALWAYS TRIGGER _changed;

CREATE FUNCTION behavior.create_event_type(type text, schema jsonb DEFAULT NULL, source text DEFAULT '*', if_not_exists boolean DEFAULT false)
	RETURNS void
	AS 'MODULE_PATHNAME', 'behavior_create_event_type' LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION behavior.create_event_type(text, jsonb, text, boolean) IS
'declares a type of events; schema: JSON Schema of properties, NULL for any; source: whose events, * for all that have no declaration of their own; if_not_exists: a NOTICE when it is there, and nothing changes; 22023 with the path when the schema is not valid, 42710 when the type is declared';
CREATE FUNCTION behavior.alter_event_type(type text, schema jsonb, source text DEFAULT '*') RETURNS void
	AS 'MODULE_PATHNAME', 'behavior_alter_event_type' LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION behavior.alter_event_type(text, jsonb, text) IS
'gives a type another schema as its next version, for events sent from now on: stored events are never touched; the same schema again changes nothing; 22023 with the path when the schema is not valid, 42704 when the type is not declared, 42501 unless the caller is its owner or the extension''s';
CREATE FUNCTION behavior.drop_event_type(type text, source text DEFAULT '*') RETURNS void
	AS 'MODULE_PATHNAME', 'behavior_drop_event_type' LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION behavior.drop_event_type(text, text) IS
'withdraws the declaration of a type; its versions stay in behavior.event_type; 42704 when the type is not declared, 42501 unless the caller is its owner or the extension''s';
REVOKE ALL ON FUNCTION behavior.create_event_type(text, jsonb, text, boolean), behavior.alter_event_type(text, jsonb, text),
	behavior.drop_event_type(text, text) FROM PUBLIC;

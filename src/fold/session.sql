-- Sessions.  Besides what behavior.session shows, a row keeps in "merge" (see session_pack.c) the counts of types, and
-- the order key (time, sequence, event id) of the events that its values come from, so that rows merge without
-- rereading the log.  What is read most comes first and has a fixed width; what updates change lies together.
-- started_at is in the primary key since an event_id may come back once the idempotency window has passed.
CREATE TABLE behavior._session (
	session_id			uuid NOT NULL,
	visitor_hash		bigint NOT NULL,
	started_at			timestamptz NOT NULL,
	ended_at			timestamptz NOT NULL,
	events				bigint NOT NULL,
	page_views			bigint NOT NULL,
	user_id				text,
	exit_type			text NOT NULL,
	exit_page			text,
	merge				bytea NOT NULL,
	source				text NOT NULL,
	visitor				text NOT NULL,
	entry_type			text NOT NULL,
	entry_page			text,
	entry_properties	jsonb,
	PRIMARY KEY (session_id, started_at)
) WITH (fillfactor = 80);
CREATE INDEX _session_visitor ON behavior._session (visitor_hash, started_at);
CREATE INDEX _session_started ON behavior._session (started_at);	-- "sessions of the last hour"; grows at its end
SELECT pg_catalog.pg_extension_config_dump('behavior._session', '');
COMMENT ON TABLE behavior._session IS 'sessions as of the last tick, with what it takes to merge them';

-- What a rebuild has made so far.  Not dumped: a restored rebuild starts anew.
CREATE TABLE behavior._session_next (LIKE behavior._session, PRIMARY KEY (session_id, started_at)) WITH (fillfactor = 80);
CREATE INDEX _session_next_visitor ON behavior._session_next (visitor_hash, started_at);
CREATE INDEX _session_next_started ON behavior._session_next (started_at);
COMMENT ON TABLE behavior._session_next IS 'sessions that are being rebuilt';

-- Where ids that were absorbed or moved have gone: a journal, always pointing at the living id.
CREATE TABLE behavior.session_alias (
	session_id	uuid PRIMARY KEY,
	merged_into	uuid NOT NULL
);
CREATE INDEX session_alias_merged_into ON behavior.session_alias (merged_into);
SELECT pg_catalog.pg_extension_config_dump('behavior.session_alias', '');
COMMENT ON TABLE behavior.session_alias IS 'ids that sessions once had, and the session that each is now part of';

-- Open to everybody, since a view's functions run as its reader.
CREATE FUNCTION behavior._session_type_counts(merge bytea, entry_type text, exit_type text) RETURNS jsonb
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10
	AS 'MODULE_PATHNAME', 'behavior_session_type_counts';
COMMENT ON FUNCTION behavior._session_type_counts(bytea, text, text) IS 'how many events of each type a session has, from what is kept to merge it';

CREATE VIEW behavior.session AS
	SELECT session_id, source, visitor, user_id, started_at, ended_at, ended_at - started_at AS duration,
		events, page_views, entry_type, entry_page, exit_type, exit_page, entry_properties,
		behavior._session_type_counts(merge, entry_type, exit_type) AS type_counts
	FROM behavior._session;
COMMENT ON VIEW behavior.session IS 'sessions as of the last tick: maximal runs of a visitor''s events with no pause longer than behavior.session_timeout';

CREATE FUNCTION behavior.session_id(source text, visitor text, event_id text) RETURNS uuid
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'behavior_session_id';
COMMENT ON FUNCTION behavior.session_id(text, text, text) IS 'id of the session that begins with this event: the UUIDv5 in namespace 43c32fd6-ceca-5633-ac49-1daf30b4cb49 (UUIDv5 of URL behavior.session) of the netstrings (length:bytes,) of source, visitor and event id';

-- Open to everybody, since a view's functions run as its reader.
CREATE FUNCTION behavior._visitor_hash(source text, visitor text) RETURNS bigint
	LANGUAGE C STABLE STRICT PARALLEL SAFE COST 5
	AS 'MODULE_PATHNAME', 'behavior_visitor_hash';
COMMENT ON FUNCTION behavior._visitor_hash(text, text) IS 'what the sessions of a visitor are found by';

REVOKE ALL ON behavior._session, behavior._session_next, behavior.session_alias, behavior.session FROM PUBLIC;
GRANT EXECUTE ON FUNCTION behavior.session_id(text, text, text) TO PUBLIC;

-- Every event with the session that it is part of, as of the last tick.
CREATE VIEW behavior.event_session AS
	SELECT e.*, s.session_id
	FROM behavior.event e
		LEFT JOIN behavior._session s
			ON s.visitor_hash = behavior._visitor_hash(e.source, COALESCE(e.anonymous_id, e.user_id))
			AND s.source = e.source
			AND s.visitor = COALESCE(e.anonymous_id, e.user_id)
			AND e.occurred_at BETWEEN s.started_at AND s.ended_at
			AND NOT COALESCE((SELECT p.settings -> 'ignore' FROM behavior._projection p WHERE p.name = 'sessions') ? e.type, false);
COMMENT ON VIEW behavior.event_session IS 'events with the session that each is part of, NULL for ignored types and for events that no tick has folded yet';
REVOKE ALL ON behavior.event_session FROM PUBLIC;

-- The background processes of this cluster, for tests and for whoever looks after the server.
CREATE FUNCTION behavior._workers(OUT kind text, OUT pid int, OUT database oid, OUT state text)
	RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'behavior__workers';
COMMENT ON FUNCTION behavior._workers() IS
	'background processes: kind (launcher, database, maintenance, delivery), pid, database and state; none when the library is not preloaded';
REVOKE ALL ON FUNCTION behavior._workers() FROM PUBLIC;

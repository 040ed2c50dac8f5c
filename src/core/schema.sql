\echo Use "CREATE EXTENSION behavior" to load this file. \quit

-- A plain CREATE: a schema of this name made beforehand by somebody else makes CREATE EXTENSION fail.
CREATE SCHEMA behavior;
COMMENT ON SCHEMA behavior IS 'customer behaviour analytics: send events with INSERT or COPY, read dashboards with SQL';
GRANT USAGE ON SCHEMA behavior TO PUBLIC;

DO $$
BEGIN
	IF (SELECT encoding FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) <> 6 THEN
		RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
			MESSAGE = 'behavior needs a database with encoding UTF8',
			HINT = 'Create the database with ENCODING ''UTF8'' TEMPLATE template0.';
	END IF;
END
$$;

-- What exists once per database.  The row is made at first use, never here: a row that the install
-- script inserts would make the restore of the whole table fail.
CREATE TABLE behavior._instance (
	singleton	boolean PRIMARY KEY DEFAULT true CHECK (singleton),
	hash_seed	bytea NOT NULL CHECK (pg_catalog.octet_length(hash_seed) = 16),
	created_at	timestamptz NOT NULL
);
SELECT pg_catalog.pg_extension_config_dump('behavior._instance', '');
COMMENT ON TABLE behavior._instance IS 'the seed of every key hash of this database; one row, made by the first event';
REVOKE ALL ON behavior._instance FROM PUBLIC;

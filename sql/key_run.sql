-- Runs of keys: what a backend keeps of them is a hint, whatever becomes of their table.
CREATE FUNCTION claim_range(prefix text, first int, last int, batch bigint, OUT verdict text, OUT keys bigint)
RETURNS SETOF record LANGUAGE sql AS $$
	SELECT c.verdict, count(*)
	FROM behavior._key_claim('run', (SELECT array_agg(prefix || i) FROM generate_series(first, last) i),
		(SELECT array_agg(i::bigint) FROM generate_series(first, last) i), batch) c
	GROUP BY 1 ORDER BY 1
$$;
SET behavior.key_run_size = 1;
SELECT * FROM claim_range('first', 1, 1, 1);

-- What is rolled back stands before what is committed; without it the table is shorter than what was kept says.
BEGIN;
SELECT * FROM claim_range('gone', 1, 20000, 2);
ROLLBACK;
SELECT * FROM claim_range('key', 1, 20000, 3);
SELECT * FROM claim_range('key', 1, 20000, 4);
VACUUM FULL behavior._key_run;
SELECT * FROM claim_range('key', 1, 20000, 5);
SELECT * FROM claim_range('key', 1, 1, 5);
BEGIN;
SELECT * FROM claim_range('end', 1, 20000, 6);
SELECT * FROM claim_range('end', 1, 20000, 6);
ROLLBACK;
VACUUM behavior._key_run;
SELECT * FROM claim_range('key', 1, 20000, 7);
SELECT * FROM claim_range('end', 1, 20000, 7);
REINDEX TABLE behavior._key_run;
SELECT * FROM claim_range('end', 1, 20001, 8);
SELECT verdict, count(*) FROM generate_series(19900, 20010) i, claim_range('end', i, i, 9) GROUP BY 1 ORDER BY 1;
SELECT verdict, count(*) FROM generate_series(19900, 20010) i, claim_range('end', i, i, 9) GROUP BY 1 ORDER BY 1;

-- A restore may have brought the single keys and their index, and the runs not yet.
BEGIN;
DO $$
DECLARE
	name text;
BEGIN
	SELECT indexrelid::regclass INTO name FROM pg_inherits JOIN pg_index ON indrelid = inhrelid
	WHERE inhparent = 'behavior._key_run'::regclass;
	EXECUTE 'DROP INDEX ' || name;
	UPDATE pg_class SET relhasindex = false
	WHERE oid = (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'behavior._key_run'::regclass);
	EXECUTE (SELECT 'TRUNCATE ' || inhrelid::regclass FROM pg_inherits WHERE inhparent = 'behavior._key_run'::regclass);
	BEGIN
		PERFORM claim_range('key', 1, 1, 10);
	EXCEPTION WHEN object_not_in_prerequisite_state THEN
		RAISE NOTICE 'refused';
	END;
END
$$;
ROLLBACK;
SELECT * FROM claim_range('key', 1, 1, 11);
DROP FUNCTION claim_range;

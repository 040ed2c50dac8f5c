-- Statements into behavior.event that run inside each other: each row ends in the batch of the
-- statement that sent it, and what is rolled back leaves nothing.
\set VERBOSITY terse
SET client_min_messages = notice;
SET timezone = 'UTC';

-- what is in the log, batch by batch, without the volatile numbers
CREATE VIEW batches AS
	SELECT pg_catalog.row_number() OVER (ORDER BY min(batch_id)) AS batch, count(*) AS events,
		pg_catalog.string_agg(event_id, ' ' ORDER BY received_at, event_id) AS event_ids
	FROM behavior.event GROUP BY batch_id;
-- every event of the log stands in a batch row that counted it
CREATE VIEW miscounted AS
	SELECT b.batch_id, b.accepted, count(e.event_id)
	FROM behavior.batch b FULL JOIN behavior.event e ON e.batch_id = b.batch_id
	GROUP BY b.batch_id, b.accepted HAVING b.accepted IS DISTINCT FROM count(e.event_id);

\echo -- a function in VALUES that sends, before and after rows of the outer statement
CREATE FUNCTION send(id text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO behavior.event (event_id, type) VALUES (id, 'inner');
	RETURN id || '-outer';
END $$;
INSERT INTO behavior.event (event_id, type)
	VALUES ('a1', 'outer'), (send('a2'), 'outer'), ('a3', 'outer'), (send('a4'), 'outer');
TABLE batches;

\echo -- a nested statement of nested statements
CREATE FUNCTION send_more(id text) RETURNS text LANGUAGE sql AS $$
	INSERT INTO behavior.event (event_id, type) VALUES (send(id || '-x'), 'middle'), (id || '-y', 'middle');
	SELECT id || '-z';
$$;
INSERT INTO behavior.event (event_id, type)
	SELECT send_more('b' || i), 'outermost' FROM generate_series(1, 2) i;
SELECT events, event_ids FROM batches WHERE event_ids LIKE '%b%' ORDER BY event_ids;

\echo -- data-modifying CTEs of one query: one statement, one batch
WITH one AS (INSERT INTO behavior.event (event_id, type) SELECT 'c1-' || i, 'x' FROM generate_series(1, 3) i RETURNING event_id, batch_id),
	two AS (INSERT INTO behavior.event (event_id, type) SELECT event_id || '-again', 'x' FROM one RETURNING event_id, batch_id),
	three AS (INSERT INTO behavior.event (event_id, type) VALUES ('c3', 'never read'))
SELECT (SELECT count(*) FROM one), (SELECT count(*) FROM two), (SELECT count(DISTINCT batch_id) FROM (TABLE one UNION ALL TABLE two) all_rows) AS batches;
SELECT events, event_ids FROM batches WHERE event_ids LIKE '%c%' ORDER BY event_ids;
WITH one AS (INSERT INTO behavior.event (event_id, type) VALUES (send('d1'), 'x') RETURNING event_id)
INSERT INTO behavior.event (event_id, type) SELECT send(event_id || '-2'), 'x' FROM one;
SELECT events, event_ids FROM batches WHERE event_ids LIKE '%d1%' ORDER BY event_ids;

\echo -- a trigger of another table that sends, under a CTE that sends
CREATE TABLE orders (id int);
CREATE FUNCTION on_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO behavior.event (event_id, type) VALUES ('order-' || TG_WHEN || '-' || new.id, 'Order');
	RETURN new;
END $$;
CREATE TRIGGER before_order BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION on_order();
CREATE TRIGGER after_order AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION on_order();
WITH e AS (INSERT INTO behavior.event (event_id, type) SELECT 'e' || i, 'x' FROM generate_series(1, 2) i RETURNING event_id)
INSERT INTO orders SELECT row_number() OVER () FROM e;
SELECT events, event_ids FROM batches WHERE event_ids ~ '^(e\d|order)' ORDER BY event_ids;

\echo -- RETURNING expressions and defaults that send
INSERT INTO behavior.event (event_id, type) VALUES ('f1', 'x'), ('f2', 'x') RETURNING event_id, send('r-' || event_id);
ALTER VIEW behavior.event ALTER COLUMN type SET DEFAULT send('default');
INSERT INTO behavior.event (event_id) VALUES ('f3');
ALTER VIEW behavior.event ALTER COLUMN type DROP DEFAULT;
SELECT events, event_ids FROM batches WHERE event_ids ~ '(^f|r-f|default)' ORDER BY event_ids;

\echo -- savepoints
BEGIN;
INSERT INTO behavior.event (event_id, type) VALUES ('g1', 'x');
SAVEPOINT a;
INSERT INTO behavior.event (event_id, type) VALUES ('g2', 'x');
SELECT received, accepted FROM behavior.last_batch();
ROLLBACK TO a;
SELECT behavior.last_batch() IS NULL AS forgotten;
INSERT INTO behavior.event (event_id, type) VALUES ('g2', 'x'), ('g3', 'x');
SAVEPOINT b;
INSERT INTO behavior.event (event_id, type) VALUES ('g3', 'x'), ('g4', 'x');
RELEASE b;
SELECT received, accepted, duplicates FROM behavior.last_batch();
ROLLBACK TO a;
RELEASE a;
INSERT INTO behavior.event (event_id, type) VALUES ('g5', 'x');
COMMIT;
SELECT events, event_ids FROM batches WHERE event_ids ~ '^g' ORDER BY event_ids;
SELECT received, accepted FROM behavior.last_batch();
BEGIN;
INSERT INTO behavior.event (event_id, type) VALUES ('g6', 'x');
ROLLBACK;
SELECT behavior.last_batch() IS NULL AS forgotten;

\echo -- an error in the middle of a statement, caught or not
CREATE FUNCTION fail_at(i int, at int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	IF i = at THEN RAISE 'failed at %', i; END IF;
	RETURN 'x';
END $$;
INSERT INTO behavior.event (event_id, type) SELECT 'h' || i, fail_at(i, 3) FROM generate_series(1, 5) i;
DO $$
BEGIN
	INSERT INTO behavior.event (event_id, type) VALUES ('i1', 'x');
	BEGIN
		INSERT INTO behavior.event (event_id, type) SELECT 'i2-' || i, fail_at(i, 3) FROM generate_series(1, 5) i;
	EXCEPTION WHEN raise_exception THEN
		INSERT INTO behavior.event (event_id, type) VALUES ('i3', 'x');
	END;
	INSERT INTO behavior.event (event_id, type) VALUES ('i4', 'x');
END $$;
CREATE FUNCTION send_and_fail(id text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		INSERT INTO behavior.event (event_id, type) SELECT id || '-' || i, fail_at(i, 2) FROM generate_series(1, 5) i;
	EXCEPTION WHEN raise_exception THEN NULL;
	END;
	RETURN id;
END $$;
INSERT INTO behavior.event (event_id, type) SELECT send_and_fail('i5-' || i), 'x' FROM generate_series(1, 3) i;
SELECT events, event_ids FROM batches WHERE event_ids ~ '^[hi]' ORDER BY event_ids;
SET behavior.on_invalid = error;
DO $$
BEGIN
	BEGIN
		INSERT INTO behavior.event (event_id, type) VALUES ('i6', 'x'), ('i7', NULL);
	EXCEPTION WHEN not_null_violation THEN NULL;
	END;
	INSERT INTO behavior.event (event_id, type) VALUES ('i8', 'x');
END $$;
RESET behavior.on_invalid;
SELECT events, event_ids FROM batches WHERE event_ids ~ '^i[678]' ORDER BY event_ids;

\echo -- many events, several flushes, with nested statements in between
INSERT INTO behavior.event (event_id, type)
	SELECT CASE WHEN i % 12000 = 0 THEN send('j-' || i) ELSE 'j' || i END, 'x' FROM generate_series(1, 40000) i;
SELECT count(*), count(DISTINCT batch_id) FROM behavior.event WHERE event_id ~ '^j' AND type = 'x';
SELECT received, accepted FROM behavior.last_batch();
SELECT count(*), count(DISTINCT batch_id) FROM behavior.event WHERE event_id ~ '^j' AND type = 'inner';

\echo -- a statement that reads the log while it sends sees the log as it was
INSERT INTO behavior.event (event_id, type) SELECT 'k' || event_id, 'copy' FROM behavior.event;
SELECT received = accepted AS same, received FROM behavior.last_batch();

\echo -- cursors and loops
BEGIN;
DO $$
DECLARE
	c refcursor;
	r record;
BEGIN
	OPEN c FOR EXECUTE $q$INSERT INTO behavior.event (event_id, type) SELECT 'l' || i, 'x' FROM generate_series(1, 5) i RETURNING event_id$q$;
	FETCH c INTO r;
	INSERT INTO behavior.event (event_id, type) VALUES ('l6', 'x');
	CLOSE c;
	FOR r IN INSERT INTO behavior.event (event_id, type) SELECT 'm' || i, 'x' FROM generate_series(1, 3) i RETURNING event_id LOOP
		PERFORM send(r.event_id || '-inner');
		EXIT WHEN r.event_id = 'm2';
	END LOOP;
END $$;
COMMIT;
SELECT events, event_ids FROM batches WHERE event_ids ~ '^[lm]' ORDER BY event_ids;

\echo -- no row, no batch
SELECT count(*) AS batches FROM behavior.batch \gset
INSERT INTO behavior.event (event_id, type) SELECT 'none', 'x' WHERE false;
SELECT count(*) = :batches AS same FROM behavior.batch;
SELECT behavior.last_batch() IS NULL AS nothing_sent;

\echo -- every event is in a batch that counted it
TABLE miscounted;

\echo -- a procedure that commits between what it sends
CREATE PROCEDURE send_and_commit() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 3 LOOP
		INSERT INTO behavior.event (event_id, type) VALUES ('n' || i, 'x'), (send('n' || i || '-inner'), 'x');
		COMMIT;
		INSERT INTO behavior.event (event_id, type) VALUES ('n' || i || '-rolled-back', 'x');
		ROLLBACK;
	END LOOP;
END $$;
CALL send_and_commit();
SELECT behavior.last_batch() IS NULL AS forgotten;
SELECT events, event_ids FROM batches WHERE event_ids ~ '^n' ORDER BY event_ids;

\echo -- two-phase commit
BEGIN;
INSERT INTO behavior.event (event_id, type) VALUES ('o1', 'x');
PREPARE TRANSACTION 'regress_frames';
INSERT INTO behavior.event (event_id, type) VALUES ('o2', 'x');
COMMIT PREPARED 'regress_frames';
INSERT INTO behavior.event (event_id, type) VALUES ('o1', 'x'), ('o2', 'x');
SELECT received, duplicates FROM behavior.last_batch();
SELECT events, event_ids FROM batches WHERE event_ids ~ '^o' AND event_ids !~ 'order' ORDER BY event_ids;

\echo -- ingest() and the inbox while a statement into behavior.event runs
CREATE FUNCTION send_json(id text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO behavior.inbox VALUES ('{"event_id": "' || id || '-inbox", "type": "x"}');
	PERFORM behavior.ingest(pg_catalog.jsonb_build_object('event_id', id || '-ingest', 'type', 'x'));
	RETURN id;
END $$;
INSERT INTO behavior.event (event_id, type) SELECT send_json('q' || i), 'x' FROM generate_series(1, 2) i;
WITH e AS (INSERT INTO behavior.event (event_id, type) VALUES ('r1', 'x') RETURNING event_id),
	i AS (INSERT INTO behavior.inbox SELECT '{"event_id": "r2", "type": "x"}' FROM e)
INSERT INTO behavior.event (event_id, type) SELECT 'r3', 'x' FROM e;
SELECT events, event_ids FROM batches WHERE event_ids ~ '^[qr]\d' ORDER BY event_ids;
TABLE miscounted;

\echo -- the same session after the extension was dropped and made again
SET client_min_messages = warning;
DROP EXTENSION behavior CASCADE;
INSERT INTO behavior.event (event_id, type) VALUES ('a1', 'again');
CREATE EXTENSION behavior;
SELECT behavior.last_batch() IS NULL AS forgotten;
INSERT INTO behavior.event (event_id, type) VALUES ('a1', 'again'), ('a1', 'again');
SELECT received, accepted, duplicates FROM behavior.last_batch();

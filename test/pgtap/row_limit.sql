-- A statement that its caller stops early never fires AFTER STATEMENT: what it sent up to there is sent.
-- SPI_execute() with a row limit does that; PL/Perl passes one on.
\set QUIET 1
\pset format unaligned
\pset tuples_only true
SELECT pg_catalog.count(*) > 0 AS have_plperl FROM pg_catalog.pg_available_extensions WHERE name = 'plperl' \gset
BEGIN;
SELECT plan(8);
\if :have_plperl
CREATE EXTENSION plperl;
CREATE FUNCTION send_first(name text, n int) RETURNS text LANGUAGE plperl AS $$
	my $sent = spi_exec_query("INSERT INTO behavior.event (event_id, type) SELECT '$_[0]-' || i, 'limited' FROM generate_series(1, 5) i RETURNING event_id", $_[1]);
	return "$sent->{processed} $sent->{rows}[0]->{event_id}";
$$;
SELECT is(send_first('a', 1), '1 a-1', 'stopped after one row');
SELECT results_eq($$SELECT event_id FROM behavior.event WHERE type = 'limited'$$, ARRAY['a-1'], 'the row is stored at once');
SELECT results_eq('SELECT received, accepted FROM behavior.last_batch()', 'VALUES (1::bigint, 1::bigint)', 'and counted');
INSERT INTO behavior.event (event_id, type) SELECT send_first('b' || i, 2), 'outer' FROM generate_series(1, 3) i;
SELECT results_eq('SELECT received, accepted FROM behavior.last_batch()', 'VALUES (3::bigint, 3::bigint)', 'the outer statement has its own rows');
SELECT is(count(*), 6::bigint, 'the inner ones have theirs') FROM behavior.event WHERE event_id ~ '^b\d-[12]$';
SELECT is(count(DISTINCT batch_id), 4::bigint, 'in batches of their own') FROM behavior.event WHERE event_id ~ 'b\d-';
SAVEPOINT s;
SELECT is(send_first('c', 3), '3 c-1', 'stopped inside a savepoint');
ROLLBACK TO s;
SELECT is(count(*), 0::bigint, 'rolled back with it') FROM behavior.event WHERE event_id LIKE 'c%';
\else
SELECT skip('PL/Perl is not installed', 8);
\endif
SELECT * FROM finish();
ROLLBACK;

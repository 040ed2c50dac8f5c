# Idempotency keys over many generations: random senders at every isolation level while generations are
# switched, packed and merged all the time; then a crash, a prepared transaction, a standby, a restore, and the window.
# KEY_STRESS=n makes it n times longer.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Lifecycle;

my $node = new_node(
	'main',
	init => { allows_streaming => 1 },
	settings => [
		"behavior.worker = off",
		"behavior.key_generation_size = 2000",
		"deadlock_timeout = '10ms'",
		"max_prepared_transactions = 4",
	]);
my $length = $ENV{KEY_STRESS} || 1;

# A sender notes what it was told in the transaction that it is told in.
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION behavior;
CREATE TABLE accepted (key int, batch bigint);
CREATE TABLE known (key int, batch bigint);
CREATE SEQUENCE batch;
CREATE PROCEDURE maintain() LANGUAGE plpgsql AS $$
BEGIN
	COMMIT;
	WHILE behavior._key_maintain() LOOP
		COMMIT;
	END LOOP;
END
$$;
CREATE PROCEDURE send() LANGUAGE plpgsql AS $$
DECLARE
	id bigint;
	keys int[];
BEGIN
	COMMIT;
	FOR claim IN 1 .. 1 + floor(random() * 2) LOOP
		BEGIN
			id := nextval('batch');
			-- Mostly keys of the last few hundred claims, some of any time before.
			keys := ARRAY(SELECT id * 20 - floor(random() * CASE WHEN random() < 0.1 THEN id * 20 ELSE 3000 END)
				FROM generate_series(0, floor(random() * CASE WHEN random() < 0.05 THEN 800 ELSE 100 END)::int));
			WITH claim AS MATERIALIZED (
				SELECT keys[c.ordinal] AS key, c.verdict, c.batch_id
				FROM behavior._key_claim('s', keys::text[], keys::bigint[], id) c),
			new AS (INSERT INTO accepted SELECT key, batch_id FROM claim WHERE verdict = 'new')
			INSERT INTO known SELECT key, batch_id FROM claim WHERE verdict <> 'new';
			IF random() < 0.15 THEN
				RAISE EXCEPTION USING ERRCODE = 'ZZ001';
			END IF;
		EXCEPTION WHEN SQLSTATE 'ZZ001' OR deadlock_detected THEN
			NULL;
		END;
	END LOOP;
	IF random() < 0.15 THEN
		ROLLBACK;
	END IF;
END
$$;
CREATE PROCEDURE move() LANGUAGE plpgsql AS $$
DECLARE
	name text := (SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'behavior._key_run'::regclass ORDER BY random() LIMIT 1);
BEGIN
	IF random() < 0.5 THEN
		EXECUTE format('CLUSTER %s USING %s', name, (SELECT relname FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = name::regclass));
	ELSE
		EXECUTE format('REINDEX TABLE %s', name);
	END IF;
EXCEPTION WHEN OTHERS THEN
	-- It may be gone, or a deadlock ends here.
	NULL;
END
$$;
-- Everything that must hold, as text; nothing when it does.
CREATE FUNCTION wrong() RETURNS SETOF text LANGUAGE sql AS $$
	SELECT format('key %s was accepted %s times', key, count(*)) FROM accepted GROUP BY key HAVING count(*) > 1
	UNION ALL
	SELECT format('key %s was said to be in batch %s and is not', key, batch)
	FROM (SELECT * FROM known EXCEPT SELECT * FROM accepted) k
	UNION ALL
	SELECT format('key %s of batch %s is found in batch %s', key, batch, found)
	FROM (SELECT *, behavior._key_find('s', key::text) AS found FROM accepted) f WHERE found IS DISTINCT FROM batch
	UNION ALL
	SELECT format('key %s is found in batch %s and was never accepted', key, found)
	FROM (SELECT key, behavior._key_find('s', key::text) AS found
		FROM (SELECT generate_series(1, (SELECT last_value::int * 20 FROM batch)) EXCEPT SELECT key FROM accepted) x(key)) f
	WHERE found IS NOT NULL
$$;
SQL

my $folder = PostgreSQL::Test::Utils::tempdir;
my @pgbench = ('pgbench', '-n', '-c', '4');
# Claims of up to 800 keys: one and many to a bucket.
foreach my $level ('read committed', 'repeatable read', 'serializable')
{
	(my $file = "$folder/$level.sql") =~ tr/ /_/;
	append_to_file($file, "SET default_transaction_isolation = '$level';\nSET behavior.key_run_size = 1000;\nCALL send();\nRESET behavior.key_run_size;\n");
	push @pgbench, '-f', "$file\@1";
	# The same with keys packed into runs: all of them, or those of which a bucket has two.
	(my $runs = "$folder/$level.runs.sql") =~ tr/ /_/;
	append_to_file($runs, "\\set size random(1, 2)\nSET default_transaction_isolation = '$level';\nSET behavior.key_run_size = :size;\nCALL send();\nRESET behavior.key_run_size;\n");
	push @pgbench, '-f', "$runs\@2";
}
append_to_file("$folder/maintain.sql", "CALL maintain();\n");
push @pgbench, '-f', "$folder/maintain.sql\@1";
# What was rolled back is swept up, and others fill its place; truncating would wait for a lock, 5 s each time.
append_to_file("$folder/vacuum.sql", "SET client_min_messages = error;\nVACUUM (TRUNCATE off) behavior._key, behavior._key_run;\n");
push @pgbench, '-f', "$folder/vacuum.sql\@1";
# Rows move, and the table and its index get other files: what senders keep of them is of the old ones.
append_to_file("$folder/move.sql", "CALL move();\n");
push @pgbench, '-f', "$folder/move.sql\@1";

# From the first use on: nobody has sent anything yet.
$node->command_ok([ @pgbench, '-t', 150 * $length, $node->connstr('postgres') ], 'random senders meet no error');
is($node->safe_psql('postgres', 'SELECT * FROM wrong() LIMIT 10'), '', 'every key was accepted once');
cmp_ok($node->safe_psql('postgres', 'SELECT max(generation) FROM behavior._key_generation'), '>', 5, 'over several generations');

# A crash in the middle.
my $accepted = $node->safe_psql('postgres', 'SELECT count(*) FROM accepted');
my $output = '';
my $run = IPC::Run::start([ @pgbench, '-T', 600, $node->connstr('postgres') ], '>', \$output, '2>&1');
$node->poll_query_until('postgres', "SELECT count(*) > $accepted + 3000 FROM accepted") or die 'nothing is sent';
$node->stop('immediate');
$run->finish;
$node->start;
is($node->safe_psql('postgres', 'SELECT * FROM wrong() LIMIT 10'), '', 'nor does a crash change that');
$node->command_ok([ @pgbench, '-t', 20, $node->connstr('postgres') ], 'sending goes on');
is($node->safe_psql('postgres', 'CALL maintain(); SELECT * FROM wrong() LIMIT 10'), '', 'and is right');

# Runs are there, and what is rolled back of them may be swept up.
$node->safe_psql('postgres', <<'SQL');
SET behavior.key_run_size = 1;
BEGIN;
SELECT FROM behavior._key_claim('swept', (SELECT array_agg(i::text) FROM generate_series(1, 3000) i), (SELECT array_agg(1::bigint) FROM generate_series(1, 3000)), 1);
ROLLBACK;
SELECT format('VACUUM %s', inhrelid::regclass) FROM pg_inherits WHERE inhparent = 'behavior._key_run'::regclass \gexec
SELECT FROM behavior._key_claim('swept', (SELECT array_agg(i::text) FROM generate_series(1, 2000) i), (SELECT array_agg(1::bigint) FROM generate_series(1, 2000)), 2);
SQL
is($node->safe_psql('postgres', <<'SQL'), 'duplicate|2000', 'keys of a run rolled back are free, those of its successor known');
SELECT verdict, count(*) FROM behavior._key_claim('swept', (SELECT array_agg(i::text) FROM generate_series(1, 2000) i), (SELECT array_agg(1::bigint) FROM generate_series(1, 2000)), 3) GROUP BY 1;
SQL

# A prepared transaction keeps its keys over a switch and a restart, and what it is in is not packed.
$node->safe_psql('postgres', <<'SQL');
BEGIN;
SELECT FROM behavior._key_claim('prepared', ARRAY['a'], ARRAY[1], 1);
PREPARE TRANSACTION 'keys';
SELECT FROM behavior._key_claim('fill', (SELECT array_agg(i::text) FROM generate_series(1, 3000) i), (SELECT array_agg(1::bigint) FROM generate_series(1, 3000)), 2);
CALL maintain();
SQL
$node->restart;
is($node->safe_psql('postgres', "SELECT behavior._key_maintain(), count(*) FROM behavior._key_generation WHERE state = 'sealed'"),
	'f|1', 'a generation is not packed while a prepared transaction has keys in it');
my ($status) = $node->psql('postgres', "SET lock_timeout = '50ms'; SELECT * FROM behavior._key_claim('prepared', ARRAY['a'], ARRAY[1], 3)");
isnt($status, 0, 'its key is waited for');
$node->safe_psql('postgres', "COMMIT PREPARED 'keys'; CALL maintain()");
is($node->safe_psql('postgres', "SELECT verdict, batch_id FROM behavior._key_claim('prepared', ARRAY['a'], ARRAY[1], 4)"),
	'duplicate|1', 'and is known when it is committed');

# A standby finds keys.
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
$node->command_ok([ @pgbench, '-t', 20, $node->connstr('postgres') ], 'sending with a standby');
$node->safe_psql('postgres', 'CALL maintain()');
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', 'SELECT * FROM wrong() LIMIT 10'), '', 'a standby finds the same keys');
$standby->stop;

# Dump and restore: in parallel, so that tables come in any order.
foreach my $format ('custom', 'plain')
{
	my $copy = "copy_$format";
	my $file = "$folder/dump_$format";

	$node->safe_psql('postgres', "CREATE DATABASE $copy");
	$node->command_ok([ 'pg_dump', "--format=$format", '-f', $file, $node->connstr('postgres') ], "$format dump");
	if ($format eq 'custom')
	{
		$node->command_ok([ 'pg_restore', '--exit-on-error', '-j', '2', '-d', $node->connstr($copy), $file ], 'restore');
	}
	else
	{
		$node->command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($copy), '-f', $file ], 'restore');
	}
	is($node->safe_psql($copy, 'SELECT * FROM wrong() LIMIT 10'), '', 'all keys are known after it');
	$node->command_ok([ @pgbench, '-t', 20, $node->connstr($copy) ], 'sending goes on');
	is($node->safe_psql($copy, 'CALL maintain(); SELECT * FROM wrong() LIMIT 10'), '', 'and is right');
}

# The window is measured against the newest event in the database, not against the clock.
$node->safe_psql('postgres', 'CREATE DATABASE win');
$node->safe_psql('win', <<'SQL');
CREATE EXTENSION behavior;
CREATE PROCEDURE maintain() LANGUAGE plpgsql AS $$
BEGIN
	COMMIT;
	WHILE behavior._key_maintain() LOOP
		COMMIT;
	END LOOP;
END
$$;
-- A generation of keys, as if received at a time.
CREATE PROCEDURE fill(source text, received_at timestamptz) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM FROM behavior._key_claim(source, (SELECT array_agg(i::text) FROM generate_series(1, 2500) i),
		(SELECT array_agg(1::bigint) FROM generate_series(1, 2500)), 1);
	COMMIT;
	PERFORM behavior._key_maintain();
	UPDATE behavior._key_generation SET newest_received_at = $2, oldest_received_at = $2 - interval '1 hour' WHERE state = 'sealed';
	COMMIT;
	CALL maintain();
END
$$;
SQL
$node->append_conf('postgresql.conf', "behavior.idempotency_window = '10d'");
$node->reload;
$node->safe_psql('win', "CALL fill('day $_', '2001-01-0$_')") foreach 1 .. 4;
my $state = "SELECT string_agg(source || coalesce(' ' || behavior._key_find(source, '1'), ' gone'), ', ' ORDER BY source) FROM (SELECT 'day ' || i FROM generate_series(1, 4) i) d(source)";
is($node->safe_psql('win', $state), 'day 1 1, day 2 1, day 3 1, day 4 1', 'keys that are years old stay while nothing newer comes');
cmp_ok($node->safe_psql('win', "SELECT max(newest_received_at - oldest_received_at) FROM behavior._key_generation WHERE state = 'packed'"),
	'le', '2 days 12:00:00', 'no generation spans more than a quarter of the window');
$node->safe_psql('win', "INSERT INTO behavior._batch (batch_id, received_at, sender_id, received, accepted) VALUES (1, '2001-01-11', 1, 1, 1); CALL maintain()");
is($node->safe_psql('win', $state), 'day 1 1, day 2 1, day 3 1, day 4 1', 'within the window nothing is forgotten');
$node->safe_psql('win', "INSERT INTO behavior._batch (batch_id, received_at, sender_id, received, accepted) VALUES (2, '2001-01-13 12:00', 1, 1, 1); CALL maintain()");
is($node->safe_psql('win', $state), 'day 1 gone, day 2 gone, day 3 gone, day 4 1', 'beyond it whole generations are');
is($node->safe_psql('win', "SELECT verdict FROM behavior._key_claim('day 1', ARRAY['1'], ARRAY[1], 9)"), 'new', 'and their keys are free');
$node->safe_psql('win', "INSERT INTO behavior._batch (batch_id, received_at, sender_id, received, accepted) VALUES (3, '2101-01-01', 1, 1, 1); CALL maintain()");
is($node->safe_psql('win', "SELECT string_agg(state, ',') FROM behavior._key_generation"), 'hot', 'only the hot generation is left in the end');
is($node->safe_psql('win', "SELECT count(*) FROM pg_class WHERE relnamespace = 'behavior'::regnamespace AND relkind = 'r' AND relname ~ '^_key_(page_|filter_)?\\d+\$'"),
	'1', 'with its table');

$node->stop;
done_testing();

# Workers come and go with the extension, the server and the settings.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Lifecycle;

# Without preload everything works by hand.
my $node = new_node('main', no_preload => 1);
$node->safe_psql('postgres', 'CREATE EXTENSION behavior');
is($node->safe_psql('postgres', 'SHOW behavior.tick_interval'), '200ms', 'settings are there without preload');
send_events($node, 'postgres', 1, 50);
$node->safe_psql('postgres', 'CALL behavior.tick()');
check_sums($node, 'postgres', 50, 'without preload');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'behavior %'"),
	'0', 'no worker without preload');

# With it, a worker comes to the database that has the extension, and to no other.
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'behavior'");
$node->restart;
my $pid = wait_for_worker($node, 'postgres');
send_events($node, 'postgres', 51, 100);
ok(wait_until_folded($node, 'postgres', 100), 'the worker folds');
check_sums($node, 'postgres', 100, 'after preload');

# CREATE EXTENSION, rolled back and committed.
$node->safe_psql('postgres', 'CREATE DATABASE undone');
$node->safe_psql('postgres', 'CREATE DATABASE done');
$node->safe_psql('undone', 'BEGIN; CREATE EXTENSION behavior; ROLLBACK');
$node->safe_psql('done', 'BEGIN; SAVEPOINT a; CREATE EXTENSION behavior; RELEASE a; COMMIT');
wait_for_worker($node, 'done');
is(worker_pid($node, 'undone'), '', 'no worker after CREATE EXTENSION was rolled back');
is(worker_pid($node, 'postgres'), $pid, 'the worker of another database is left alone');
is($node->safe_psql('done', "SELECT string_agg(kind || ' ' || state, ', ' ORDER BY kind) FROM behavior._workers() WHERE database IS NULL"),
	'launcher serving', 'the launcher shows');

# By way of a function, in a database that was probed before.
$node->safe_psql('undone', 'DO $$ BEGIN EXECUTE $a$CREATE EXTENSION behavior$a$; END $$');
ok(wait_for_worker($node, 'undone'), 'a worker after CREATE EXTENSION in a function');

# Whatever ALTER DATABASE and ALTER ROLE say.
$node->safe_psql('postgres', $_) foreach (
	'ALTER DATABASE done SET default_transaction_read_only = on',
	"ALTER DATABASE done SET default_transaction_isolation = 'serializable'",
	"ALTER DATABASE done SET statement_timeout = '1ms'",
	"ALTER DATABASE done SET session_replication_role = 'replica'",
	'ALTER DATABASE done SET search_path = nowhere',
	'CREATE ROLE nobody_special',
	'ALTER DATABASE done SET role = nobody_special');
$pid = worker_pid($node, 'done');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
wait_for_worker($node, 'done', $pid);
$node->safe_psql('postgres', "ALTER DATABASE done RESET role");
$node->safe_psql('postgres', "ALTER DATABASE done RESET statement_timeout");
send_events($node, 'done', 1, 20);
ok(wait_until_folded($node, 'done', 20), 'a worker is not impressed by ALTER DATABASE');

# DROP EXTENSION: it leaves without a word, and comes back with the extension.
my $position = log_position($node);
$node->safe_psql('done', 'SET default_transaction_read_only = off; DROP EXTENSION behavior CASCADE');
ok(wait_for_no_worker($node, 'done'), 'no process stays after DROP EXTENSION');
unlike(log_since($node, $position), qr/(ERROR|WARNING|FATAL|PANIC):/, 'they left quietly');
$node->safe_psql('done', 'SET default_transaction_read_only = off; CREATE EXTENSION behavior');
ok(wait_for_worker($node, 'done'), 'a worker comes back with the extension');
$node->safe_psql('postgres', 'DROP DATABASE done');

# kill -9 of the worker: the server recovers, and the worker goes on.
$pid = worker_pid($node, 'postgres');
send_events($node, 'postgres', 101, 150);
kill 'KILL', $pid;
$node->poll_query_until('postgres', 'SELECT true');
wait_for_worker($node, 'postgres', $pid);
send_events($node, 'postgres', 101, 200);
ok(wait_until_folded($node, 'postgres', 200), 'the worker goes on after kill -9');
check_sums($node, 'postgres', 200, 'after kill -9');

# The launcher ends: another comes and finds the workers that are there.
my $launcher = $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'behavior launcher'");
$pid = worker_pid($node, 'postgres');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)");
ok($node->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'behavior launcher' AND pid <> $launcher"),
	'the launcher comes back');
is(worker_pid($node, 'postgres'), $pid, 'the worker stayed');

# Immediate stop and recovery.
send_events($node, 'postgres', 201, 250);
$node->stop('immediate');
$node->start;
wait_for_worker($node, 'postgres');
send_events($node, 'postgres', 201, 300);
ok(wait_until_folded($node, 'postgres', 300), 'the worker goes on after an immediate stop');
check_sums($node, 'postgres', 300, 'after recovery');

# Settings that take effect by reload.
$node->append_conf('postgresql.conf', 'behavior.worker = off');
$node->reload;
ok(wait_for_no_worker($node, 'postgres'), 'behavior.worker = off ends the workers');
ok(wait_for_no_worker($node, 'undone'), 'of every database');
$node->append_conf('postgresql.conf', "behavior.worker = on\nbehavior.databases = 'undone, \"a name\"'");
$node->reload;
wait_for_worker($node, 'undone');
is(worker_pid($node, 'postgres'), '', 'behavior.databases leaves the others without');
$node->append_conf('postgresql.conf', "behavior.databases = '*'");
$node->reload;
ok(wait_for_worker($node, 'postgres'), 'behavior.databases = * lets them come back');

# A library and an extension that do not fit: said once, and nothing is folded until they do.
$position = log_position($node);
$node->safe_psql('undone', q{SET allow_system_table_mods = on; UPDATE pg_extension SET extversion = '0.1' WHERE extname = 'behavior'});
$node->wait_for_log(qr/WARNING:  extension "behavior" is at version 0\.1, the loaded library at/, $position);
send_events($node, 'undone', 1, 10);
wait_for_worker($node, 'undone');
is($node->safe_psql('undone', 'SELECT count(*) FROM behavior.tick'), '0', 'no tick with another version');
$node->safe_psql('undone', q{SET allow_system_table_mods = on; UPDATE pg_extension SET extversion = (SELECT default_version FROM pg_available_extensions WHERE name = 'behavior') WHERE extname = 'behavior'});
ok(wait_until_folded($node, 'undone', 10), 'but with the right one');
my $mismatches = () = log_since($node, $position) =~ /WARNING:  extension "behavior" is at version/g;
cmp_ok($mismatches, '<=', 2, 'the warning comes once a process, of which there are two');

# An idle database: no write, no snapshot.
$node->safe_psql('postgres', 'DROP DATABASE undone');
$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'behavior maintenance' AND state <> 'idle'");
$node->safe_psql('postgres', 'CHECKPOINT');
my $lsn = $node->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
my $ticks = $node->safe_psql('postgres', 'SELECT max(tick_id) FROM behavior.tick');
my $turns = 0;
# Two looks at the beat of a worker that has nothing to do, by the clock of its own state.
for (1 .. 2)
{
	my $since = $node->safe_psql('postgres',
		"SELECT state_change FROM pg_stat_activity WHERE backend_type = 'behavior worker'");
	$turns += $node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'behavior worker' AND state = 'idle'"
		. " AND state_change > '$since' AND backend_xmin IS NULL AND backend_xid IS NULL");
}
is($turns, 2, 'an idle worker turns and holds no snapshot');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.backend_type = 'behavior worker' AND l.locktype = 'relation' AND a.state = 'idle'"),
	'0', 'nor a lock');
is($node->safe_psql('postgres', 'SELECT max(tick_id) FROM behavior.tick'), $ticks, 'it cuts no tick');
is($node->safe_psql('postgres', "SELECT pg_current_wal_insert_lsn() - '$lsn' < 8192"), 't', 'and writes nothing');

# No free slot: said once, and CALL works.
$node->safe_psql('postgres', "ALTER SYSTEM SET max_worker_processes = 2");
$position = log_position($node);
$node->restart;
$node->wait_for_log(qr/WARNING:  could not start the behavior worker/, $position);
$node->safe_psql('postgres', "CREATE DATABASE poke$_") foreach (1 .. 3);
send_events($node, 'postgres', 301, 320);
$node->safe_psql('postgres', 'CALL behavior.tick()');
check_sums($node, 'postgres', 320, 'without a slot');
my $log = log_since($node, $position);
my $warnings = () = $log =~ /WARNING:  could not start the behavior worker/g;
is($warnings, 1, 'that no slot is free is said once');
like($log, qr/HINT:  Increase max_worker_processes/, 'with the setting to change');

$node->stop;
done_testing();

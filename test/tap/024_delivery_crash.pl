# Each event takes effect once, whatever ends the worker between the effect and its commit.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Lifecycle;

my @settings = ("behavior.tick_interval = '1h'", 'behavior.delivery_workers = 2', "behavior.handler_timeout = '10min'",
	'max_worker_processes = 16');
my $node = new_node('main', settings => \@settings, init => { allows_streaming => 1 });

# In a database: a table of effects, and a handler that stays between effect and commit as long as somebody holds the lock.
my $setup = q{
	CREATE EXTENSION behavior;
	CREATE TABLE effect (event_id text);
	CREATE FUNCTION take(behavior.event[]) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.effect SELECT e.event_id FROM unnest($1) e;
		PERFORM pg_advisory_xact_lock_shared(1);
	END $$;
	SELECT behavior.create_subscription('s', '{"source": ["default"]}', 'public.take', batch_size => 10);
};
$node->safe_psql('postgres', $setup);
wait_for_worker($node, 'postgres');

sub delivery_pid
{
	my ($at, $database) = @_;
	$at->poll_query_until($database, "SELECT count(*) = 1 FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
		. " WHERE l.locktype = 'advisory' AND NOT l.granted AND a.backend_type = 'behavior delivery' AND a.datname = '$database'")
		or die "no handler waits in $database";
	return $at->safe_psql($database, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'behavior delivery' AND wait_event = 'advisory' AND datname = '$database'");
}

sub effects
{
	my ($at, $database, $events, $what) = @_;
	ok($at->poll_query_until($database, "SELECT count(DISTINCT event_id) = $events FROM effect"), $what);
	is($at->safe_psql($database, 'SELECT count(*) FROM effect'), $events, "$what: each once");
	return;
}

# kill -9 of the worker takes the server down and up again.
send_events($node, 'postgres', 1, 5);
effects($node, 'postgres', 5, 'a first few');
my $gate = hold_open($node, 'postgres', 'SELECT pg_advisory_lock(1)');
send_events($node, 'postgres', 6, 30);
my $pid = delivery_pid($node, 'postgres');
kill 'KILL', $pid;
eval { close_held($gate) };
ok($node->poll_query_until('postgres', 'SELECT true'), 'the server comes back');
effects($node, 'postgres', 30, 'after kill -9 of the worker');
is($node->safe_psql('postgres', "SELECT matched, delivered, failed FROM behavior.subscription"), '30|30|0', 'and they are counted once');

# The same with the whole server.
$gate = hold_open($node, 'postgres', 'SELECT pg_advisory_lock(1)');
send_events($node, 'postgres', 31, 60);
delivery_pid($node, 'postgres');
$node->stop('immediate');
eval { close_held($gate) };
$node->start;
effects($node, 'postgres', 60, 'after an immediate stop');

# DROP DATABASE and RENAME while a handler runs.
foreach my $round (1 .. 2)
{
	$node->safe_psql('postgres', 'CREATE DATABASE other');
	$node->safe_psql('other', $setup);
	wait_for_worker($node, 'other');
	$node->safe_psql('other', q{CREATE OR REPLACE FUNCTION take(behavior.event[]) RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(3600)'});
	send_events($node, 'other', 1, 5);
	ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'behavior delivery' AND datname = 'other' AND wait_event = 'PgSleep'"),
		'a handler runs');
	is($node->psql('postgres', $round == 1 ? 'DROP DATABASE other' : 'ALTER DATABASE other RENAME TO another'), 0,
		$round == 1 ? 'DROP DATABASE' : 'RENAME');
}
$node->safe_psql('another', q{CREATE OR REPLACE FUNCTION take(behavior.event[]) RETURNS void LANGUAGE sql AS
	'INSERT INTO public.effect SELECT e.event_id FROM unnest($1) e'});
# The handler as it was runs again by now.
$node->safe_psql('another', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'behavior delivery' AND datname = 'another'");
effects($node, 'another', 5, 'delivered in the renamed database');

# DROP EXTENSION waits for the handler's end; then workers leave without a word.
$node->safe_psql('another', $setup =~ s/.*(CREATE FUNCTION take.*\$\$;).*/$1/sr =~ s/CREATE/CREATE OR REPLACE/r);
$gate = hold_open($node, 'another', 'SELECT pg_advisory_lock(1)');
send_events($node, 'another', 6, 9);
delivery_pid($node, 'another');
my $position = log_position($node);
my $drop = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('another'), '-c', 'DROP EXTENSION behavior CASCADE' ], '2>', \my $said);
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'DROP EXTENSION%' AND wait_event_type = 'Lock'"),
	'DROP EXTENSION waits for the handler');
close_held($gate);
ok($drop->finish, 'DROP EXTENSION while a handler runs');
ok(wait_for_no_worker($node, 'another'), 'all workers leave');
unlike(log_since($node, $position), qr/(WARNING|ERROR|FATAL|PANIC):/, 'without a word');
$node->safe_psql('postgres', 'DROP DATABASE another');

# No slot is left for a delivery worker: the rest goes on, and so does delivery when there is one.
$node->append_conf('postgresql.conf', "max_worker_processes = 2\nmax_logical_replication_workers = 0\nbehavior.databases = postgres\nbehavior.maintenance_workers = 0");
$node->restart;
wait_for_worker($node, 'postgres');
$position = log_position($node);
send_events($node, 'postgres', 61, 70);
ok($node->poll_query_until('postgres', 'SELECT matched = 70 FROM behavior.subscription'), 'events are routed without a delivery worker');
like(log_since($node, $position), qr/WARNING:.*could not start a delivery worker/, 'a warning says what to do');
$node->safe_psql('postgres', 'CALL behavior.tick()');
effects($node, 'postgres', 70, 'and delivered by tick()');
$node->append_conf('postgresql.conf', 'max_worker_processes = 16');
$node->restart;

# A standby promoted while a handler runs on the primary, and another's effects are not there yet.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
wait_for_worker($node, 'postgres');
$gate = hold_open($node, 'postgres', 'SELECT pg_advisory_lock(1)');
send_events($node, 'postgres', 71, 100);
delivery_pid($node, 'postgres');
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'behavior %'"), '0', 'a standby has no delivery worker');
$node->stop('immediate');
eval { close_held($gate) };
$standby->promote;
effects($standby, 'postgres', 100, 'on the promoted standby');
send_events($standby, 'postgres', 101, 120);
effects($standby, 'postgres', 120, 'and it goes on');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM behavior.verify()'), '0', 'verify() finds nothing');

$standby->stop;
done_testing();

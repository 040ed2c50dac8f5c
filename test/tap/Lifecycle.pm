# Lifecycle.pm: what the tests of background workers have in common.
package Lifecycle;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(new_node create_database worker_pid wait_for_worker wait_for_no_worker send_events
	wait_until_folded check_sums hold_open close_held log_since log_position);

# A running server with the library preloaded and a short beat; settings: lines for postgresql.conf.
sub new_node
{
	my ($name, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(extra => [ '-E', 'UTF8' ], %{ $options{init} // {} });
	$node->append_conf('postgresql.conf', "behavior.tick_interval = '200ms'");
	$node->append_conf('postgresql.conf', "autovacuum = off");
	# The test framework turns this off.
	$node->append_conf('postgresql.conf', 'restart_after_crash = on');
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'behavior'")
		unless $options{no_preload};
	$node->append_conf('postgresql.conf', $_) foreach @{ $options{settings} // [] };
	$node->start unless $options{no_start};
	return $node;
}

# A database with the extension.
sub create_database
{
	my ($node, $name) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$node->safe_psql($name, 'CREATE EXTENSION behavior');
	return;
}

sub worker_pid
{
	my ($node, $database) = @_;
	return $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE datname = '$database' AND backend_type = 'behavior worker'");
}

# Polls until the worker of a database is there (another than $not, when given); returns its pid.
sub wait_for_worker
{
	my ($node, $database, $not) = @_;
	my $other = $not ? "AND pid <> $not" : '';

	$node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = '$database' AND backend_type = 'behavior worker' $other")
		or die "no worker came to database $database";
	return worker_pid($node, $database);
}

sub wait_for_no_worker
{
	my ($node, $database) = @_;
	return $node->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = '$database' AND backend_type LIKE 'behavior %'");
}

# Sends events $first..$last of ten users, a minute apart.
sub send_events
{
	my ($node, $database, $first, $last) = @_;
	$node->safe_psql($database, qq{
		SET default_transaction_read_only = off;
		INSERT INTO behavior.event (event_id, type, user_id, occurred_at)
		SELECT 'e' || i, 'PageView', 'u' || i % 10, timestamptz '2025-01-01 00:00:00Z' + i * interval '1 minute'
		FROM generate_series($first, $last) i});
	return;
}

# Polls until sessions hold so many events.
sub wait_until_folded
{
	my ($node, $database, $events) = @_;
	return $node->poll_query_until($database,
		"SELECT coalesce(sum(events), 0) = $events FROM behavior.session");
}

# Everything derived says the same as the log, which holds so many events.
sub check_sums
{
	my ($node, $database, $events, $what) = @_;
	is($node->safe_psql($database, 'SELECT count(*), count(DISTINCT event_id) FROM behavior.log'),
		"$events|$events", "$what: every event is in the log once");
	is($node->safe_psql($database, 'SELECT sum(events) FROM behavior.session'),
		$events, "$what: sessions hold every event");
	is($node->safe_psql($database, 'SELECT sum(events) FROM behavior.activity'),
		$events, "$what: the built-in rollup counts every event");
	is($node->safe_psql($database, 'SELECT count(*) FROM behavior.verify()'), '0', "$what: verify() finds nothing");
	return;
}

# A session that has run some SQL and stays open, as an object for close_held().
sub hold_open
{
	my ($node, $database, $sql) = @_;
	my ($in, $out) = ('', '');
	my $session = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-f', '-', '-d', $node->connstr($database) ],
		'<', \$in, '>', \$out, '2>&1', IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));

	$in = "$sql;\n\\echo held\n";
	$session->pump until $out =~ /^held$/m;
	return { session => $session, in => \$in, out => \$out };
}

sub close_held
{
	my ($held) = @_;
	${ $held->{in} } .= "\\q\n";
	$held->{session}->finish;
	return ${ $held->{out} };
}

sub log_position
{
	my ($node) = @_;
	return -s $node->logfile;
}

sub log_since
{
	my ($node, $position) = @_;
	return slurp_file($node->logfile, $position);
}

1;

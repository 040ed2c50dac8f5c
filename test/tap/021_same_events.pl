# Two and three clients that send the same 100,000 events at the same time, in the same order, all succeed; each
# event is stored once, also when a sender that is ahead of the others rolls back.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Lifecycle;

my $events = 100000;
my $node = new_node('main');
my $file = $node->basedir . '/events.csv';

sub copy_command
{
	my ($set) = @_;
	return "COPY behavior.event (event_id, type, user_id, occurred_at) FROM PROGRAM 'sed s/^/$set-/ $file' (FORMAT csv);";
}

append_to_file($file, join('', map { "$_,PageView,u" . $_ % 1000 . ",2025-01-01T00:00:00Z\n" } 1 .. $events));
$node->safe_psql('postgres', 'CREATE EXTENSION behavior');
wait_for_worker($node, 'postgres');
send_events($node, 'postgres', 1, 1);

my $stored = 1;
my $duplicates = 0;
foreach my $case ([ 'two', 2, 0 ], [ 'three', 3, 0 ], [ 'rollback', 3, 1 ])
{
	my ($name, $clients, $rollback) = @$case;
	my @senders;
	my @errors;

	for my $i (0 .. $clients - 1)
	{
		my $sql = copy_command($name);
		$sql = "BEGIN; $sql ROLLBACK;" if $i < $rollback;
		$errors[$i] = '';
		push @senders, IPC::Run::start(
			[ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-c', $sql ],
			'<', \undef, '2>', \$errors[$i], IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	}
	is(scalar(grep { $_->finish } @senders), $clients, "$name: all succeed");
	is(join('', @errors), '', "$name: without a message");
	is($node->safe_psql('postgres', "SELECT count(*), count(DISTINCT event_id) FROM behavior.event WHERE event_id LIKE '$name-%'"),
		"$events|$events", "$name: each event is stored once");
	$stored += $events;
	$duplicates += ($clients - 1 - $rollback) * $events;
	is($node->safe_psql('postgres', "SELECT sum(accepted), sum(duplicates), sum(conflicts) FROM behavior.batch WHERE received = $events"),
		join('|', $stored - 1, $duplicates, 0),
		"$name: the batches say so");
}
ok(wait_until_folded($node, 'postgres', $stored), 'all of it is folded');
is($node->safe_psql('postgres', 'SELECT count(*) FROM behavior.verify()'), '0', 'and nothing differs');

$node->stop;
done_testing();

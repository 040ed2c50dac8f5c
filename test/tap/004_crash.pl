# A backend killed in the middle of a COPY leaves nothing, and a retry stores everything once.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Lifecycle;

my $node = new_node('main');
$node->safe_psql('postgres', 'CREATE EXTENSION behavior');
wait_for_worker($node, 'postgres');
send_events($node, 'postgres', 1, 10);
ok(wait_until_folded($node, 'postgres', 10), 'a first few events');

sub rows
{
	my ($first, $last) = @_;
	return join('', map { "e$_,PageView,u" . $_ % 10 . ",2025-01-01T00:00:00Z\n" } $first .. $last);
}

foreach my $signal ('KILL', 'QUIT')
{
	my ($in, $out) = ('', '');
	my $copy = IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $node->connstr('postgres') ],
		'<', \$in, '>', \$out, '2>&1', IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	my $batches = $node->safe_psql('postgres', 'SELECT last_value FROM behavior._batch_id_seq');

	$in = "SELECT 'pid ' || pg_backend_pid();\n";
	$copy->pump until $out =~ /pid (\d+)/;
	my ($pid) = $out =~ /pid (\d+)/;
	$in .= "COPY behavior.event (event_id, type, user_id, occurred_at) FROM STDIN (FORMAT csv);\n" . rows(11, 30000);
	$copy->pump_nb until $in eq '';

	# Something was flushed: it is in the middle.
	ok($node->poll_query_until('postgres', "SELECT last_value > $batches FROM behavior._batch_id_seq"),
		"$signal: part of it is written");
	kill $signal, $pid;
	$in .= "\\.\n";
	eval { $copy->finish };
	$node->poll_query_until('postgres', 'SELECT true');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM behavior.log'), '10', "$signal: nothing of it is left in the log");
	is($node->safe_psql('postgres', 'SELECT sum(received) FROM behavior.batch'), '10', "$signal: nor in the batches");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM behavior.dead_letter'), '0', "$signal: nor in dead letters");
}

wait_for_worker($node, 'postgres');
foreach my $try (1 .. 2)
{
	my $file = $node->basedir . '/events.csv';
	append_to_file($file, rows(11, 30000)) if $try == 1;
	$node->safe_psql('postgres', "\\copy behavior.event (event_id, type, user_id, occurred_at) FROM '$file' (FORMAT csv)");
}
ok(wait_until_folded($node, 'postgres', 30000), 'the retry is stored, and once');
check_sums($node, 'postgres', 30000, 'after the retry');
is($node->safe_psql('postgres', 'SELECT sum(received), sum(accepted), sum(duplicates), sum(conflicts), sum(dead_letters) FROM behavior.intake'),
	'59990|30000|29990|0|0', 'the counts are right');

$node->stop;
done_testing();

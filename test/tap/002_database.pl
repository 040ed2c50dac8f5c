# Commands that need a database without connections work while its worker is connected.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Lifecycle;

my $node = new_node('main', settings => ['max_worker_processes = 32', 'allow_in_place_tablespaces = on']);

create_database($node, 'one');
my $pid = wait_for_worker($node, 'one');
send_events($node, 'one', 1, 30);
ok(wait_until_folded($node, 'one', 30), 'events are folded');

# A copy, with the worker of the original running; both have one afterwards.
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE one');
wait_for_worker($node, 'one', $pid);
wait_for_worker($node, 'copy');
check_sums($node, 'copy', 30, 'copy');
send_events($node, 'copy', 1, 40);
ok(wait_until_folded($node, 'copy', 40), 'the worker of the copy folds, and knows the keys');
$node->safe_psql('postgres', "CREATE DATABASE copy2 TEMPLATE one STRATEGY file_copy");
wait_for_worker($node, 'copy2');

# Another name, and back by a rollback.
$pid = wait_for_worker($node, 'one');
$node->safe_psql('postgres', 'ALTER DATABASE one RENAME TO two');
wait_for_worker($node, 'two', $pid);
send_events($node, 'two', 31, 50);
ok(wait_until_folded($node, 'two', 50), 'the worker goes on under the new name');
$node->safe_psql('postgres', 'BEGIN; ALTER DATABASE two RENAME TO three; ROLLBACK');
ok(wait_for_worker($node, 'two'), 'a worker comes back after a rollback');

# Another tablespace.
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION ''");
$node->safe_psql('postgres', 'ALTER DATABASE two SET TABLESPACE elsewhere');
wait_for_worker($node, 'two');
send_events($node, 'two', 51, 60);
ok(wait_until_folded($node, 'two', 60), 'the worker goes on in the other tablespace');
check_sums($node, 'two', 60, 'moved');

# While events are sent at the same time.
for my $round (1 .. 3)
{
	send_events($node, 'two', 60 + $round, 60 + $round);
	$node->safe_psql('postgres', 'ALTER DATABASE two RENAME TO moving');
	$node->safe_psql('postgres', 'ALTER DATABASE moving RENAME TO two');
}
ok(wait_until_folded($node, 'two', 63), 'again and again');

# A command that fails lets the worker come back.
wait_for_worker($node, 'two');
my $held = hold_open($node, 'two', 'SELECT 1');
my ($status, $out, $err) = $node->psql('postgres', 'ALTER DATABASE two RENAME TO four');
isnt($status, 0, 'RENAME fails while somebody is connected');
like($err, qr/being accessed by other users/, 'with the usual message');
ok(wait_for_worker($node, 'two'), 'the worker comes back');
close_held($held);

# Nobody can stop the worker of a database that is not his.
$node->safe_psql('postgres', 'CREATE ROLE stranger LOGIN CREATEDB');
$pid = wait_for_worker($node, 'two');
foreach my $command ('DROP DATABASE two', 'ALTER DATABASE two RENAME TO mine', 'CREATE DATABASE mine TEMPLATE two',
	'ALTER DATABASE two SET TABLESPACE pg_default')
{
	($status, $out, $err) = $node->psql('postgres', "SET ROLE stranger; $command");
	isnt($status, 0, "a stranger may not: $command");
}
is(worker_pid($node, 'two'), $pid, 'the worker has not noticed');

# A template that anybody with CREATEDB may copy.
$node->safe_psql('postgres', 'ALTER DATABASE copy IS_TEMPLATE true');
wait_for_worker($node, 'copy');
$node->safe_psql('postgres', 'SET ROLE stranger; CREATE DATABASE strangers TEMPLATE copy');
ok(wait_for_worker($node, 'strangers'), 'a copy of a template gets a worker');
ok(wait_for_worker($node, 'copy'), 'and so does the template again');
$node->safe_psql('postgres', 'ALTER DATABASE copy IS_TEMPLATE false');

# template1 with the extension.
$node->safe_psql('template1', 'CREATE EXTENSION behavior');
wait_for_worker($node, 'template1');
$node->safe_psql('postgres', 'CREATE DATABASE fresh');
ok(wait_for_worker($node, 'fresh'), 'a database that inherits the extension gets a worker');

# DROP, at once after the worker has come.
foreach my $database (qw(two copy copy2 strangers fresh))
{
	wait_for_worker($node, $database);
	my ($dropped, undef, $error) = $node->psql('postgres', "DROP DATABASE $database");
	is($dropped, 0, "DROP DATABASE $database") or diag $error;
}
$node->safe_psql('postgres', 'CREATE DATABASE again');
is($node->psql('postgres', 'DROP DATABASE again'), 0, 'DROP DATABASE while its worker is starting');

$node->stop;
done_testing();

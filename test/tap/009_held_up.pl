# A build that somebody holds up from an open transaction: the maintenance worker goes on with others, and rests.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Lifecycle;

my $node = new_node('main', settings => ['behavior.maintenance_workers = 0']);
$node->safe_psql('postgres', 'CREATE EXTENSION behavior');
wait_for_worker($node, 'postgres');
send_events($node, 'postgres', 1, 20);
ok(wait_until_folded($node, 'postgres', 20), 'a first few events');
$node->safe_psql('postgres', q{
	SELECT behavior.create_rollup('public.a', 'SELECT type, count(*) AS n FROM behavior.event GROUP BY 1');
	CALL behavior.tick();
	SELECT behavior.rebuild('a');
	SELECT behavior.create_rollup('public.b', 'SELECT type, count(*) AS n FROM behavior.event GROUP BY 1')});

my $lunch = hold_open($node, 'postgres', q{BEGIN; SELECT behavior.alter_rollup('public.a', 'SELECT source, count(*) AS n FROM behavior.event GROUP BY 1')});
$node->append_conf('postgresql.conf', 'behavior.maintenance_workers = 1');
$node->reload;
ok($node->poll_query_until('postgres', q{SELECT state = 'current' FROM behavior.projection WHERE name = 'b'}), 'the other one is built');

# Now there is nothing that it can do.
my $rests = 0;
foreach my $look (1 .. 20)
{
	$rests += $node->safe_psql('postgres',
		q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'behavior maintenance' AND wait_event_type = 'Extension'});
}
cmp_ok($rests, '>', 10, 'and then it rests');
close_held($lunch);
ok($node->poll_query_until('postgres', q{SELECT NOT rebuild FROM behavior._projection WHERE name = 'a'}), 'the first one is built afterwards');
is($node->safe_psql('postgres', 'SELECT sum(n) FROM a'), '20', 'and is right');
is($node->safe_psql('postgres', 'SELECT count(*) FROM behavior.verify()'), '0', 'verify() finds nothing');

done_testing();

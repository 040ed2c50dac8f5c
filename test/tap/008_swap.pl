# A rollup with another query waits for readers to leave; that holds up nobody who folds.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Lifecycle;

my $node = new_node('main');
$node->safe_psql('postgres', 'CREATE EXTENSION behavior');
wait_for_worker($node, 'postgres');
send_events($node, 'postgres', 1, 20);
ok(wait_until_folded($node, 'postgres', 20), 'a first few events');
$node->safe_psql('postgres', q{SELECT behavior.create_rollup('public.views', 'SELECT type, count(*) AS n FROM behavior.event GROUP BY 1')});
ok($node->poll_query_until('postgres', q{SELECT state = 'current' FROM behavior.projection WHERE name = 'views'}), 'a rollup');

my $reader = hold_open($node, 'postgres', 'BEGIN; SELECT * FROM views');
$node->safe_psql('postgres', q{SELECT behavior.alter_rollup('public.views', 'SELECT type, count(*) AS n, max(event_id) AS last FROM behavior.event GROUP BY 1')});
ok($node->poll_query_until('postgres', q{SELECT next_block = -1 FROM behavior._log_walk WHERE projection = 'views'}), 'the other one is built');

# Nothing comes in, so nobody but the builder could hold the projection.
my $free = 0;
foreach my $look (1 .. 20)
{
	$free += $node->safe_psql('postgres',
		q{WITH p AS (SELECT FROM behavior._projection WHERE name = 'views' FOR UPDATE SKIP LOCKED) SELECT count(*) FROM p});
}
is($free, 20, 'the projection is free while its builder waits for the reader');
send_events($node, 'postgres', 21, 30);
ok($node->poll_query_until('postgres', q{SELECT tick_id = (SELECT max(tick_id) FROM behavior.tick) FROM behavior.projection WHERE name = 'views'}),
	'and is folded meanwhile');

close_held($reader);
ok($node->poll_query_until('postgres',
	q{SELECT count(*) = 3 FROM pg_attribute WHERE attrelid = to_regclass('views') AND attnum > 0}), 'then it is swapped in');
is($node->safe_psql('postgres', 'SELECT sum(n) FROM views'), '30', 'and is right');
is($node->safe_psql('postgres', 'SELECT count(*) FROM behavior.verify()'), '0', 'verify() finds nothing');

done_testing();

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

# A rebuild that fails says so until it succeeds, and holds up no fold.
$node->append_conf('postgresql.conf', 'behavior.maintenance_workers = 0');
$node->reload;
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'behavior maintenance'}), 'nobody builds');
$node->safe_psql('postgres', q{
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = 'not now'; END $$;
	DO $$ BEGIN
		EXECUTE format('CREATE TRIGGER refuse BEFORE DELETE ON %s FOR EACH STATEMENT EXECUTE FUNCTION refuse()',
			(SELECT storage FROM behavior.rollup WHERE name = 'views'));
	END $$;
	SELECT behavior.rebuild('views')});
$node->psql('postgres', 'CALL behavior.tick(); CALL behavior.tick(); CALL behavior.tick(); CALL behavior.tick()');
my $failed = q{SELECT error, state FROM behavior.projection WHERE name = 'views'};
is($node->safe_psql('postgres', $failed), 'not now|current', 'the rebuild fails');
send_events($node, 'postgres', 31, 40);
ok($node->poll_query_until('postgres', q{SELECT sum(n) = 40 FROM views_folded}), 'events are folded');
is($node->safe_psql('postgres', $failed), 'not now|current', 'and the error is still there');
$node->safe_psql('postgres', q{DROP FUNCTION refuse() CASCADE; CALL behavior.tick()});
is($node->safe_psql('postgres', $failed), '|current', 'until the rebuild succeeds');

done_testing();

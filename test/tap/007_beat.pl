# A refresh and a backfill that never seem to end disturb neither the beat nor each other.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Lifecycle;

my $node = new_node('main', settings => [ 'behavior.maintenance_workers = 3', 'max_worker_processes = 16' ]);
$node->safe_psql('postgres', q{
	CREATE EXTENSION behavior;
	CREATE TABLE gate (id int);
	-- Waits as long as somebody holds the lock.
	CREATE FUNCTION slow(text, int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
		PERFORM pg_advisory_xact_lock_shared($2);
		RETURN $1;
	END $$;
	CREATE MATERIALIZED VIEW slow_view AS SELECT slow(source, 1) AS x, count(*) AS events FROM behavior.session GROUP BY 1;
	CREATE MATERIALIZED VIEW broken_view AS SELECT 1 / count(*) AS x FROM gate WITH NO DATA;
	CREATE MATERIALIZED VIEW quick_view AS SELECT coalesce(sum(events), 0) AS events FROM behavior.session;
	CREATE MATERIALIZED VIEW concurrent_view AS SELECT source, sum(events) AS events FROM behavior.session GROUP BY 1;
	CREATE UNIQUE INDEX ON concurrent_view (source);
});
wait_for_worker($node, 'postgres');
send_events($node, 'postgres', 1, 20);
ok(wait_until_folded($node, 'postgres', 20), 'a first few events');

my $gate = hold_open($node, 'postgres', 'SELECT pg_advisory_lock(1)');
$node->safe_psql('postgres', qq{
	SELECT behavior.schedule_refresh('slow_view', '1 second', false);
	SELECT behavior.schedule_refresh('broken_view', '1 second', false);
});
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"),
	'the slow refresh is under way');

# A slow backfill beside it.
my $second_gate = hold_open($node, 'postgres', 'SELECT pg_advisory_lock(2)');
$node->safe_psql('postgres', q{
	SELECT behavior.create_rollup('public.slow_rollup',
		$$ SELECT slow(user_id, 2) AS user_id, count(*) AS events FROM behavior.event GROUP BY 1 $$)});
ok($node->poll_query_until('postgres', "SELECT count(*) = 2 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"),
	'the slow backfill is under way');

# Meanwhile ticks are cut and folded, and other views refreshed.
$node->safe_psql('postgres', qq{
	SELECT behavior.schedule_refresh('quick_view', '200 ms');
	SELECT behavior.schedule_refresh('concurrent_view', '200 ms');
});
my $reader = hold_open($node, 'postgres', 'BEGIN; SELECT * FROM concurrent_view');
my $tick = $node->safe_psql('postgres', 'SELECT max(tick_id) FROM behavior.tick');
foreach my $round (1 .. 4)
{
	send_events($node, 'postgres', 10 * $round + 11, 10 * $round + 20);
	ok(wait_until_folded($node, 'postgres', 10 * $round + 20), "round $round is folded");
}
is($node->safe_psql('postgres', 'SELECT max(tick_id) FROM behavior.tick'), $tick + 4, 'a tick for each of them');
ok($node->poll_query_until('postgres', 'SELECT events = 60 FROM quick_view'), 'a quick view is refreshed');
ok($node->poll_query_until('postgres', 'SELECT events = 60 FROM concurrent_view'), 'another while somebody reads it');
ok($node->poll_query_until('postgres',
	"SELECT attempts > 0 AND last_error = 'division by zero' FROM behavior.scheduled_refresh WHERE matview = 'broken_view'::regclass"),
	'one that fails is kept with its error');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"), '2',
	'all that while both have been under way');
is($node->safe_psql('postgres', "SELECT last_started_at IS NOT NULL, last_duration IS NULL FROM behavior.scheduled_refresh WHERE matview = 'slow_view'::regclass"),
	't|t', 'which shows');
my ($status, $out, $err) = $node->psql('postgres', 'SELECT * FROM slow_rollup');
like($err, qr/still being built/, 'the rollup says that it is being built');
close_held($reader);

# A view can be taken off while its refresh runs.
is($node->psql('postgres', "SET statement_timeout = '10s'; SELECT behavior.unschedule_refresh('slow_view')"), 0,
	'unschedule_refresh() does not wait for the refresh');

# And both come to their end.
close_held($gate);
close_held($second_gate);
ok($node->poll_query_until('postgres', "SELECT events = 1 OR events > 0 FROM slow_view"), 'the slow refresh ends');
ok($node->poll_query_until('postgres', "SELECT state = 'current' FROM behavior.projection WHERE name LIKE '%slow_rollup'"),
	'the slow backfill ends');
$node->safe_psql('postgres', 'CALL behavior.tick()');
is($node->safe_psql('postgres', 'SELECT sum(events) FROM slow_rollup'), '60', 'and is right');
is($node->safe_psql('postgres', 'SELECT count(*) FROM behavior.verify()'), '0', 'verify() finds nothing');

# With no maintenance worker at all, CALL does it.
$node->append_conf('postgresql.conf', 'behavior.maintenance_workers = 0');
$node->reload;
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'behavior maintenance'"),
	'behavior.maintenance_workers = 0 ends them');
send_events($node, 'postgres', 61, 70);
ok(wait_until_folded($node, 'postgres', 70), 'the beat goes on');
ok($node->poll_query_until('postgres', 'CALL behavior.tick(); SELECT events = 70 FROM quick_view', "CALL\nt"),
	'CALL refreshes');

# Many events do not wait for the beat; few do.
$node->append_conf('postgresql.conf', "behavior.tick_interval = '1h'\nbehavior.tick_events = 100");
$node->reload;
# The beat under way ends when the worker has read the setting: from then on there is none.
$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'behavior worker'"
	. " AND state_change > pg_conf_load_time() + interval '2 seconds'");
send_events($node, 'postgres', 71, 90);
send_events($node, 'postgres', 91, 300);
ok(wait_until_folded($node, 'postgres', 300), 'more than behavior.tick_events are folded before the beat');

# A broken view did not do harm to the others, nor fill the log.
my $log = slurp_file($node->logfile);
unlike($log, qr/PANIC|terminated by signal/, 'nothing crashed');

$node->stop;
done_testing();

# pg_upgrade moves a database with the extension to another cluster.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Lifecycle;

my $old = new_node('old');
$old->safe_psql('postgres', 'CREATE EXTENSION behavior');
wait_for_worker($old, 'postgres');
send_events($old, 'postgres', 1, 100);
$old->safe_psql('postgres', q{
	SELECT behavior.create_rollup('public.by_user', $$ SELECT user_id, count(*) AS events FROM behavior.event GROUP BY 1 $$);
	CREATE MATERIALIZED VIEW public.top AS SELECT user_id, events FROM by_user_folded WITH NO DATA;
	SELECT behavior.schedule_refresh('public.top', '1 second');
});
$old->safe_psql('postgres', 'CALL behavior.tick()');
ok(wait_until_folded($old, 'postgres', 100), 'folded before the upgrade');
send_events($old, 'postgres', 101, 120);
my $sessions = 'SELECT count(*), min(session_id::text), max(session_id::text) FROM behavior.session';
ok(wait_until_folded($old, 'postgres', 120), 'all of it');
my $before = $old->safe_psql('postgres', $sessions);
$old->stop;

my $new = new_node('new', no_start => 1);
# pg_upgrade writes into its working directory.
chdir $PostgreSQL::Test::Utils::tmp_check or die;
my $bindir = $new->config_data('--bindir');
command_ok([
		'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $bindir, '-B', $bindir,
		'-s', $new->host, '-p', $old->port, '-P', $new->port ],
	'pg_upgrade');
$new->start;
wait_for_worker($new, 'postgres');
is($new->safe_psql('postgres', $sessions), $before, 'sessions came over');
check_sums($new, 'postgres', 120, 'upgraded');
send_events($new, 'postgres', 101, 200);
ok(wait_until_folded($new, 'postgres', 200), 'folding goes on, keys are known');
$new->safe_psql('postgres', 'CALL behavior.tick()');
check_sums($new, 'postgres', 200, 'upgraded, with new events');
is($new->safe_psql('postgres', 'SELECT sum(events) FROM by_user'), '200', 'the rollup answers');
ok($new->poll_query_until('postgres', 'SELECT sum(events) = 200 FROM top'), 'scheduled refreshes go on');

$new->stop;
done_testing();

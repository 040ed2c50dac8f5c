# Routing over notifications, a crash, and a dump that is restored while a queue is half read and a replay under way:
# what was queued is there once, in the same order, although its rows lie elsewhere.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Lifecycle;

my $node = new_node('main', settings => ['behavior.worker = off']);
my $folder = $node->basedir;

sub send_orders
{
	my ($database, $first, $last) = @_;
	$node->safe_psql($database, qq{INSERT INTO behavior.event (event_id, type, occurred_at)
		SELECT 'o' || i, 'Order', timestamptz '2024-01-01 00:00+00' + i * interval '1 minute' FROM generate_series($first, $last) i ORDER BY i % 11});
	return;
}

sub queue_of
{
	my ($database, $subscription) = @_;
	return $node->safe_psql($database, qq{SELECT string_agg(coalesce(event_id, 'gone'), ' ' ORDER BY delivery_id) FROM behavior._queue('$subscription')});
}

my $counts = 'SELECT name, state, matched, delivered, lag_events FROM behavior.subscription ORDER BY name';

$node->safe_psql('postgres', 'CREATE DATABASE original');
$node->safe_psql('original', 'CREATE EXTENSION behavior');
send_orders('original', 1, 15000);
$node->safe_psql('original', q{
	CALL behavior.tick();
	SELECT behavior.create_subscription('live', '{"detail-type": ["Order"]}');
	SELECT behavior.create_subscription('past', '{"detail-type": ["Order"]}', start_at => '2024-01-01 01:00+00');
	CALL behavior.tick();
});

# Who listens is told with the commit, and only of what matched.
my $heard = $node->safe_psql('original', q{
	LISTEN behavior_live;
	INSERT INTO behavior.event (event_id, type) VALUES ('other', 'View');
	CALL behavior.tick();
	SELECT 'nothing yet';
	INSERT INTO behavior.event (event_id, type) VALUES ('order', 'Order');
	CALL behavior.tick();
	SELECT 'heard';
});
like($heard, qr/\Anothing yet\n.*"behavior_live" with payload "\d+"/s, 'a notification for what matched');
unlike($heard, qr/Asynchronous.*nothing yet/s, 'and none for what did not');

send_orders('original', 15001, 15700);
$node->safe_psql('original', 'CALL behavior.tick()');
$node->safe_psql('original', q{SELECT behavior._queue_pass('live', 300), behavior._replay_step('past')});
$node->safe_psql('original', q{SELECT behavior._queue_pass('past', 700)});
my $live = queue_of('original', 'live');
my $past = queue_of('original', 'past');
my $before = $node->safe_psql('original', $counts);
is(scalar(split(/ /, $live)), 401, 'what is left of the live queue');
like($past, qr/\Ao760 o761 /, 'the replay goes on where it was');
like($before, qr/^past\|replaying\|/m, 'it is under way');

# A crash between two commits loses and repeats nothing.
$node->stop('immediate');
$node->start;
is(queue_of('original', 'live'), $live, 'the queue after a crash');
is(queue_of('original', 'past'), $past, 'that of the replay after a crash');
is($node->safe_psql('original', $counts), $before, 'the counts after a crash');

# Not in any tick when the dump is made.
send_orders('original', 15701, 15800);
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$folder/dump", $node->connstr('original') ], 'a dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored TEMPLATE template0');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('restored'), "$folder/dump" ], 'it is restored');
# Rows lie elsewhere now.
$node->safe_psql('restored', q{
	CREATE TABLE copy AS SELECT * FROM behavior.log_2024 ORDER BY event_id DESC;
	DELETE FROM behavior.log_2024;
	INSERT INTO behavior.log_2024 SELECT * FROM copy;
}) if $node->safe_psql('restored', q{SELECT to_regclass('behavior.log_2024') IS NOT NULL}) eq 't';
foreach my $database (qw(original restored))
{
	is(queue_of($database, 'live'), $live, "$database: the queue");
	is(queue_of($database, 'past'), $past, "$database: that of the replay");
	is($node->safe_psql($database, $counts), $before, "$database: the counts");
	$node->safe_psql($database, 'CALL behavior.tick()');
	$node->safe_psql($database, q{DO $$ BEGIN WHILE behavior._replay_step('past') LOOP NULL; END LOOP; END $$});
	is(queue_of($database, 'live'), join(' ', $live, map { "o$_" } 15701 .. 15800), "$database: goes on");
	is($node->safe_psql($database, q{
		SELECT count(*), count(DISTINCT event_id), count(*) FILTER (WHERE live) FROM behavior._queue('past', 100000)}),
		join('|', (15000 - 59 - 700 + 1 + 700 + 100) x 2, 801), "$database: all of the past and what came since, once");
}
$node->stop;
done_testing();

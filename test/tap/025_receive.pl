# Consumers that receive: waiting, cancelling, crashes between effect and commit, a standby and its promotion.  Nobody
# calls tick(), and no beat comes for an hour: sending wakes those who wait.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Lifecycle;

my $node = new_node('main', init => { allows_streaming => 1 }, settings => [ "behavior.tick_interval = '1h'" ]);
my $timeout = $PostgreSQL::Test::Utils::timeout_default;

sub send_events_of
{
	my ($server, $source, $first, $last) = @_;
	$server->safe_psql('postgres',
		qq{INSERT INTO behavior.event (event_id, source, type) SELECT '$source-' || i, '$source', 'x' FROM generate_series($first, $last) i});
	return;
}

# Waits until so many events are queued, or in a state of their own.
sub routed
{
	my ($server, $source, $events) = @_;
	return $server->poll_query_until('postgres', "SELECT lag_events = $events FROM behavior.subscription WHERE name = '$source'");
}

# Receives until there is nothing left; every event must have its effect once.
sub rest
{
	my ($server, $source, $events, $what) = @_;
	$server->safe_psql('postgres', qq{INSERT INTO effect SELECT (event).event_id FROM behavior.receive('$source', 10000)});
	is($server->safe_psql('postgres', qq{SELECT count(*), count(DISTINCT event_id) FROM effect WHERE event_id LIKE '$source-%'}),
		"$events|$events", "$what: each once");
	return;
}

$node->safe_psql('postgres', 'CREATE EXTENSION behavior');
wait_for_worker($node, 'postgres');
$node->safe_psql('postgres', q{
	CREATE TABLE effect (event_id text);
	SELECT behavior.create_subscription(name, jsonb_build_object('source', jsonb_build_array(name)))
	FROM unnest(ARRAY['wait', 'cancel', 'kill', 'flight', 'standby']) AS name;
	SELECT behavior.create_subscription('ordered', '{"source": ["ordered"]}', ordered => true, reorder_window => '1 second');
});

# Somebody who waits gets what is sent meanwhile, in both ways; from an ordered subscription when its time has come.
foreach my $case ([ 'wait', 'NULL', 1 ], [ 'wait', q{'1 hour'}, 2 ], [ 'ordered', 'NULL', 1 ], [ 'ordered', q{'1 hour'}, 2 ])
{
	my ($source, $visibility, $n) = @$case;
	my $consumer = $node->background_psql('postgres');
	$consumer->query_until(qr/waiting/,
		qq{\\echo waiting\nSELECT 'got ' || (event).event_id FROM behavior.receive('$source', 10, $visibility, '$timeout s');\n});
	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%got%' AND wait_event = 'Extension' AND pid <> pg_backend_pid()");
	is($node->safe_psql('postgres', "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.query LIKE '%got%' "
			. "AND a.pid <> pg_backend_pid() AND l.relation::regclass::text LIKE 'behavior.%'"),
		'0', "$source: who waits locks nothing");
	send_events_of($node, $source, $n, $n);
	like($consumer->query('SELECT 1;'), qr/got $source-$n/, "$source, visibility timeout $visibility: woken by what was sent");
	$consumer->quit;
}

# A cancel ends the wait, and leaves the session as it was.
my ($status, $out, $err) = $node->psql('postgres', qq{\\set VERBOSITY verbose
SET statement_timeout = '200ms';
SELECT * FROM behavior.receive('cancel', wait => '$timeout s');
SELECT 'goes on';}, on_error_stop => 0);
like($err, qr/57014/, 'a cancel ends the wait');
like($out, qr/goes on/, 'and the session goes on');
is($node->safe_psql('postgres', "BEGIN; SAVEPOINT s; SELECT count(*) FROM behavior.receive('cancel', wait => '10 ms'); ROLLBACK TO s; COMMIT"),
	'0', 'waiting in a subtransaction');
($status, $out, $err) = $node->psql('postgres', qq{SELECT behavior.receive('none', wait => '1 s');\nSELECT 'goes on';}, on_error_stop => 0);
like($out, qr/goes on/, 'an error leaves no transaction block behind');

# Killed between effect and commit.
send_events_of($node, 'kill', 1, 100);
routed($node, 'kill', 100);
my $consumer = $node->background_psql('postgres', on_error_die => 0);
$consumer->query('BEGIN;');
$consumer->query(q{INSERT INTO effect SELECT (event).event_id FROM behavior.receive('kill', 50);});
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'");
$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE state = 'idle in transaction'");
rest($node, 'kill', 100, 'the consumer is killed before it commits');
eval { $consumer->quit };

# The server crashes: what was in flight is in flight, what was acknowledged is gone, what was not committed comes again.
send_events_of($node, 'flight', 1, 30);
routed($node, 'flight', 30);
$node->safe_psql('postgres', q{
	CREATE TABLE got AS SELECT delivery_id, (event).event_id FROM behavior.receive('flight', 20, '1 hour');
	SELECT behavior.ack(array_agg(delivery_id)) FROM (SELECT delivery_id FROM got ORDER BY delivery_id LIMIT 5) g;
	INSERT INTO effect SELECT event_id FROM (SELECT event_id FROM got ORDER BY delivery_id LIMIT 5) g;
});
$consumer = $node->background_psql('postgres', on_error_die => 0);
$consumer->query('BEGIN;');
$consumer->query(q{INSERT INTO effect SELECT (event).event_id FROM behavior.receive('flight', 5);});
$node->stop('immediate');
eval { $consumer->quit };
$node->start;
is($node->safe_psql('postgres', "SELECT count(*), min(attempts), max(attempts) FROM behavior._delivery WHERE state = 'f' AND event_id LIKE 'flight%'"),
	'15|1|1', 'in flight over a crash');
is($node->safe_psql('postgres', "SELECT behavior.ack(array_agg(delivery_id)) FROM got"), '15', 'acknowledged after it');
$node->safe_psql('postgres', "INSERT INTO effect SELECT event_id FROM (SELECT event_id FROM got ORDER BY delivery_id OFFSET 5) g");
rest($node, 'flight', 30, 'crash');

# On a standby nobody receives; promoted it goes on where the primary was.
wait_for_worker($node, 'postgres');
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
send_events_of($node, 'standby', 1, 40);
routed($node, 'standby', 40);
$node->safe_psql('postgres', q{
	INSERT INTO effect SELECT (event).event_id FROM behavior.receive('standby', 10);
	CREATE TABLE got2 AS SELECT delivery_id, (event).event_id FROM behavior.receive('standby', 10, '1 hour');
});
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
foreach my $call ("behavior.receive('standby')", "behavior.ack('{1}')", "behavior.nack('{1}')")
{
	(undef, undef, $err) = $standby->psql('postgres', qq{\\set VERBOSITY verbose\nSELECT $call});
	like($err, qr/25006/, "$call on a standby");
}
$node->stop('immediate');
$standby->promote;
$standby->safe_psql('postgres', q{
	INSERT INTO effect SELECT event_id FROM got2;
	SELECT behavior.ack(array_agg(delivery_id)) FROM got2;
});
rest($standby, 'standby', 40, 'promotion');
is($standby->safe_psql('postgres', "SELECT matched, delivered, lag_events FROM behavior.subscription WHERE name = 'standby'"), '40|40|0', 'and counted');
$standby->stop;
done_testing();

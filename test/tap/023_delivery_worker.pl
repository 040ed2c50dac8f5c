# Delivery in the background: nobody calls tick(), and no beat comes for an hour.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Lifecycle;

my $node = new_node('main', settings => [ "behavior.tick_interval = '1h'", 'behavior.delivery_workers = 2',
	"behavior.handler_timeout = '10min'", 'max_worker_processes = 16' ]);

sub subscription
{
	my ($name, $handler, $more) = @_;
	$node->safe_psql('postgres',
		qq{SELECT behavior.create_subscription('$name', '{"source": ["$name"]}', 'public.$handler'} . ($more // '') . ')');
	return;
}

# Events $first..$last of a source, each in a transaction of its own when $single.
sub send_to
{
	my ($source, $first, $last, $single) = @_;
	$node->safe_psql('postgres', join(';', map {
		qq{INSERT INTO behavior.event (event_id, source, type, user_id) SELECT '$source-' || i, '$source', 'x', 'u' FROM generate_series($_->[0], $_->[1]) i}
	} $single ? map { [ $_, $_ ] } $first .. $last : [ $first, $last ]));
	return;
}

# Polls until so many effects are there; each must be there once.
sub effects
{
	my ($subscription, $events, $what) = @_;
	ok($node->poll_query_until('postgres', "SELECT count(DISTINCT event_id) = $events FROM effect WHERE subscription = '$subscription'"), $what);
	is($node->safe_psql('postgres', "SELECT count(*) FROM effect WHERE subscription = '$subscription'"), $events, "$what: each once");
	return;
}

sub gates_waited_for
{
	my ($count) = @_;
	return $node->poll_query_until('postgres',
		"SELECT count(*) = $count FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND NOT l.granted"
		. " AND a.backend_type = 'behavior delivery'");
}

$node->safe_psql('postgres', q{
	CREATE EXTENSION behavior;
	CREATE TABLE effect (id serial, subscription text, event_id text, attempt int, pid int DEFAULT pg_backend_pid());
	CREATE FUNCTION take(behavior.delivery[]) RETURNS void LANGUAGE sql AS $$
		INSERT INTO public.effect (subscription, event_id, attempt) SELECT d.subscription, (d.event).event_id, d.attempt FROM unnest($1) d
	$$;
	-- Waits as long as somebody holds the lock.
	CREATE FUNCTION take_behind_gate(behavior.delivery[]) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_advisory_xact_lock_shared(1);
		PERFORM public.take($1);
	END $$;
	CREATE FUNCTION take_slowly(behavior.delivery[]) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM public.take_behind_gate($1);
		PERFORM pg_sleep(0.005);
	END $$;
	CREATE FUNCTION hang(behavior.delivery[]) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		IF (SELECT bool_or((d.event).event_id = 'hanging-2') FROM unnest($1) d) THEN
			PERFORM pg_sleep(3600);
		END IF;
		PERFORM public.take($1);
	END $$;
});
wait_for_worker($node, 'postgres');

# Single events, one behind the other.
subscription('first', 'take');
foreach my $event (1 .. 5)
{
	send_to('first', $event, $event);
	effects('first', $event, "event $event is delivered without a beat");
}
is($node->safe_psql('postgres', "SELECT sum(matched), sum(delivered), sum(failed) FROM behavior.subscription"), '5|5|0', 'which the catalog says');
is($node->safe_psql('postgres', 'SELECT coalesce(sum(events), 0) FROM behavior.session'), '0', 'nothing was folded for it');
is($node->safe_psql('postgres', 'SELECT count(*) >= 5 FROM behavior.tick'), 't', 'though ticks were cut');

# What such ticks hold counts for behavior.tick_events.
$node->append_conf('postgresql.conf', 'behavior.tick_events = 50');
$node->reload;
send_to('first', 6, 65, 1);
effects('first', 65, 'many small transactions');
# The last of them may wait for more.
ok($node->poll_query_until('postgres', 'SELECT sum(events) >= 50 FROM behavior.session'), 'folded when there are enough');
$node->append_conf('postgresql.conf', 'behavior.tick_events = 5000');
$node->reload;

# A prepared transaction tells nobody: the look once a second finds it.
$node->append_conf('postgresql.conf', 'max_prepared_transactions = 1');
$node->restart;
wait_for_worker($node, 'postgres');
$node->safe_psql('postgres', q{
	BEGIN; INSERT INTO behavior.event (event_id, source, type) VALUES ('first-66', 'first', 'x'); PREPARE TRANSACTION 'two'});
$node->safe_psql('postgres', q{COMMIT PREPARED 'two'});
effects('first', 66, 'events of a prepared transaction');

# Two workers, many subscriptions.
subscription("many$_", 'take', ', batch_size => 7') foreach 1 .. 12;
my @senders;
foreach my $sender (1 .. 3)
{
	my $sql = join(';', map { my $source = "many$_";
		qq{INSERT INTO behavior.event (event_id, source, type) SELECT '$source-$sender-' || i, '$source', 'x' FROM generate_series(1, 40) i} } 1 .. 12);
	push @senders, IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', $sql ]);
}
$_->finish foreach @senders;
effects("many$_", 120, "many subscriptions, $_") foreach 1 .. 12;

# Both stuck: the others wait, and two calls are all there are.
my $gate = hold_open($node, 'postgres', 'SELECT pg_advisory_lock(1)');
subscription("stuck$_", 'take_behind_gate') foreach 1 .. 3;
send_to("stuck$_", 1, 1) foreach 1 .. 3;
ok(gates_waited_for(2), 'two handlers run at once');
send_to('first', 67, 67);
ok($node->poll_query_until('postgres', "SELECT matched = 67 FROM behavior.subscription WHERE name = 'first'"), 'routing goes on meanwhile');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'behavior delivery'"), '2', 'no third one comes');
is($node->safe_psql('postgres', "SELECT count(*) FROM effect WHERE subscription LIKE 'stuck%' OR event_id = 'first-67'"), '0', 'the others wait');
close_held($gate);
effects("stuck$_", 1, "stuck $_ goes on") foreach 1 .. 3;
effects('first', 67, 'and so does the one that waited');

# A reserved worker.
my (undef, undef, $err) = $node->psql('postgres', q{
	\set VERBOSITY verbose
	SELECT behavior.alter_subscription('first', reserved_worker => true);
	SELECT behavior.alter_subscription('many1', reserved_worker => true)});
like($err, qr/53400: no delivery worker is left to be reserved/, 'one must be left for all');
$gate = hold_open($node, 'postgres', 'SELECT pg_advisory_lock(1)');
send_to("stuck$_", 2, 2) foreach 1 .. 3;
ok(gates_waited_for(1), 'the general worker is stuck');
foreach my $event (68 .. 70)
{
	send_to('first', $event, $event);
	effects('first', $event, "the reserved one delivers event $event");
}
ok(gates_waited_for(1), 'all that while the general one has been stuck');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'behavior delivery'"), '2', 'there are two all the same');
close_held($gate);
effects("stuck$_", 2, "stuck $_ goes on again") foreach 1 .. 3;
$node->safe_psql('postgres', q{SELECT behavior.alter_subscription('first', reserved_worker => false)});
$gate = hold_open($node, 'postgres', 'SELECT pg_advisory_lock(1)');
send_to("stuck$_", 3, 3) foreach 1 .. 2;
ok(gates_waited_for(2), 'given back, it is one for all');
close_held($gate);

# A handler that hangs.
subscription('hanging', 'hang');
$node->append_conf('postgresql.conf', "behavior.handler_timeout = '300ms'");
$node->reload;
send_to('hanging', 1, 3);
effects('hanging', 2, 'the good events around one that hangs');
ok($node->poll_query_until('postgres', "SELECT failed >= 2 AND failing_since IS NOT NULL FROM behavior.subscription WHERE name = 'hanging'"),
	'one that hangs is failing');
like($node->safe_psql('postgres', "SELECT last_error FROM behavior.subscription WHERE name = 'hanging'"), qr/timeout|cancel/i, 'for the timeout');
send_to('first', 71, 71);
effects('first', 71, 'others go on');
$node->safe_psql('postgres', q{
	CREATE OR REPLACE FUNCTION hang(behavior.delivery[]) RETURNS void LANGUAGE sql AS 'SELECT public.take($1)'});
effects('hanging', 3, 'mended, it is delivered');
is($node->safe_psql('postgres', "SELECT bool_and(attempt = 1) FROM effect WHERE event_id IN ('hanging-1', 'hanging-3')"), 't', 'the good ones were not counted as tried');

# One that has much to deliver lets the others have their turns, even with a single worker.
$node->append_conf('postgresql.conf', "behavior.handler_timeout = '10min'\nbehavior.delivery_workers = 1");
$node->reload;
ok($node->poll_query_until('postgres', "SELECT count(*) <= 1 FROM pg_stat_activity WHERE backend_type = 'behavior delivery'"), 'one too many leaves');
$gate = hold_open($node, 'postgres', 'SELECT pg_advisory_lock(1)');
subscription("busy$_", 'take_slowly', ', batch_size => 1') foreach 1 .. 2;
send_to('busy1', 1, 200);
ok(gates_waited_for(1), 'the only worker has begun with one');
send_to('busy2', 1, 200);
ok($node->poll_query_until('postgres', "SELECT matched = 200 FROM behavior.subscription WHERE name = 'busy2'"), 'the other waits');
close_held($gate);
effects("busy$_", 200, "busy $_") foreach 1 .. 2;
is($node->safe_psql('postgres', "SELECT min(id) FILTER (WHERE subscription = 'busy2') < max(id) FILTER (WHERE subscription = 'busy1') FROM effect"), 't',
	'the other has not waited until the first was done');

# A handler that takes an advisory lock for the session, and forgets it: the worker does not keep it.
$node->safe_psql('postgres', q{
	CREATE FUNCTION forget_lock(behavior.delivery[]) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_advisory_lock(77);
		PERFORM public.take($1);
	END $$});
subscription('forgetful', 'forget_lock');
send_to('forgetful', 1, 3);
effects('forgetful', 3, 'advisory locks');
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_locks WHERE objid = 77'), 'advisory locks of a handler do not stay');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'behavior delivery'}), '1', 'though the worker does');

# None at all.
$node->append_conf('postgresql.conf', 'behavior.delivery_workers = 0');
$node->reload;
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'behavior delivery'"),
	'behavior.delivery_workers = 0 ends them');
send_to('first', 72, 72);
ok($node->poll_query_until('postgres', "SELECT matched = 72 FROM behavior.subscription WHERE name = 'first'"), 'events are routed');
is($node->safe_psql('postgres', "SELECT count(*) FROM effect WHERE event_id = 'first-72'"), '0', 'but not delivered');
$node->safe_psql('postgres', 'CALL behavior.tick()');
effects('first', 72, 'but by tick()');
is($node->safe_psql('postgres', 'SELECT count(*) FROM behavior.verify()'), '0', 'verify() finds nothing');

unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal|(ERROR|FATAL):(?!.*(canceling|terminating|no delivery worker))/, 'no errors in the log');
$node->stop;
done_testing();

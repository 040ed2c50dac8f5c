# A dump in the middle of delivery: effects and progress come back together, the rest is delivered once, in the copies as
# in the original, although the copies have the events in other places.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Delivery;
use Lifecycle;

my $node = new_node('main', settings => [ 'max_worker_processes = 40', 'behavior.worker = off' ]);
my $folder = $node->basedir;
my $total = 600;
# Each with as much as is allowed, and not all: a batch of 20 is split until one event is alone.
my $allowed = 275;

create_database($node, 'original');
create_effects($node, 'original');
create_handler($node, 'original', 'plain', arguments => ', batch_size => 20');
create_handler($node, 'original', 'ordered', arguments => q{, batch_size => 20, ordered => true, reorder_window => '1 second'});
# It has failed, and is tried again: the other half of the handlers' errors.
create_handler($node, 'original', 'failing', arguments => ', batch_size => 50',
	extra => q{IF EXISTS (SELECT FROM unnest(events) d WHERE (d.event).user_id = 'u3') AND (SELECT effects FROM public.allowed) < 1000
		THEN RAISE 'no u3'; END IF;});
$node->safe_psql('original', qq{
	SELECT behavior.create_subscription('pulled', '{"detail-type": ["Order"]}');
	SELECT behavior.create_subscription('visible', '{"detail-type": ["Order"]}');
	UPDATE public.allowed SET effects = $allowed});
$node->safe_psql('original', 'CALL behavior.tick()');
send_orders($node, 'original', 1, $total);
$node->safe_psql('original', 'CALL behavior.tick()');
# Taken and acknowledged, taken and not acknowledged, not yet taken.
$node->safe_psql('original', q{
	INSERT INTO public.effect (subscription, event_id) SELECT 'pulled', (d.event).event_id FROM behavior.receive('pulled', 130) d;
	CREATE TABLE public.taken AS SELECT * FROM behavior.receive('visible', 70, '1 hour');
	INSERT INTO public.effect (subscription, event_id) SELECT 'visible', (event).event_id FROM public.taken WHERE delivery_id % 2 = 0;
	SELECT behavior.ack(ARRAY(SELECT delivery_id FROM public.taken WHERE delivery_id % 2 = 0))});
# And some that nobody has cut.
send_orders($node, 'original', $total + 1, $total + 50);
is($node->safe_psql('original', q{SELECT string_agg(subscription, ' ' ORDER BY subscription) FROM
		(SELECT subscription FROM public.effect GROUP BY 1 HAVING count(*) BETWEEN 1 AND 539) x}),
	'failing ordered plain pulled visible', 'everybody is in the middle');

my $state = q{SELECT string_agg(x, E'\n' ORDER BY x COLLATE "C") FROM (
	SELECT 'effect ' || to_jsonb(e)::text AS x FROM public.effect e
	UNION ALL SELECT 'subscription ' || (to_jsonb(s) - 'lag')::text FROM behavior.subscription s
	UNION ALL SELECT 'progress ' || to_jsonb(p)::text FROM behavior._subscription_progress p
	UNION ALL SELECT 'chunk ' || to_jsonb(c)::text FROM behavior._delivery_chunk c
	UNION ALL SELECT 'delivery ' || to_jsonb(d)::text FROM behavior._delivery d
	UNION ALL SELECT 'ids ' || last_value FROM behavior._delivery_id_seq) x};
my $before = $node->safe_psql('original', $state);
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$folder/custom", $node->connstr('original') ], 'dump, custom');
$node->command_ok([ 'pg_dump', '-f', "$folder/plain.sql", $node->connstr('original') ], 'dump, plain');

foreach my $database (qw(custom plain))
{
	$node->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE template0");
	$node->command_ok($database eq 'custom'
		? [ 'pg_restore', '--exit-on-error', '-d', $node->connstr($database), "$folder/custom" ]
		: [ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($database), '-f', "$folder/plain.sql" ],
		"$database: restore");
	is($node->safe_psql($database, $state), $before, "$database: everything came back");
}
my $places = q{SELECT string_agg(ctid::text, ' ' ORDER BY event_id COLLATE "C") FROM behavior.log};
isnt($node->safe_psql('custom', $places), $node->safe_psql('original', $places), 'the events are in other places');

# From now on everything is allowed; at once everywhere, or the pauses between attempts get long.
my $allow = 'UPDATE public.allowed SET effects = 1000000';
$node->safe_psql($_, $allow) foreach qw(original custom plain);

# Restored while the worker looks on.
$node->append_conf('postgresql.conf', 'behavior.worker = on');
$node->reload;
$node->safe_psql('postgres', 'CREATE DATABASE watched TEMPLATE template0');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('watched'), "$folder/custom" ], 'watched: restore');
$node->safe_psql('watched', $allow);

foreach my $database (qw(original custom plain watched))
{
	send_orders($node, $database, $total + 51, $total + 100);
	ok(wait_until_delivered($node, $database), "$database: the rest is delivered");
	check_effects($node, $database, $_, $total + 100, $database) foreach qw(plain ordered failing);
	$node->safe_psql($database, q{
		INSERT INTO public.effect (subscription, event_id) SELECT 'pulled', (d.event).event_id FROM behavior.receive('pulled', 10000) d});
	check_effects($node, $database, 'pulled', $total + 100, $database);
	# What was in flight when the dump was made is so still: acknowledged now.
	$node->safe_psql($database, q{
		SELECT behavior.ack(ARRAY(SELECT delivery_id FROM public.taken));
		INSERT INTO public.effect (subscription, event_id) SELECT 'visible', (event).event_id FROM public.taken WHERE delivery_id % 2 <> 0;
		WITH got AS MATERIALIZED (SELECT * FROM behavior.receive('visible', 10000, '1 hour')),
			noted AS (INSERT INTO public.effect (subscription, event_id) SELECT 'visible', (event).event_id FROM got)
		SELECT behavior.ack(array_agg(delivery_id)) FROM got});
	check_effects($node, $database, 'visible', $total + 100, $database);
}

# Owners are known by name: what is restored where there is no such role is all there, and a subscription waits for one.
my $owner_grants = q{
	GRANT SELECT ON behavior.event TO keeper;
	GRANT ALL ON public.effect, public.allowed TO keeper};
$node->safe_psql('postgres', 'CREATE ROLE keeper');
create_database($node, 'owned');
create_effects($node, 'owned');
create_handler($node, 'owned', 'kept');
$node->safe_psql('owned', qq{$owner_grants;
	SELECT behavior.create_subscription('pulled', '{"detail-type": ["Order"]}');
	SELECT behavior.create_event_type('Order', '{"required": ["number"]}');
	SELECT behavior.reassign_owned(current_user, 'keeper')});
$node->safe_psql('owned', 'CALL behavior.tick()');
create_handler($node, 'owned', 'plain');
send_orders($node, 'owned', 1, 40);
$node->safe_psql('owned', 'CALL behavior.tick()');
ok(wait_until_delivered($node, 'owned'), 'owned: delivered');
my $definitions = q{SELECT string_agg(x, E'\n' ORDER BY x COLLATE "C") FROM (
	SELECT 'subscription ' || to_jsonb(s)::text AS x FROM behavior._subscription s
	UNION ALL SELECT 'type ' || to_jsonb(t)::text FROM behavior._event_type t) x};
my $owned = $node->safe_psql('owned', $definitions);
like($owned, qr/"owner": "keeper"/, 'owned: by a role');
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$folder/owned", $node->connstr('owned') ], 'owned: dump');
$node->safe_psql('postgres', 'ALTER ROLE keeper RENAME TO somebody');

foreach my $database (qw(owned mended given))
{
	if ($database ne 'owned')
	{
		$node->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE template0");
		$node->command_ok([ 'pg_restore', '--exit-on-error', '--no-owner', '--no-privileges', '-d', $node->connstr($database), "$folder/owned" ],
			"$database: restore without the role");
	}
	is($node->safe_psql($database, $definitions), $owned, "$database: all definitions are there");
	is($node->safe_psql($database, 'SELECT name, owner, state, last_error FROM behavior.subscription ORDER BY name'),
		join("\n", 'kept|keeper|failing|its owner, role "keeper", does not exist (42704)', 'plain|' . $node->safe_psql($database, 'SELECT current_user') . '|current|',
			'pulled|keeper|failing|its owner, role "keeper", does not exist (42704)'), "$database: and say what is wrong");

	my $position = log_position($node);
	send_orders($node, $database, 41, 80);
	$node->safe_psql($database, q{INSERT INTO behavior.event (event_id, type) VALUES ('bad', 'Order')});
	is($node->safe_psql($database, q{SELECT reason FROM behavior.dead_letter WHERE event_id = 'bad'}), 'schema_violation', "$database: types hold");
	ok($node->poll_query_until($database, q{SELECT bool_and(delivered = 72 AND state = 'current') FROM behavior.subscription WHERE name = 'plain'}),
		"$database: other subscriptions go on");
	ok($node->poll_query_until($database, 'SELECT sum(events) = 80 FROM behavior.session'), "$database: so do projections");
	ok($node->poll_query_until($database, q{SELECT failing_since IS NOT NULL FROM behavior.subscription WHERE name = 'kept'}), "$database: it was tried");
	is($node->safe_psql($database, q{SELECT matched, delivered, failed, dead_letters, lag_events FROM behavior.subscription WHERE name = 'kept'}),
		'72|36|0|0|36', "$database: nothing is lost, and no attempt used up");
	like(log_since($node, $position), qr/WARNING: .*"kept" is failing: its owner, role "keeper", does not exist.*HINT: .*reassign_owned/s,
		"$database: a warning says what to do");
	my ($code, $stdout, $stderr) = $node->psql($database, q{SELECT * FROM behavior.receive('pulled')});
	like($stderr, qr/the owner of subscription "pulled" does not exist/, "$database: nobody receives for it");
}

# The role is there again, or somebody else takes over.
$node->safe_psql('postgres', 'ALTER ROLE somebody RENAME TO keeper');
$node->safe_psql('mended', $owner_grants);
is($node->safe_psql('given', q{SELECT behavior.reassign_owned('keeper', current_user)}), '3', 'given: to somebody else');
foreach my $database (qw(owned mended given))
{
	$node->safe_psql($database, q{SELECT behavior.resume_subscription('kept')});
	ok(wait_until_delivered($node, $database), "$database: the rest is delivered");
	check_effects($node, $database, $_, 80, $database) foreach qw(kept plain);
	is($node->safe_psql($database, q{SELECT count(*) FROM behavior.receive('pulled', 1000)}), '72', "$database: and received");
}

$node->stop;
done_testing();

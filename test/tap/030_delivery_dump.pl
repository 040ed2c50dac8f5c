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

$node->stop;
done_testing();

# The log is rewritten while references to its rows wait: VACUUM FULL and CLUSTER put every event in another place.  What
# waits is found again by its key.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Delivery;
use Lifecycle;

my $node = new_node('main', settings => ['behavior.worker = off']);
my $rewrites = 0;
create_database($node, 'shop');
create_effects($node, 'shop');
create_handler($node, 'shop', 'plain', arguments => ', batch_size => 20');
create_handler($node, 'shop', 'held', arguments => q{, ordered => true, reorder_window => '2 seconds'});
$node->safe_psql('shop', q{SELECT behavior.create_subscription('pulled', '{"detail-type": ["Order"]}')});
$node->safe_psql('shop', 'CALL behavior.tick()');

# All that can be delivered, as nothing else does here.
sub deliver
{
	foreach my $try (1 .. 600)
	{
		$node->safe_psql('shop', 'CALL behavior.tick()');
		return 1
			if $node->safe_psql('shop', 'SELECT sum(lag_events) FROM behavior.subscription WHERE handler IS NOT NULL') eq '0';
		select(undef, undef, undef, 0.1);
	}
	return 0;
}

sub places
{
	return $node->safe_psql('shop', q{SELECT string_agg(tableoid::regclass || ctid::text, ' ' ORDER BY event_id COLLATE "C") FROM behavior.log});
}

# Queued, and then rewritten: by VACUUM FULL after a roll back, and by CLUSTER in the opposite order.
my $last = 0;
foreach my $rewrite (
	'VACUUM FULL behavior.log',
	q{DO $$ DECLARE p regclass; BEGIN
		FOR p IN SELECT relid FROM pg_partition_tree('behavior.log') WHERE isleaf LOOP
			EXECUTE format('CREATE INDEX backwards ON %s (event_id DESC)', p);
			EXECUTE format('CLUSTER %s USING %I', p, 'backwards');
			EXECUTE format('DROP INDEX %s.backwards', (SELECT relnamespace::regnamespace FROM pg_class WHERE oid = p));
		END LOOP; END $$},
	'VACUUM FULL behavior.log')
{
	my ($first, $what) = ($last + 1, $rewrite =~ /VACUUM/ ? 'VACUUM FULL' : 'CLUSTER');
	$last += 200;
	$rewrites++;
	# Some are held until it is their turn, some have failed, the rest waits in the queue.
	send_orders($node, 'shop', $first, $last - 20);
	send_orders($node, 'shop', $last - 19, $last, occurred => q{clock_timestamp() + i * interval '1 millisecond'});
	$node->safe_psql('shop', 'UPDATE public.allowed SET effects = 0');
	$node->safe_psql('shop', 'CALL behavior.tick()');
	my $before = places();
	$node->safe_psql('shop', $rewrite);
	isnt(places(), $before, "$what: the events are in other places");
	$node->safe_psql('shop', 'UPDATE public.allowed SET effects = 1000000');
	ok(deliver(), "$what: all is delivered");
	$node->safe_psql('shop', q{
		INSERT INTO public.effect (subscription, event_id) SELECT 'pulled', (d.event).event_id FROM behavior.receive('pulled', 10000) d});
	check_effects($node, 'shop', $_, $last, "$what $rewrites") foreach qw(plain held pulled);
}

$node->stop;
done_testing();

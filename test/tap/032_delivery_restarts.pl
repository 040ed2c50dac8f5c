# Crashes in the middle of delivery: handlers' effects and progress are there together or not at all.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Delivery;
use Lifecycle;

my $node = new_node('main', settings => [ 'behavior.delivery_workers = 2', 'max_worker_processes = 24' ]);
create_database($node, 'shop');
wait_for_worker($node, 'shop');
create_effects($node, 'shop');
# Slow enough to be met at work: between effect and commit.
my $slowly = 'PERFORM pg_sleep(0.02);';
create_handler($node, 'shop', 'one', arguments => ', batch_size => 1', extra => $slowly);
create_handler($node, 'shop', 'some', arguments => ', batch_size => 7', extra => $slowly);
create_handler($node, 'shop', 'ordered', arguments => q{, batch_size => 5, ordered => true, reorder_window => '1 second'}, extra => $slowly);

my $total = 0;
foreach my $round (1 .. 6)
{
	my $way = (qw(immediate kill terminate))[ $round % 3 ];
	send_orders($node, 'shop', $total + 1, $total + 100);
	$total += 100;
	my $effects = $node->safe_psql('shop', q{SELECT count(*) FROM public.effect WHERE subscription = 'one'});
	ok($node->poll_query_until('shop', "SELECT count(*) > $effects + 10 FROM public.effect WHERE subscription = 'one'"),
		"$way $round: delivery is under way");
	if ($way eq 'immediate')
	{
		$node->stop('immediate');
		$node->start;
		next;
	}
	# Somebody who is in a handler.
	my $find = q{SELECT pid FROM pg_stat_activity WHERE datname = 'shop' AND backend_type LIKE 'behavior%' AND wait_event = 'PgSleep' LIMIT 1};
	ok($node->poll_query_until('postgres', "SELECT EXISTS ($find)"), "$way $round: a handler is at work");
	my $pid = $node->safe_psql('postgres', $find);
	if ($pid && $way eq 'kill')
	{
		kill 'KILL', $pid;
		$node->poll_query_until('postgres', 'SELECT pg_postmaster_start_time() IS NOT NULL');
	}
	elsif ($pid)
	{
		$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	}
}
ok(wait_until_delivered($node, 'shop'), 'all is delivered');
check_effects($node, 'shop', $_, $total, 'after the crashes') foreach qw(one some ordered);
is($node->safe_psql('shop', 'SELECT count(*) FROM behavior.dead_letter'), '0', 'a crash is no attempt that failed');
is($node->safe_psql('shop', 'SELECT sum(failed) FROM behavior.subscription'), '0', 'nor counted as one');

$node->stop;
done_testing();

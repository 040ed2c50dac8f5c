# Delivery.pm: what the tests of delivery have in common: effects that show every repetition.
package Delivery;

use strict;
use warnings;

use Exporter 'import';
use Test::More;

our @EXPORT = qw(create_effects create_handler send_orders wait_until_delivered check_effects);

# public.effect has no unique constraint: an event that took effect twice stands there twice.
sub create_effects
{
	my ($node, $database) = @_;
	$node->safe_psql($database, q{
		CREATE TABLE public.effect (n bigint GENERATED ALWAYS AS IDENTITY, subscription text, event_id text, late boolean, attempt int,
			occurred_at timestamptz);
		CREATE TABLE public.allowed (effects bigint);
		INSERT INTO public.allowed VALUES (1000000)});
	return;
}

# A handler that writes, then raises when that makes more effects of its subscription than are allowed.
sub create_handler
{
	my ($node, $database, $name, %options) = @_;
	my $extra = $options{extra} // '';
	my $arguments = $options{arguments} // '';
	$node->safe_psql($database, qq{
		CREATE FUNCTION public.handle_$name(events behavior.delivery[]) RETURNS void LANGUAGE plpgsql AS \$\$
		BEGIN
			INSERT INTO public.effect (subscription, event_id, late, attempt, occurred_at)
				SELECT d.subscription, (d.event).event_id, d.late, d.attempt, (d.event).occurred_at
				FROM unnest(events) WITH ORDINALITY d ORDER BY d.ordinality;
			$extra
			IF (SELECT count(*) FROM public.effect WHERE subscription = '$name') > (SELECT effects FROM public.allowed) THEN
				RAISE 'not more than that';
			END IF;
		END \$\$;
		SELECT behavior.create_subscription('$name', '{"detail-type": ["Order"]}', 'public.handle_$name' $arguments)});
	return;
}

# Orders $first..$last of ten users, by day over several partitions; before each statement one like it is rolled back, so
# that a copy of the log has its rows in other places.
sub send_orders
{
	my ($node, $database, $first, $last, %options) = @_;
	my $occurred = $options{occurred} // q{timestamptz '2025-01-01 00:00:00Z' + i * interval '20 minutes'};
	my $insert = qq{INSERT INTO behavior.event (event_id, type, user_id, occurred_at, properties)
		SELECT prefix || i, CASE WHEN i % 10 = 0 THEN 'Other' ELSE 'Order' END, 'u' || i % 10, $occurred, jsonb_build_object('number', i)
		FROM generate_series($first, $last) i};
	my $undone = $insert =~ s/prefix/'undone'/r;
	my $done = $insert =~ s/prefix/'o'/r;
	$node->safe_psql($database, "BEGIN; $undone; ROLLBACK; $done");
	return;
}

# How many of 1..$last are orders.
sub orders
{
	my ($last) = @_;
	return $last - int($last / 10);
}

sub wait_until_delivered
{
	my ($node, $database) = @_;
	return $node->poll_query_until($database, q{
		SELECT (SELECT count(*) FROM behavior.event WHERE tick_id IS NULL) = 0
			AND (SELECT max(tick_id) FROM behavior._route_progress) = (SELECT max(tick_id) FROM behavior.tick)
			AND (SELECT sum(lag_events) FROM behavior.subscription WHERE handler IS NOT NULL) = 0});
}

# Every order up to $last took effect once.
sub check_effects
{
	my ($node, $database, $name, $last, $what) = @_;
	my $orders = orders($last);
	is($node->safe_psql($database, qq{SELECT count(*), count(DISTINCT event_id), count(*) FILTER (WHERE event_id NOT IN
			(SELECT event_id FROM behavior.log WHERE type = 'Order')) FROM public.effect WHERE subscription = '$name'}),
		"$orders|$orders|0", "$what: every event took effect once ($name)");
	is($node->safe_psql($database, qq{SELECT matched, delivered, dead_letters, lag_events FROM behavior.subscription WHERE name = '$name'}),
		"$orders|$orders|0|0", "$what: and is counted once ($name)");
	return;
}

1;

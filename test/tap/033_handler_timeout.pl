# A handler that does not end is cancelled, whatever it does about that, and counts as failed; whoever delivers can still be
# cancelled, and his own statement_timeout goes on.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Lifecycle;

my $node = new_node('main', settings => [ 'behavior.worker = off', q{behavior.handler_timeout = '300ms'} ]);
my $setup = q{
	CREATE EXTENSION behavior;
	CREATE TABLE public.effect (event_id text);
	CREATE FUNCTION public.handle(events behavior.event[]) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		e behavior.event;
	BEGIN
		FOREACH e IN ARRAY events LOOP
			INSERT INTO public.effect VALUES (e.event_id);
			CASE e.properties->>'what'
				WHEN 'sleep' THEN PERFORM pg_sleep(600);
				WHEN 'loop' THEN LOOP END LOOP;
				WHEN 'lock' THEN PERFORM pg_advisory_xact_lock(1);
				WHEN 'catch' THEN
					LOOP
						BEGIN
							PERFORM pg_sleep(600);
						EXCEPTION WHEN query_canceled THEN NULL;
						END;
					END LOOP;
				WHEN 'catch deeply' THEN
					BEGIN
						LOOP
							BEGIN
								LOOP
									BEGIN
										PERFORM pg_sleep(600);
									EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(600);
									END;
								END LOOP;
							EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(600);
							END;
						END LOOP;
					EXCEPTION WHEN query_canceled THEN NULL;
					END;
				WHEN 'catch once' THEN
					BEGIN
						PERFORM pg_sleep(600);
					EXCEPTION WHEN query_canceled THEN NULL;
					END;
				ELSE NULL;
			END CASE;
		END LOOP;
	END $$};
$node->safe_psql('postgres', $setup);
$node->safe_psql('postgres', q{SELECT behavior.create_subscription('s', '{"detail-type": ["x"]}', 'public.handle', max_attempts => 1)});
$node->safe_psql('postgres', 'CALL behavior.tick()');

sub send_what
{
	my (@what) = @_;
	my $list = join(', ', map { "('$_')" } @what);
	$node->safe_psql('postgres', qq{INSERT INTO behavior.event (event_id, type, occurred_at, properties)
		SELECT what, 'x', '2025-01-01Z', jsonb_build_object('what', what) FROM (VALUES $list) v (what)});
	return;
}

# Somebody has the lock that one of them wants.
my $holder = hold_open($node, 'postgres', 'SELECT pg_advisory_lock(1)');
my @hanging = ('sleep', 'loop', 'lock', 'catch', 'catch deeply', 'catch once');
send_what(@hanging, 'fine', 'fine too');
my ($result, $stdout, $stderr) = $node->psql('postgres', q{SET statement_timeout = '170s'; CALL behavior.tick()});
is($result, 0, "tick() ends: $stderr");
is($node->safe_psql('postgres', q{SELECT string_agg(event_id, ',' ORDER BY event_id) FROM public.effect}), 'fine,fine too',
	'the others took effect, those that hang left none');
is($node->safe_psql('postgres', q{SELECT string_agg(event_id, ',' ORDER BY event_id COLLATE "C") FROM behavior.dead_letter
	WHERE stage = 'delivery' AND detail LIKE 'handler did not end within 300ms (behavior.handler_timeout)%'}),
	join(',', sort @hanging), 'and are dead letters that say so');
close_held($holder);

# A cancel from outside is not the handler's failure.
$node->append_conf('postgresql.conf', q{behavior.handler_timeout = '10min'});
$node->reload;
$node->poll_query_until('postgres', q{SELECT current_setting('behavior.handler_timeout') = '10min'});
send_what('sleep'); # a duplicate, not sent
$node->safe_psql('postgres', q{INSERT INTO behavior.event (event_id, type, occurred_at, properties)
	VALUES ('second', 'x', '2025-01-01Z', '{"what": "sleep"}')});
($result, $stdout, $stderr) = $node->psql('postgres', q{SET statement_timeout = '1s'; CALL behavior.tick()});
isnt($result, 0, "the caller's statement_timeout ends tick()");
like($stderr, qr/canceling statement due to statement timeout/, 'as it does with any statement');
is($node->safe_psql('postgres', q{SELECT lag_events, failed, dead_letters FROM behavior.subscription}), '1|6|6',
	'and the event waits as before');

my ($out, $err) = ('', '');
my $ticker = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'CALL behavior.tick()' ], '>', \$out, '2>', \$err);
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'}), 'a handler sleeps');
is($node->safe_psql('postgres', q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}), 1,
	'and who delivers is terminated');
$ticker->finish;
like($err, qr/terminating connection/, 'and he ends');
is($node->safe_psql('postgres', q{SELECT lag_events, failed, dead_letters FROM behavior.subscription}), '1|6|6',
	'and the event waits as before');

# What was learned of the handler is kept when its subscription is mended.
$node->safe_psql('postgres', q{CREATE OR REPLACE FUNCTION public.handle(events behavior.event[]) RETURNS void LANGUAGE sql
	AS 'INSERT INTO public.effect SELECT event_id FROM unnest(events)'});
$node->safe_psql('postgres', 'CALL behavior.tick()');
is($node->safe_psql('postgres', q{SELECT count(*) FROM public.effect WHERE event_id = 'second'}), 1, 'mended, it is delivered once');

$node->stop;
done_testing();

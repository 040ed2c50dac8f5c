# pg_dump and pg_restore bring everything back, with the worker running all the time: nothing is
# folded twice, sequences go on, and keys are remembered.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Lifecycle;

my $node = new_node('main', settings => ['max_worker_processes = 32']);
my $folder = $node->basedir;

create_database($node, 'original');
wait_for_worker($node, 'original');
send_events($node, 'original', 1, 200);
$node->safe_psql('original', q{
	SELECT behavior.create_rollup('public.by_user', $$
		SELECT user_id, count(*) AS events, min(occurred_at) AS first FROM behavior.event GROUP BY 1 $$);
});
ok($node->poll_query_until('original', "SELECT state = 'current' FROM behavior.rollup WHERE name = 'by_user'"), 'the rollup is built');
$node->safe_psql('original', q{
	CREATE MATERIALIZED VIEW public.top AS SELECT user_id, events FROM by_user;
	CREATE UNIQUE INDEX ON public.top (user_id);
	SELECT behavior.schedule_refresh('public.top', '1 second');
	INSERT INTO behavior.event (event_id, type, user_id) VALUES ('broken', '', 'u1');
	SELECT behavior.create_event_type('typed', '{"required": ["a"]}');
	SELECT behavior.alter_event_type('typed', '{"required": ["b"]}');
	SELECT behavior.create_event_type('typed', NULL, 'lax');
});
$node->safe_psql('original', 'CALL behavior.tick()');
send_events($node, 'original', 201, 300);
ok(wait_until_folded($node, 'original', 300), 'everything is folded');
# And some that are not when the dump is made.
$node->append_conf('postgresql.conf', 'behavior.worker = off');
$node->reload;
wait_for_no_worker($node, 'original');
send_events($node, 'original', 301, 350);

my $tables = q{SELECT string_agg(x, E'\n' ORDER BY x COLLATE "C") FROM (
	SELECT 'session ' || to_jsonb(s)::text AS x FROM behavior.session s
	UNION ALL SELECT 'rollup ' || to_jsonb(r)::text FROM by_user r
	UNION ALL SELECT 'event ' || to_jsonb(e)::text FROM behavior.event e
	UNION ALL SELECT 'batch ' || to_jsonb(b)::text FROM behavior.batch b
	UNION ALL SELECT 'intake ' || to_jsonb(i)::text FROM behavior.intake i
	UNION ALL SELECT 'tick ' || to_jsonb(t)::text FROM behavior.tick t
	UNION ALL SELECT 'type ' || to_jsonb(t)::text FROM behavior.event_type t
	UNION ALL SELECT 'letter ' || to_jsonb(d)::text FROM behavior.dead_letter d) x};
my $before = $node->safe_psql('original', $tables);

$node->command_ok([ 'pg_dump', '-Fc', '-f', "$folder/custom", $node->connstr('original') ], 'dump, custom');
$node->command_ok([ 'pg_dump', '-f', "$folder/plain.sql", $node->connstr('original') ], 'dump, plain');
$node->command_ok([ 'pg_dump', '-s', '-f', "$folder/schema.sql", $node->connstr('original') ], 'dump, schema only');

foreach my $database (qw(custom plain))
{
	$node->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE template0");
	# What comes in is compared before anything is folded.
	if ($database eq 'custom')
	{
		$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr($database), "$folder/custom" ],
			"$database: restore");
	}
	else
	{
		$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($database),
				'-f', "$folder/plain.sql" ], "$database: restore");
	}
	is($node->safe_psql($database, $tables), $before, "$database: everything came back");
}

# Once more with the worker on, which comes as soon as the extension is there.
$node->append_conf('postgresql.conf', 'behavior.worker = on');
$node->reload;
$node->safe_psql('postgres', 'CREATE DATABASE watched TEMPLATE template0');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('watched'), "$folder/custom" ],
	'watched: restore while the worker runs');

foreach my $database (qw(custom plain watched))
{
	ok(wait_until_folded($node, $database, 350), "$database: folding goes on where it was");
	check_sums($node, $database, 350, $database);
	send_events($node, $database, 301, 400);
	$node->safe_psql($database, 'INSERT INTO behavior.event (event_id, type) VALUES (\'broken again\', \'\')');
	$node->safe_psql($database, 'CALL behavior.tick()');
	check_sums($node, $database, 400, "$database, with new events");
	is($node->safe_psql($database, 'SELECT sum(events) FROM by_user'), '400', "$database: the rollup answers");
	is($node->safe_psql($database, 'SELECT count(*), count(DISTINCT dead_letter_id) FROM behavior.dead_letter'), '2|2',
		"$database: dead letters go on");
	is($node->safe_psql($database, 'SELECT matview, every, only_on_change FROM behavior.scheduled_refresh'),
		'top|00:00:01|t', "$database: the schedule came back");
	ok($node->poll_query_until($database, 'SELECT sum(events) = 400 FROM top'), "$database: and is kept");
	$node->safe_psql($database, q{INSERT INTO behavior.event (event_id, source, type) VALUES ('bad', 'web', 'typed'), ('good', 'lax', 'typed')});
	is($node->safe_psql($database, "SELECT reason, errors -> 'version' FROM behavior.dead_letter WHERE event_id = 'bad'"), 'schema_violation|2',
		"$database: event types hold");
	is($node->safe_psql($database, q{SELECT status, reason FROM behavior.redrive('missing_field', patch => '{"type": "mended"}')}),
		"accepted|\naccepted|", "$database: dead letters can be sent again");
}

# Schema only: an empty beginning that knows its rollups.
$node->safe_psql('postgres', 'CREATE DATABASE empty TEMPLATE template0');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('empty'), '-f', "$folder/schema.sql" ],
	'schema only: restore');
send_events($node, 'empty', 1, 30);
ok(wait_until_folded($node, 'empty', 30), 'schema only: the worker folds');
$node->safe_psql('empty', 'CALL behavior.tick()');
check_sums($node, 'empty', 30, 'schema only');
is($node->safe_psql('empty', 'SELECT sum(events) FROM by_user'), '30', 'schema only: the rollup answers');

$node->stop;
done_testing();

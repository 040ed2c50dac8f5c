# Types are changed and dead letters sent again while others send: each event ends either in the log or in one dead
# letter that waits, each refusal is by the version that it names, and the histories of letters are whole.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Lifecycle;

my $node = new_node('main', settings => [ 'max_prepared_transactions = 2' ]);
my $folder = $node->basedir;

create_database($node, 'types');
$node->safe_psql('types', q{
	SELECT behavior.create_event_type('x');
	CREATE SEQUENCE id;
});

my $five = q{INSERT INTO behavior.event (event_id, type, properties)
	SELECT nextval('id')::text, 'x', jsonb_build_object((ARRAY['a', 'b', 'c'])[1 + (:k + i) % 3], i) FROM generate_series(1, 5) i;};
my $other = q{SELECT behavior.alter_event_type('x', CASE WHEN :k < 3 THEN
	jsonb_build_object('required', jsonb_build_array((ARRAY['a', 'b', 'c'])[1 + :k])) END);};
my %script = (
	send => "\\set k random(0, 2)\nBEGIN; $five SAVEPOINT s; $five RELEASE s; COMMIT;\n",
	lose => "\\set k random(0, 2)\nBEGIN; $five SAVEPOINT s; $five ROLLBACK TO s; ROLLBACK;\n",
	alter => "\\set k random(0, 3)\n$other\n",
	forget => "\\set k random(0, 3)\nBEGIN; $other $five SELECT count(*) FROM behavior.redrive(); ROLLBACK;\n",
	redrive => "SELECT count(*) FROM behavior.redrive();\n");
$script{$_} =~ s/\n\t/ /g foreach keys %script;
append_to_file("$folder/$_.sql", $script{$_}) foreach keys %script;

$node->command_ok(
	[ 'pgbench', '-n', '-c', '5', '-t', '200', '-f', "$folder/send.sql\@20", '-f', "$folder/lose.sql\@2", '-f', "$folder/alter.sql\@3",
		'-f', "$folder/forget.sql\@1", '-f', "$folder/redrive.sql\@2", $node->connstr('types') ],
	'all at once');

sub query_is
{
	my ($sql, $expected, $what) = @_;
	is($node->safe_psql('types', $sql), $expected, $what);
	return;
}

query_is('SELECT count(*) > 10, count(*) FILTER (WHERE current), max(version) = count(*) FROM behavior.event_type', 't|1|t',
	'there were many versions, one of which is in force');
query_is(q{SELECT count(*) > 100, max(attempts) > 1 FROM behavior.dead_letter}, 't|t', 'many were refused, and some again');
query_is(q{SELECT count(*) FROM (
		SELECT event_id FROM behavior.event UNION ALL SELECT event_id FROM behavior.dead_letter WHERE redriven_at IS NULL) u
	GROUP BY event_id HAVING count(*) <> 1}, '', 'each event is stored, or waits, once');
query_is(q{SELECT count(*) FROM behavior.dead_letter d JOIN behavior.event_type t ON t.version = (d.errors -> 'version')::int
	WHERE t.schema #>> '{required,0}' IS NULL OR strpos(d.detail, format('"%s"', t.schema #>> '{required,0}')) = 0}, '0',
	'each was refused by the version that its letter names');
query_is(q{SELECT count(*) FROM behavior.dead_letter d LEFT JOIN behavior.dead_letter p ON p.dead_letter_id = d.previous
	WHERE (d.attempts = 1) <> (d.previous IS NULL)
		OR d.previous IS NOT NULL AND (p.attempts, p.event_id, p.received_at, p.redriven_at IS NOT NULL) IS DISTINCT FROM (d.attempts - 1, d.event_id, d.received_at, true)},
	'0', 'every letter has its whole history');
my $sums = q{SELECT sum(received) = sum(accepted + duplicates + conflicts + dead_letters), sum(accepted) = (SELECT count(*) FROM behavior.event),
	sum(dead_letters + conflicts) = (SELECT count(*) FROM behavior.dead_letter) FROM behavior.batch};
query_is($sums, 't|t|t', 'batches count them all');

# A change that is prepared counts when it is committed, in sessions that have been sending all the time.
$node->safe_psql('types', q{
	SELECT behavior.alter_event_type('x', NULL);
	BEGIN; SELECT behavior.alter_event_type('x', '{"required": ["never"]}'); PREPARE TRANSACTION 'change'});
$node->safe_psql('types', q{INSERT INTO behavior.event (event_id, type) VALUES ('before', 'x')});
query_is(q{SELECT count(*) FROM behavior.event WHERE event_id = 'before'}, '1', 'prepared, it does not count');
query_is(q{INSERT INTO behavior.event (event_id, type) VALUES ('between', 'x');
	COMMIT PREPARED 'change';
	INSERT INTO behavior.event (event_id, type) VALUES ('behind', 'x');
	SELECT event_id FROM behavior.event WHERE event_id IN ('between', 'behind')}, 'between', 'committed, it does');

# Without a schema all of them go through, once.
my $sent = $node->safe_psql('types', q{SELECT count(DISTINCT event_id) FROM (SELECT event_id FROM behavior.event UNION ALL SELECT event_id FROM behavior.dead_letter) e});
$node->safe_psql('types', q{BEGIN; SELECT behavior.alter_event_type('x', NULL); SELECT count(*) FROM behavior.redrive(); COMMIT});
query_is('SELECT count(*), count(DISTINCT event_id) FROM behavior.event', "$sent|$sent", 'sent again, all are stored once');
query_is('SELECT count(*) FROM behavior.dead_letter WHERE redriven_at IS NULL', '0', 'and none waits');
query_is($sums, 't|t|t', 'batches still count them all');

$node->stop;
done_testing();

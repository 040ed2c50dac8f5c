# What a COPY into a door takes from COPY's buffer by itself is the same as what COPY gives it line by line: the same
# rows, dead letters, errors and their lines, and the same count of rows. (A WHERE leaves every line to COPY.)
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Lifecycle;

my $seed = $ENV{BEHAVIOR_TEST_SEED} // time();
my $line_by_line = "WHERE now() > '2000-01-01'";
my @columns = qw(event_id source type user_id anonymous_id occurred_at sequence properties context actor received_at batch_id);
my $names = join(', ', @columns);
my @texts = ('', 'web', 'user-1', 'a"b', 'x,y', 'NULL', '\\N', "\xc3\xbc", 'a\\b', "a\tb", '"', '""', '\\.', ' x ', 'q' x 256);
my @times = ('2026-11-01 00:00:00+00', '2026-11-02T03:04:05.0678Z', '2026-11-03 23:59:60-08', '2026-11-04 24:00:00+05:30',
	'2026-11-05 01:02:03.123456789+00', '2026-11-06 01:02:03', '2026-11-07', '0001-01-01 00:00:00+00', '2026-02-30 00:00+00',
	'2026-11-08 00:00:00+16', '2026-11-09 00:00:00+0530', '2026-11-10 00:00:00 UTC', '0044-03-15 00:00:00+00 BC', 'infinity',
	'2026-11-11 1:02:03+00', '20261112T000000Z', 'now', 'yesterday?');
my @numbers = ('0', '-5', '007', ' 7', '+3', '-', '9223372036854775807', '9223372036854775808', 'x');
my @values = ('1', '1.0', '-0.0', '1e3', '1e999999', '"x"', '"\\"\\\\\\u00e9"', '"\\u0000"', '"\\ud800"', 'true', 'null', '[1, [2, {}]]',
	'{"b": 1, "a": 2, "b": 3}', '{', '"', 'nul', '', ' 1 ', "\"a\tb\"");

diag("seed $seed");
srand($seed);

sub any { my (@list) = @_; return $list[ rand @list ]; }
sub maybe { my ($chance, $value) = @_; return rand() < $chance ? $value : undef; }

sub json
{
	return any(@values) if rand() < 0.02;
	my @members = map { '"' . any('page', 'price', "k$_", 'x,y') . '": ' . (rand() < 0.02 ? any(@values) : any(@values[ 0 .. 3, 5, 6, 9 .. 12 ])) } 1 .. rand 6;
	return '{' . join(any(',', ', '), @members) . '}';
}

sub event
{
	my ($i) = @_;
	my @event = ("e$i", maybe(0.3, any(@texts)), maybe(0.98, any('PageView', 'Click', any(@texts))), map { maybe(0.5, any(@texts)) } 1 .. 2);
	push @event, maybe(0.9, rand() < 0.02 ? any(@times) : any(@times[ 0 .. 4 ]));
	push @event, maybe(0.5, rand() < 0.02 ? any(@numbers) : int(rand 100000));
	push @event, maybe(0.9, json()), maybe(0.2, json()), maybe(0.1, any(@texts)), maybe(0.1, any(@times[ 0 .. 3 ])), maybe(0.1, int(rand 9));
	return @event;
}

sub csv { my ($v) = @_; return '' unless defined $v; return $v =~ /[",\n\r]|^$/ || rand() < 0.3 ? '"' . $v =~ s/"/""/gr . '"' : $v; }
sub text { my ($v) = @_; return '\\N' unless defined $v; return $v =~ s/\\/\\\\/gr =~ s/\t/\\t/gr; }

sub ndjson
{
	my @event = event(@_);
	my @members;
	foreach my $i (grep { defined $event[$_] } 0 .. $#event)
	{
		my $value = $event[$i];
		$value = '"' . $value =~ s/(["\\])/\\$1/gr . '"' if $i != 6 && $i != 7 && $i != 8;
		push @members, "\"$columns[$i]\": $value";
	}
	return '{' . join(',', @members) . '}';
}

my %formats = (
	csv => [ "behavior.event ($names)", 'FORMAT csv', sub { join(',', map { csv($_) } event(@_)) } ],
	null => [ "behavior.event ($names)", "FORMAT csv, NULL 'NULL'", sub { join(',', map { defined $_ ? csv($_) : 'NULL' } event(@_)) } ],
	text => [ "behavior.event ($names)", 'FORMAT text', sub { join("\t", map { text($_) } event(@_)) } ],
	inbox => [ 'behavior.inbox', "FORMAT csv, QUOTE e'\\x01', DELIMITER e'\\x02'", \&ndjson ]);

my $node = new_node('main', settings => [ 'behavior.worker = off' ]);
my $file = $node->basedir . '/lines';
$node->safe_psql('postgres', 'CREATE EXTENSION behavior');
$node->safe_psql('postgres', q{SELECT * FROM behavior.ingest('{"event_id": "first", "type": "x"}')});

# Everything that a COPY did, and what it said.
sub result
{
	my ($target, $options, $where) = @_;
	my (undef, $out, $err) = $node->psql('postgres', qq{
		BEGIN;
		\\set QUIET off
		COPY $target FROM '$file' WITH ($options) $where;
		\\set QUIET on
		SELECT event_id, source, type, user_id, anonymous_id, CASE WHEN occurred_at < received_at - interval '1 hour' THEN occurred_at END, sequence,
			properties, jsonb_send(properties), context FROM behavior.log WHERE length(event_id) < 36 ORDER BY 2, 1;
		SELECT stage, reason, detail, source, event_id, payload FROM behavior.dead_letter ORDER BY dead_letter_id;
		SELECT received, accepted, duplicates, conflicts, dead_letters FROM behavior.last_batch();
		ROLLBACK;}, on_error_stop => 0);
	$err =~ s/batch_id = \d+/batch_id = n/g;
	return "$out\n$err";
}

foreach my $format (sort keys %formats)
{
	my ($target, $options, $make) = @{ $formats{$format} };
	my @lines = map { $make->($_) } 1 .. 250;
	my ($errors, $slow, $fast) = (0);

	for (;;)
	{
		unlink $file;
		append_to_file($file, join('', map { "$_\n" } @lines));
		$slow = result($target, $options, $line_by_line);
		$fast = result($target, $options, '');
		last unless $fast eq $slow && $slow =~ /COPY \w+, line (\d+)/;
		# the line that raises is the same: on without it
		splice(@lines, $1 - 1, 1);
		$errors++;
	}
	is($fast, $slow, "$format: " . @lines . " lines, and $errors that raise");
	like($fast, qr/^COPY ${\scalar(@lines)}$/m, "$format: all lines are counted");
}

# The count that others see, and a trigger of somebody else's, which must see every row.
unlink $file;
append_to_file($file, join('', map { "t$_,PageView\n" } 1 .. 1000));
is($node->safe_psql('postgres', qq{
	CREATE TABLE counted (n int);
	DO \$\$
	DECLARE n int;
	BEGIN
		EXECUTE 'COPY behavior.event (event_id, type) FROM ''$file'' (FORMAT csv)';
		GET DIAGNOSTICS n = ROW_COUNT;
		INSERT INTO counted VALUES (n);
	END \$\$;
	SELECT n FROM counted;}), '1000', 'ROW_COUNT');
is($node->safe_psql('postgres', qq{
	CREATE TABLE seen (event_id text);
	CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO seen VALUES (new.event_id); RETURN new; END';
	CREATE TRIGGER a INSTEAD OF INSERT ON behavior.event FOR EACH ROW EXECUTE FUNCTION see();
	COPY behavior.event (event_id, type) FROM '$file' (FORMAT csv);
	SELECT count(*) FROM seen;}), '1000', 'another row trigger sees each row');
is($node->safe_psql('postgres', 'SELECT sum(received), sum(accepted), sum(duplicates) FROM behavior.batch'), '2001|1001|1000', 'every row is counted once');

$node->stop;
done_testing();

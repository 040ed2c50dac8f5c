# What a COPY into a door takes from COPY's buffer by itself is the same as what COPY gives it line by line: the same
# rows, dead letters, errors and their lines, and the same count of rows. (behavior.copy_ahead = off leaves every line
# to COPY.)
use strict;
use warnings;

use IO::Socket::UNIX;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Lifecycle;

my $seed = $ENV{BEHAVIOR_TEST_SEED} // time();
my @columns = qw(event_id source type user_id anonymous_id occurred_at sequence properties context actor received_at batch_id);
my $names = join(', ', @columns);
my @texts = ('', 'web', 'user-1', 'a"b', 'x,y', 'NULL', '\\N', "\xc3\xbc", 'a\\b', "a\tb", '"', '""', '\\.', ' x ', 'q' x 256);
my @times = ('2026-11-01 00:00:00+00', '2026-11-02T03:04:05.0678Z', '2026-11-03 23:59:60-08', '2026-11-04 24:00:00+05:30',
	'2026-11-05 01:02:03.123456789+00', '2026-11-06 01:02:03', '2026-11-07', '0001-01-01 00:00:00+00', '2026-02-30 00:00+00',
	'2026-11-08 00:00:00+16', '2026-11-09 00:00:00+0530', '2026-11-10 00:00:00 UTC', '0044-03-15 00:00:00+00 BC', 'infinity',
	'2026-11-11 1:02:03+00', '20261112T000000Z', 'now', 'yesterday?',
	'2026-11-13 00:00:00.' . '1' x 200 . '+00');
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
	push @event, maybe(0.1, rand() < 0.01 ? any(@numbers, '32767', '32768', '-32768', '-32769') : int(rand 20));
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
	my ($target, $options, $ahead) = @_;
	my (undef, $out, $err) = $node->psql('postgres', qq{
		BEGIN;
		SET LOCAL behavior.copy_ahead = $ahead;
		\\set QUIET off
		COPY $target FROM '$file' WITH ($options);
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
		$slow = result($target, $options, 'off');
		$fast = result($target, $options, 'on');
		last unless $fast eq $slow && $slow =~ /COPY \w+, line (\d+)/;
		# the line that raises is the same: on without it
		splice(@lines, $1 - 1, 1);
		$errors++;
	}
	is($fast, $slow, "$format: " . @lines . " lines, and $errors that raise");
	like($fast, qr/^COPY ${\scalar(@lines)}$/m, "$format: all lines are counted");
}

# Options, and shapes of files, where a line is not what stands between two newlines, or not what it looks like.
my @many = map { "x$_,PageView" } 1 .. 50;
my %unusual = (
	'CRLF' => [ 'FORMAT csv', join("\r\n", @many, '') ],
	'CR' => [ 'FORMAT csv', join("\r", @many, '') ],
	'mixed ends' => [ 'FORMAT csv', join("\n", @many[ 0 .. 9 ], "y,a\r", @many[ 10 .. 19 ], '') ],
	'no end' => [ 'FORMAT csv', join("\n", @many) ],
	'empty csv line' => [ 'FORMAT csv', join("\n", @many, '', 'y,a', '') ],
	'empty text line' => [ 'DELIMITER \',\'', join("\n", @many, '', 'y,a', '') ],
	'end marker' => [ 'DELIMITER \',\'', join("\n", @many, '\\.', 'y,a', '') ],
	'end marker in csv' => [ 'FORMAT csv', join("\n", @many, '\\.', 'y,a', '') ],
	'end marker in a line' => [ 'DELIMITER \',\'', join("\n", @many, 'y,a\\.', '') ],
	'end marker for NULL' => [ 'DELIMITER \',\', NULL \'\\.\'', join("\n", @many, 'y,\\.', 'z,a', '') ],
	'newline in quotes' => [ 'FORMAT csv', join("\n", @many, "\"y\r\nz\",\"a\rb\"", 'bad', '') ],
	'newline for a quote' => [ "FORMAT csv, QUOTE e'\\n'", join("\n", @many, '') ],
	'NULL that is a value' => [ "FORMAT csv, NULL 'PageView'", join("\n", 'y,"PageView"', @many, '') ],
	'another quote' => [ "FORMAT csv, QUOTE ''''", join("\n", @many, "'y''''z','a,b'", "y,\"", '') ],
	'another escape' => [ "FORMAT csv, ESCAPE '^'", join("\n", @many, '"y^"z","a^^b"', 'y,"a""b"', '') ],
	'a header' => [ 'FORMAT csv, HEADER match', join("\n", 'event_id,type', @many, 'bad', '') ],
	'forced' => [ "FORMAT csv, NULL 'NULL', FORCE_NULL (type)", join("\n", @many, 'y,"NULL"', '') ],
	'another encoding' => [ "FORMAT csv, ENCODING 'latin1'", join("\n", @many, "y,\xfc", '') ],
	'no UTF-8' => [ 'FORMAT csv', join("\n", @many, "y,\xfc", '') ],
	'a zero byte' => [ 'FORMAT csv', join("\n", @many, "y,a\0b", 'z,a', '') ],
	'long lines' => [ 'FORMAT csv', join("\n", @many, map({ 'y,' . 'a' x $_ } 200, 65530, 65536, 200000), @many, 'bad', '') ],
	'hardly a plain line' => [ 'FORMAT csv', join("\n", map({ "y$_,a\"b\"" } 1 .. 300), @many, 'bad', '') ],
	'too few and too many' => [ 'FORMAT csv', join("\n", @many, 'y,a,', '') ]);
foreach my $name (sort keys %unusual)
{
	my ($options, $text) = @{ $unusual{$name} };

	unlink $file;
	append_to_file($file, $text);
	is(result('behavior.event (event_id, type)', $options, 'on'), result('behavior.event (event_id, type)', $options, 'off'), $name);
}

# A client that cuts its messages anywhere.
sub send_cut
{
	my ($text, @sizes) = @_;
	my $socket = IO::Socket::UNIX->new(Peer => $node->host . '/.s.PGSQL.' . $node->port) or die "cannot connect: $!";
	my $message = sub { my ($type, $body) = @_; return $type . pack('N', length($body) + 4) . $body; };
	my ($all, $waiting) = ('', '');

	binmode $socket;
	my $until = sub {
		my ($wanted) = @_;
		for (;;)
		{
			my $length = length($waiting) < 5 ? 5 : unpack('N', substr($waiting, 1, 4)) + 1;
			if (length($waiting) < $length)
			{
				sysread($socket, $waiting, 65536, length($waiting)) or die 'the connection is gone';
				next;
			}
			next if length($waiting) < 5;
			my $one = substr($waiting, 0, $length, '');
			die $one if $one =~ /^E/;
			return substr($one, 5) if $one =~ /^[$wanted]/;
		}
	};
	print $socket $message->('', pack('N', 196608) . "user\0" . (getpwuid($<))[0] . "\0database\0postgres\0\0");
	$socket->flush;
	$until->('Z');
	print $socket $message->('Q', "COPY behavior.event (event_id, type) FROM STDIN (FORMAT csv)\0");
	$socket->flush;
	$until->('G');
	for (my $at = 0; $at < length($text);)
	{
		my $size = any(@sizes);
		print $socket $message->('d', substr($text, $at, $size));
		$at += $size;
	}
	print $socket $message->('c', '');
	$socket->flush;
	my $tag = $until->('C');
	close $socket;
	return $tag =~ s/\0//r;
}

my $sent = join('', map { "cut$_," . any('PageView', '"a ""b"" c"', "\"a\nb\"", "\xc3\xbc") . "\n" } 1 .. 2000);
is(send_cut($sent, 1, 2, 3, 7, 40), 'COPY 2000', 'messages of few bytes');
is(send_cut($sent, 1, 8191, 20000), 'COPY 2000', 'messages of many bytes');
is($node->safe_psql('postgres', q{SELECT accepted, duplicates, conflicts, dead_letters FROM behavior.last_batch() UNION ALL
	SELECT accepted, duplicates, conflicts, dead_letters FROM (SELECT * FROM behavior.batch ORDER BY batch_id DESC LIMIT 2) b ORDER BY accepted DESC}) =~ s/^\|+\n//r,
	"2000|0|0|0\n0|2000|0|0", 'cut anywhere, the events are the same');

# A COPY within a COPY, and one that is rolled back half-way.
is($node->safe_psql('postgres', q{
	CREATE TABLE ordered (event_id text);
	CREATE FUNCTION copy_three() RETURNS trigger LANGUAGE plpgsql AS $$
	DECLARE n int;
	BEGIN
		EXECUTE format('COPY behavior.event (event_id, type) FROM PROGRAM %L (FORMAT csv)', format('printf "%s-1,x\\n%1$s-2,x\\n%1$s-3,x\\n"', new.event_id));
		GET DIAGNOSTICS n = ROW_COUNT;
		INSERT INTO counted VALUES (n);
		RETURN new;
	END $$;
	CREATE TRIGGER t BEFORE INSERT ON ordered FOR EACH ROW EXECUTE FUNCTION copy_three();
	CREATE TABLE counted (n int);
	COPY ordered FROM PROGRAM 'printf "A\nB\n"';
	DO $$
	BEGIN
		COPY behavior.event (event_id, type, sequence) FROM PROGRAM 'printf "C,x,1\nD,x,2\nE,x,?\n"' (FORMAT csv);
	EXCEPTION WHEN invalid_text_representation THEN
		COPY behavior.event (event_id, type, sequence) FROM PROGRAM 'printf "F,x,1\nG,x,2\nH,x,3\n"' (FORMAT csv);
	END $$;
	SELECT string_agg(n::text, ',') FROM counted;
	SELECT string_agg(event_id, ' ' ORDER BY event_id) FROM behavior.event WHERE event_id ~ '^[A-H]';}), "3,3\nA-1 A-2 A-3 B-1 B-2 B-3 F G H", 'a COPY within a COPY, and in a block that fails');

# The count that others see, and a trigger of somebody else's, which must see every row.
unlink $file;
append_to_file($file, join('', map { "t$_,PageView\n" } 1 .. 1000));
is($node->safe_psql('postgres', qq{
	TRUNCATE counted;
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
is($node->safe_psql('postgres', q{SELECT sum(received), sum(accepted), sum(duplicates) FROM (SELECT * FROM behavior.batch ORDER BY batch_id DESC LIMIT 2) b}), '2000|1000|1000', 'every row is counted once');

SKIP:
{
	skip 'amcheck is not installed', 1
	  unless $node->safe_psql('postgres', q{SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'});
	is($node->safe_psql('postgres', q{
		INSERT INTO behavior.event (event_id, type, user_id, anonymous_id, sequence, context) VALUES ('full', 'x', 'u', 'a', 1, '{}');
		CREATE EXTENSION amcheck;
		SELECT relid, v.msg FROM pg_partition_tree('behavior.log') p, verify_heapam(p.relid) v WHERE p.isleaf}), '', 'rows are what PostgreSQL takes for sound');
}

$node->stop;
done_testing();

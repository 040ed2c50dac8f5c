# Settings given as options of a connection's start are bytes that PostgreSQL has not verified: what is no UTF-8 must
# not get into the tables.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(extra => [ '-E', 'UTF8' ]);
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION behavior');

my $send = "INSERT INTO behavior.event (type) VALUES ('x')";
for my $preload ('', 'behavior')
{
	$node->append_conf('postgresql.conf', "shared_preload_libraries = '$preload'\nbehavior.worker = off");
	$node->restart;
	local $ENV{PGOPTIONS} = "-c behavior.default_source=a\xff -c behavior.correlation_id=\xfe";
	my ($status, undef, $err) = $node->psql('postgres', $send);
	like($err, qr/invalid value for parameter "behavior\.(default_source|correlation_id)"/, "refused, preloaded: '$preload'");
	$ENV{PGOPTIONS} = "-c behavior.default_source=caf\xc3\xa9 -c behavior.correlation_id=\xc3\xa9";
	$node->safe_psql('postgres', $send);
}
delete $ENV{PGOPTIONS};
is($node->safe_psql('postgres', "SELECT DISTINCT upper(source) || correlation_id = upper(E'caf\\u00e9') || E'\\u00e9', count(*) FROM behavior.log JOIN behavior.batch USING (batch_id) WHERE source <> 'default' GROUP BY 1"),
	't|2', 'what is UTF-8 is taken as it is');
$node->stop;
done_testing();

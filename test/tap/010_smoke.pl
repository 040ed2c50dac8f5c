use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(extra => [ '-E', 'UTF8' ]);
$node->start;
# Without shared_preload_libraries: the library is loaded by the first call.
$node->safe_psql('postgres', 'CREATE EXTENSION behavior');
is($node->safe_psql('postgres', "SELECT extversion FROM pg_extension WHERE extname = 'behavior'"),
	'1.0', 'the extension can be created without preload');
$node->stop;
done_testing();

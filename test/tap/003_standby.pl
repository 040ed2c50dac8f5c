# No worker on a standby; they start on promotion and the numbers are right.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Lifecycle;

my $primary = new_node('primary', init => { allows_streaming => 1 });
$primary->safe_psql('postgres', 'CREATE EXTENSION behavior');
wait_for_worker($primary, 'postgres');
send_events($primary, 'postgres', 1, 50);
ok(wait_until_folded($primary, 'postgres', 50), 'the primary folds');

$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

send_events($primary, 'postgres', 51, 100);
ok(wait_until_folded($primary, 'postgres', 100), 'the primary folds on');
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'behavior %'"),
	'0', 'a standby has no worker, nor a launcher');
check_sums($standby, 'postgres', 100, 'read on the standby');
my ($status, undef, $err) = $standby->psql('postgres', 'CALL behavior.tick()');
isnt($status, 0, 'a standby does not tick');
like($err, qr/read-only|recovery/, 'and says why');
(undef, undef, $err) = $standby->psql('postgres', qq{\\set VERBOSITY verbose\nSELECT * FROM behavior.ingest('{"type":"x"}')});
like($err, qr/25006: cannot execute behavior.ingest\(\)/, 'nor does it take events');
is($standby->safe_psql('postgres', "SELECT count(*) FROM behavior.find_event('no such event')"), '0', 'keys are looked up there');

# Events that the old primary has not folded when it dies.
$primary->append_conf('postgresql.conf', 'behavior.worker = off');
$primary->reload;
wait_for_no_worker($primary, 'postgres');
send_events($primary, 'postgres', 101, 150);
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
$primary->stop('immediate');
$standby->promote;
wait_for_worker($standby, 'postgres');
ok(wait_until_folded($standby, 'postgres', 150), 'what the primary left is folded');
send_events($standby, 'postgres', 101, 200);
ok(wait_until_folded($standby, 'postgres', 200), 'the new primary folds, and knows the keys');
check_sums($standby, 'postgres', 200, 'after promotion');

$standby->stop;
done_testing();

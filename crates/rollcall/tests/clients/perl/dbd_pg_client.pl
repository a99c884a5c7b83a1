# DBD::Pg: prepares at the server where a statement is asked again, parameters as text, arrays both ways.
use strict;
use warnings;
use utf8;
use DBI;
use DBD::Pg qw(:pg_types :async);

binmode STDOUT, ':utf8';
$| = 1;
my $at_hq = ($ENV{AGAINST} // 'hq') eq 'hq';
my $incomplete = 'SELECT count(*) FROM sales';
my $long = 'SELECT count(*) FROM generate_series(1, 1000000) AS a(v), generate_series(1, 1000000) AS b(v) WHERE (a.v + b.v) % 7 = 3';
my @checks;

sub check { push @checks, [@_] }
sub check_at_hq { check(@_) if $at_hq }

# Everything but the user comes from the environment.
sub connected {
    my ($more) = @_;
    return DBI->connect('dbi:Pg:' . ($more // ''), $ENV{PGUSER}, $ENV{PGPASSWORD},
        { RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, pg_enable_utf8 => 1 });
}

sub text { my ($value) = @_; return ref $value ? '[' . join(', ', map { text($_) } @$value) . ']' : $value // 'undef' }
sub same { my ($got, $expected) = @_; die text($got) . ', not ' . text($expected) . "\n" if text($got) ne text($expected) }
sub row { my ($dbh, $sql, @parameters) = @_; return [$dbh->selectrow_array($sql, undef, @parameters)] }

sub refused {
    my ($dbh, $state, $sql, @parameters) = @_;
    eval { $dbh->selectall_arrayref($sql, undef, @parameters); 1 } and die "no error\n";
    die 'SQLSTATE ' . $dbh->state . ", not $state: $@" if $dbh->state ne $state;
    return $@;
}

check 'select every type' => sub {
    my $dbh = connected();
    same(row($dbh, q{SELECT 7::smallint, 42::int, 9007199254740993::bigint, 12345.6789::numeric(12,4), 1.5::float8, 'Grüße ☕, "o''pie"'::text,
        DATE '2026-01-31', TIMESTAMPTZ '2026-01-31 10:00:00.123456+02', TIMESTAMP '2026-01-31 10:00:00.5', true, false, NULL::text}),
        [7, 42, '9007199254740993', '12345.6789', 1.5, q{Grüße ☕, "o'pie"}, '2026-01-31', '2026-01-31 08:00:00.123456+00',
         '2026-01-31 10:00:00.5', 1, 0, undef]);
    same([map { sprintf '%vd', $_ } row($dbh, q{SELECT '\x00ff41'::bytea})->[0]], ['0.255.65']);
    same($dbh->selectall_arrayref(q{SELECT id, item, qty, price, rebate, paid, day, sold_at FROM sales WHERE _site = 'salem-01' ORDER BY id}),
        [[1, 'tea', 5, '2.50', 0.25, 1, '2026-01-10', '2026-01-10 18:00:00+00'], [2, q{o'pie, "warm"}, 7, '12.99', undef, 0, '2026-02-10', '2026-02-10 18:00:00+00'],
         [3, 'Grüße ☕', 2, '1000.01', -1.5, undef, undef, '2026-02-12 07:30:00+00'], [4, undef, undef, undef, 0, 1, '2026-02-12', '2026-02-12 16:15:30.123456+00']]);
};

for my $prepare (0, 1) {
    for (
        ['int', 'qty = ?', 7, 2], ['decimal', 'price = ?', '2.50', 2], ['float', 'rebate = ?', 0.25, 2], ['float against decimal', 'price > ?', 12.5, 4],
        ['text', 'item = ?', q{o'pie, "warm"}, 2], ['date', 'day = ?', '2026-02-10', 2], ['timestamptz', 'sold_at >= ?', '2026-02-11 00:00:00+00', 4],
        ['boolean', 'paid = ?', 't', 4], ['null, equal', 'qty = ?', undef, 0], ['null, not distinct', 'qty IS NOT DISTINCT FROM ?', undef, 2],
        ['text array', '_site = ANY(?)', ['salem-01', 'elsewhere'], 4], ['stated text array', '_site = any(?::text[])', ['salem-01', 'elsewhere'], 4],
        ['int array', 'id = ANY(?)', [1, 3], 4], ['array with quotes and null', 'item = ANY(?)', ['tea', undef, q{o'pie, "warm"}], 4],
        ['not in an array', 'id <> ALL(?)', [1, 2], 4],
    ) {
        my ($name, $condition, $value, $expected) = @$_;
        check "parameter, prepared $prepare: $name" => sub {
            my $dbh = connected();
            $dbh->{pg_server_prepare} = $prepare;
            $dbh->{pg_switch_prepared} = $prepare;
            my $statement = $dbh->prepare("SELECT count(*) FROM sales WHERE $condition");
            for (1 .. 3) { $statement->execute($value); same([$statement->fetchrow_array], [$expected]); $statement->finish }
        };
    }
}
check 'parameter: bytea' => sub {
    # The connection must outlive its statements.
    my $dbh = connected();
    my $statement = $dbh->prepare('SELECT count(*) FROM sales WHERE receipt = ?');
    $statement->bind_param(1, "\x00\xffA", { pg_type => PG_BYTEA });
    $statement->execute;
    same([$statement->fetchrow_array], [2]);
};
check 'parameters with a type' => sub {
    my $dbh = connected();
    my $statement = $dbh->prepare('SELECT count(*) FROM sales WHERE qty = ? AND price < ? AND sold_at > ?');
    $statement->bind_param(1, 7, { pg_type => PG_INT4 });
    $statement->bind_param(2, 13.5, { pg_type => PG_FLOAT8 });
    $statement->bind_param(3, '2026-01-01', { pg_type => PG_TIMESTAMPTZ });
    $statement->execute;
    same([$statement->fetchrow_array], [2]);
};
check 'limit and offset' => sub {
    same(connected()->selectcol_arrayref('SELECT id FROM sales ORDER BY _site, id LIMIT ? OFFSET ?', undef, 2, 1), [2, 3]);
};
check 'two columns of one name' => sub {
    same(row(connected(), q{SELECT id, id, qty AS id FROM sales WHERE id = 1 AND _site = 'salem-01'}), [1, 1, 5]);
};
check_at_hq 'note' => sub {
    my $dbh = connected();
    my @notes;
    local $SIG{__WARN__} = sub { push @notes, @_ };
    $dbh->{PrintWarn} = 1;
    row($dbh, $incomplete);
    die "no note: @notes\n" unless "@notes" =~ /WARNING.*tacoma-01/s;
};
check_at_hq 'strict' => sub {
    my $dbh = connected();
    $dbh->do(q{SET rollcall.coverage = 'strict'});
    for (1 .. 3) {
        my $error = refused($dbh, 'RC001', "$incomplete WHERE id > ?", 0);
        die $error unless $error =~ /tacoma-01/;
        same(row($dbh, 'SELECT 1'), [1]);
    }
};
check_at_hq 'strict by options' => sub { refused(connected(q{options='-c rollcall.coverage=strict'}), 'RC001', $incomplete) };
for my $reset ('DISCARD ALL', 'RESET ALL') {
    check "reset: $reset" => sub {
        my $dbh = connected();
        $dbh->do($_) for q{SET rollcall.coverage = 'strict'}, 'SET statement_timeout = 54321', $reset;
        same(row($dbh, 'SHOW statement_timeout'), ['0']);
        same(row($dbh, $incomplete), [8]);
    };
}
check 'pool by fork of a connection' => sub {
    # What Apache::DBI does between two requests: ping, and roll back what was left open.
    my $dbh = connected();
    $dbh->begin_work;
    $dbh->do(q{SET rollcall.coverage = 'strict'});
    $dbh->rollback;
    die "no ping\n" unless $dbh->ping > 0;
    same(row($dbh, $incomplete), [8]);
};
check 'savepoint' => sub {
    my $dbh = connected();
    $dbh->begin_work;
    row($dbh, 'SELECT 1');
    $dbh->pg_savepoint('a');
    refused($dbh, '42P01', 'SELECT * FROM nosuch');
    refused($dbh, '25P02', 'SELECT 1');
    $dbh->pg_rollback_to('a');
    same(row($dbh, $incomplete), [8]);
    $dbh->pg_release('a');
    $dbh->commit;
};
check 'declare, fetch, close' => sub {
    my $dbh = connected();
    $dbh->begin_work;
    $dbh->do(q{DECLARE c CURSOR FOR SELECT id FROM sales WHERE _site = 'salem-01' ORDER BY id});
    same($dbh->selectcol_arrayref('FETCH 3 FROM c'), [1, 2, 3]);
    same($dbh->selectcol_arrayref('FETCH ALL FROM c'), [4]);
    $dbh->do('CLOSE c');
    $dbh->commit;
};
check 'copy' => sub {
    my $dbh = connected();
    for my $form ('WITH (FORMAT csv, HEADER)', 'CSV HEADER') {
        $dbh->do("COPY (SELECT id, item, paid FROM sales WHERE _site = 'salem-01' ORDER BY id) TO STDOUT $form");
        my ($all, $line) = ('', '');
        $all .= $line while $dbh->pg_getcopydata($line) >= 0;
        same($all, qq{id,item,paid\n1,tea,t\n2,"o'pie, ""warm""",f\n3,Grüße ☕,\n4,,t\n});
    }
};
check 'tables' => sub {
    my $dbh = connected();
    my %names = map { $_ => 1 } $dbh->tables(undef, 'public', '%', undef, { noprefix => 1 });
    die text([sort keys %names]) . "\n" unless $names{'public.sales'} && $names{'public.sites'};
};
check 'columns' => sub {
    my $dbh = connected();
    my %types = map { $_->{COLUMN_NAME} => $_->{pg_type} } @{ $dbh->column_info(undef, 'public', 'sales', undef)->fetchall_arrayref({}) };
    same([map { "$_ " . ($types{$_} // 'missing') } qw(id item price day sold_at)],
        ['id bigint', 'item text', 'price numeric(10,2)', 'day date', 'sold_at timestamp with time zone']);
};
check 'primary key' => sub {
    my $dbh = connected();
    my %names = map { $_ => 1 } $dbh->primary_key(undef, 'public', 'sales');
    die text([sort keys %names]) . "\n" unless $names{id} && $names{_site};
};
check 'cancel' => sub {
    my $dbh = connected();
    my $statement = $dbh->prepare($long, { pg_async => PG_ASYNC });
    $statement->execute;
    sleep 1;
    my $started = time;
    $dbh->pg_cancel;
    die "took long\n" if time - $started > 20;
    same(row($dbh, 'SELECT 1'), [1]);
};
check 'statement_timeout' => sub {
    my $dbh = connected();
    $dbh->do('SET statement_timeout = 2000');
    refused($dbh, '57014', $long);
    same(row($dbh, 'SELECT 1'), [1]);
};
check 'set_config' => sub {
    my $dbh = connected();
    same(row($dbh, 'SELECT set_config(?, ?, false)', 'application_name', 'till'), ['till']);
    same(row($dbh, 'SHOW application_name'), ['till']);
};

my $failed = 0;
for (@checks) {
    my ($name, $run) = @$_;
    next if @ARGV && !grep { index($name, $_) >= 0 } @ARGV;
    my $done = eval { local $SIG{ALRM} = sub { die "took more than a minute\n" }; alarm 60; $run->(); alarm 0; 1 };
    my $error = $@;
    alarm 0;
    if ($done) { print "ok $name\n"; next }
    $failed++;
    $error =~ s/\s+/ /g;
    print "FAIL $name: $error\n";
}
exit($failed || !@checks ? 1 : 0);

# contract: chat
# language: Perl
# packages: perl
# start: perl {file} {host} {port}
# dialect: it puts the time before each line: `[12:03:04] hello`
use strict;
use warnings;
use Errno qw(EAGAIN EINTR ECONNABORTED);
use IO::Select;
use IO::Socket::INET;
use POSIX qw(strftime);
use Socket qw(SOL_SOCKET SO_LINGER IPPROTO_TCP TCP_NODELAY SHUT_WR);

use constant {
    MAX_LINE    => 65536,
    MAX_PENDING => 4 * 1024 * 1024,    # kept for a client that does not read
    PATIENCE    => 3,                  # seconds for a leaver to take what it is owed and to close
};

$SIG{PIPE} = 'IGNORE';
my ($host, $port) = @ARGV;
my $listener = IO::Socket::INET->new(
    LocalAddr => $host,
    LocalPort => $port,
    Proto     => 'tcp',
    Listen    => 512,
    ReuseAddr => 1,
    Blocking  => 0,
) or die "cannot listen on $host:$port: $@\n";

my %clients;    # by descriptor: {socket, in, out, left, heard_fin, said_fin, until}
my $readers = IO::Select->new($listener);
my $writers = IO::Select->new;

sub forget {
    my ($c) = @_;
    return unless delete $clients{ fileno $c->{socket} };
    $readers->remove($c->{socket});
    $writers->remove($c->{socket});
    close $c->{socket};
}

sub drop {
    my ($c) = @_;
    setsockopt $c->{socket}, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0);    # RST
    forget($c);
}

# Send what the kernel takes now; the rest when there is room.
sub pay {
    my ($c) = @_;
    while (length $c->{out}) {
        my $sent = syswrite $c->{socket}, $c->{out}, 262144;
        if (defined $sent) {
            substr $c->{out}, 0, $sent, '';
            next;
        }
        next if $! == EINTR;
        return forget($c) if $! != EAGAIN;
        return drop($c) if length $c->{out} > MAX_PENDING;
        $writers->add($c->{socket});
        return;
    }
    $writers->remove($c->{socket});
    return unless $c->{left};
    return forget($c) if $c->{heard_fin};
    shutdown $c->{socket}, SHUT_WR unless $c->{said_fin}++;
}

sub say_to_all {
    my ($lines) = @_;
    return unless @$lines;
    my $time  = strftime '[%H:%M:%S] ', localtime;
    my $block = join '', map { "$time$_\n" } @$lines;
    for my $c (my @all = values %clients) {    # a copy: pay() may forget one
        next if $c->{left};
        $c->{out} .= $block;
        pay($c);
    }
}

sub leave {
    my ($c) = @_;
    return unless $clients{ fileno $c->{socket} // -1 };    # dropped in the meantime
    @$c{qw(left until in)} = (1, time + PATIENCE, '');
    pay($c);
}

sub hear {
    my ($c) = @_;
    my $from = length $c->{in};
    my $got = sysread $c->{socket}, $c->{in}, 65536, $from;
    if (!defined $got) {
        forget($c) unless $! == EAGAIN || $! == EINTR;
        return;
    }
    if (!$got) {
        $c->{heard_fin} = 1;
        $readers->remove($c->{socket});
        $c->{in} =~ s/\r\z//;
        say_to_all([ $c->{in} ]) if !$c->{left} && length $c->{in};    # a last line needs no newline
        return leave($c);
    }
    return $c->{in} = '' if $c->{left};
    my (@lines, $parting);
    my $start = 0;
    while ((my $end = index $c->{in}, "\n", $from) >= 0) {
        my $line = substr $c->{in}, $start, $end - $start;
        $line =~ s/\r\z//;
        $start = $from = $end + 1;
        if ($line eq 'quit' || length $line > MAX_LINE) {
            $parting = $line eq 'quit' ? '' : "error: line too long\n";
            last;
        }
        push @lines, $line if length $line;
    }
    substr $c->{in}, 0, $start, '';
    $parting //= "error: line too long\n" if length $c->{in} > MAX_LINE + 1;
    say_to_all(\@lines);
    if (defined $parting) {
        $c->{out} .= $parting;
        leave($c);
    }
}

sub welcome {
    while (1) {
        my $socket = $listener->accept;
        if (!$socket) {
            next if $! == EINTR || $! == ECONNABORTED;
            select undef, undef, undef, 0.05 if $! != EAGAIN;    # no descriptor is free, mostly
            return;
        }
        $socket->blocking(0);
        setsockopt $socket, IPPROTO_TCP, TCP_NODELAY, 1;
        $clients{ fileno $socket } = { socket => $socket, in => '', out => '' };
        $readers->add($socket);
    }
}

while (1) {
    my $leaving = grep { $_->{left} } values %clients;
    my ($readable, $writable) = IO::Select->select($readers, $writers, undef, $leaving ? 0.5 : undef);
    for my $socket (@{ $readable // [] }) {
        if ($socket == $listener) {
            welcome();
        } elsif (my $c = $clients{ fileno $socket // -1 }) {
            hear($c) if $c->{socket} == $socket;
        }
    }
    for my $socket (@{ $writable // [] }) {
        my $c = $clients{ fileno $socket // -1 };
        pay($c) if $c && $c->{socket} == $socket;
    }
    if ($leaving) {
        my @late = grep { $_->{left} && time > $_->{until} } values %clients;
        forget($_) for @late;
    }
}

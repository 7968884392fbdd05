# contract: registry
# language: Perl
# packages: perl
# start: perl {file} {host} {port}
use strict;
use warnings;
use IO::Socket::INET;

my ($host, $port) = @ARGV;
my $sock = IO::Socket::INET->new(LocalAddr => $host, LocalPort => $port, Proto => 'udp')
    or die "cannot bind $host:$port: $@\n";

my %peers;    # packed address and port: 1

while (1) {
    my $from = recv $sock, my $data, 65535, 0;
    next unless defined $from;
    if ($data =~ /\A[ \t\r\n]*#REG[ \t\r\n]*\z/) {
        $peers{$from} = 1;
        send $sock, 'registered, ' . keys(%peers) . ' here', 0, $from;
    } elsif ($data =~ /\A[ \t\r\n]*#DEREG[ \t\r\n]*\z/) {
        delete $peers{$from};
        send $sock, 'deregistered', 0, $from;
    } elsif ($peers{$from}) {
        send $sock, $data, 0, $_ for keys %peers;
    } else {
        send $sock, 'not registered', 0, $from unless $data eq 'not registered';
    }
}

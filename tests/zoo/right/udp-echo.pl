# contract: udp-echo
# language: Perl
# packages: perl
# start: perl {file} {host} {port}
use strict;
use warnings;
use IO::Socket::INET;

my ($host, $port) = @ARGV;
my $sock = IO::Socket::INET->new(LocalAddr => $host, LocalPort => $port, Proto => 'udp')
    or die "cannot bind $host:$port: $@\n";

while (1) {
    my $from = recv $sock, my $data, 65535, 0;
    next unless defined $from;
    send $sock, $data, 0, $from;
}

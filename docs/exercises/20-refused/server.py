"""A UDP registry that wants to know when a datagram is refused: it asks its kernel to tell of ICMP errors (ip(7), IP_RECVERR).

python3 server.py HOST PORT       judged by: socklab check registry -- python3 server.py {host} {port}

It does not survive the first such error. Fill in the four gaps; a registry that has stopped asking would be right as well, but would not know.
"""

import socket
import sys

LARGEST = 65535  # no datagram is longer
WHITE_SPACE = b" \t\r\n"  # around a command; a person's `nc -u` sends the newline, too
IP_RECVERR = 11  # from linux/in.h; Python has this name from 3.14 on


def handle(members, data, address):
    """What one datagram does to the members; returns (what to send, to which addresses)."""
    command = data.strip(WHITE_SPACE)
    if command == b"#REG":
        members.add(address)
        return b"registered", [address]
    if command == b"#DEREG":
        members.discard(address)
        return b"deregistered", [address]
    return data, list(members) if address in members else []


def report_errors(sock):
    """Take all errors out of the socket's error queue, and say whose datagrams were refused."""
    # TODO 1: sock.recvmsg(0, 0, socket.MSG_ERRQUEUE) gives (data, ancillary, flags, address), the address being the one that the
    #         refused datagram had gone to. It never waits: BlockingIOError means that the queue is empty. Print each on stderr.


def send(sock, data, receiver):
    # TODO 2: an OSError here may be of an earlier datagram, that went to somebody else. Then this one has not been sent: report, and send it again.
    # TODO 3: not for ever: what fails three times is lost, and the other receivers get theirs.
    sock.sendto(data, receiver)


def serve(sock):
    members = set()
    while True:
        # TODO 4: the error may come here as well. It says nothing of the datagram that is waited for: report, and go on.
        data, address = sock.recvfrom(LARGEST)
        answer, receivers = handle(members, data, address)
        for receiver in receivers:
            send(sock, answer, receiver)


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        sock.bind((host, port))
        serve(sock)


if __name__ == "__main__":
    main()

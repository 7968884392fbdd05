"""A UDP registry that knows when a datagram is refused: it asks its kernel to tell of ICMP errors (ip(7), IP_RECVERR).

python3 server.py HOST PORT       judged by: socklab check registry -- python3 server.py {host} {port}
"""

import socket
import sys

LARGEST = 65535  # no datagram is longer
WHITE_SPACE = b" \t\r\n"  # around a command; a person's `nc -u` sends the newline, too
IP_RECVERR = 11  # from linux/in.h; Python has this name from 3.14 on
TRIES = 3  # for each datagram: the error of an earlier one may come in its place


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
    while True:
        try:
            _, _, _, address = sock.recvmsg(0, 0, socket.MSG_ERRQUEUE)
        except BlockingIOError:
            return
        print(f"refused: what went to {address}", file=sys.stderr)


def send(sock, data, receiver):
    for _ in range(TRIES):
        try:
            sock.sendto(data, receiver)
            return
        except OSError:
            report_errors(sock)


def serve(sock):
    members = set()
    while True:
        try:
            data, address = sock.recvfrom(LARGEST)
        except OSError:
            report_errors(sock)
            continue
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

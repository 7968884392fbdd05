"""A UDP registry: clients say that they are there, and what one of them says goes to all.

python3 server.py HOST PORT       judged by: socklab check registry -- python3 server.py {host} {port}

So far it is the echo server of lesson 13: who speaks hears, and nobody else. Fill in the four gaps.
"""

import socket
import sys

LARGEST = 65535  # no datagram is longer


def handle(members, data, address):
    """What one datagram does to the members; returns (what to send, to which addresses)."""
    # TODO 1: a datagram that is #REG and nothing else, but for white space around it: its sender is a member now, and is told so.
    # TODO 2: #DEREG: its sender is a member no more, and is told so, even if it never was one.
    # TODO 3: anything else goes, as it came, to all members, the sender too …
    # TODO 4: … if the sender is a member. From a stranger it goes to nobody.
    return data, [address]


def serve(sock):
    members = set()
    while True:
        data, address = sock.recvfrom(LARGEST)
        answer, receivers = handle(members, data, address)
        for receiver in receivers:
            try:
                sock.sendto(answer, receiver)
            except OSError:
                pass  # lost for this one; the others get theirs


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, port))
        serve(sock)


if __name__ == "__main__":
    main()

"""A UDP registry: clients say that they are there, and what one of them says goes to all;
whoever got no answer says it again.

python3 server.py HOST PORT       judged by: socklab check registry -- python3 server.py {host} {port}

It is right as long as no datagram is lost, and each client says each thing once. Mend the three places.
"""

import socket
import sys

LARGEST = 65535  # no datagram is longer
WHITE_SPACE = b" \t\r\n"  # around a command; a person's `nc -u` sends the newline, too


def handle(members, data, address):
    """What one datagram does to the members; returns (what to send, to which addresses)."""
    command = data.strip(WHITE_SPACE)
    if command == b"#REG":
        # TODO 1: said again, it must change nothing: whoever is in is in once.
        # TODO 2: said again, it must be answered again: perhaps it was the answer that got lost.
        first = address not in members
        members.append(address)
        return b"registered", [address] if first else []
    if command == b"#DEREG":
        # TODO 3: said again, it finds nobody to take off: that is no reason to end, and none to be silent.
        members.remove(address)
        return b"deregistered", [address]
    return data, list(members) if address in members else []


def serve(sock):
    members = []  # TODO 1: what keeps each of its elements once, however often it is put in?
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

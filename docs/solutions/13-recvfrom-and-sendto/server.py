"""A UDP echo server: each datagram goes back to where it came from.

python3 server.py HOST PORT       judged by: socklab check udp-echo -- python3 server.py {host} {port}
"""

import socket
import sys

LARGEST = 65535  # no datagram is longer


def serve(sock):
    while True:
        data, address = sock.recvfrom(LARGEST)
        try:
            sock.sendto(data, address)
        except OSError:
            pass  # there is no way to this address: this answer is lost, and nobody else's


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, port))
        serve(sock)


if __name__ == "__main__":
    main()

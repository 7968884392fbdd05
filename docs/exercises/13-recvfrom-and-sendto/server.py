"""A UDP echo server that is written as if UDP were TCP.

python3 server.py HOST PORT       judged by: socklab check udp-echo -- python3 server.py {host} {port}

It takes what comes and answers nobody. Fill in the four gaps.
"""

import socket
import sys


def serve(sock):
    # TODO 3: b"" is an empty datagram here, and no end: nobody closes anything. Go on for ever.
    # TODO 4: a datagram has up to 65,507 bytes, and recv() throws away what has no room in its buffer.
    while data := sock.recv(1024):
        # TODO 1: who has sent it? recv() does not say; recvfrom() does.
        # TODO 2: send it back to there: sendto(). If that fails (OSError), this one answer is lost, and the server goes on.
        pass


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, port))
        serve(sock)


if __name__ == "__main__":
    main()

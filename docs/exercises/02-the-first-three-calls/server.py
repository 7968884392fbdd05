"""An echo server whose first three calls are missing.

python3 server.py HOST PORT       judged by: socklab check echo --iterative --only exact-echo -- python3 server.py {host} {port}

All else is there. Fill in the three gaps in listen().
"""

import socket
import sys

BACKLOG = 128  # clients that may wait


def listen(host, port):
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # TODO 1: make a socket of this family, kind and protocol.
    listener = socket.socket()
    # TODO 2: give it its address.
    # TODO 3: from here on the kernel is to shake hands for it, and to keep up to BACKLOG clients until they are accepted.
    return listener


def serve_client(connection):
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


def main():
    with listen(sys.argv[1], sys.argv[2]) as listener:
        print("listening at", *listener.getsockname()[:2], flush=True)
        while True:
            connection, _ = listener.accept()
            try:
                serve_client(connection)
            except ConnectionError:
                pass


if __name__ == "__main__":
    main()

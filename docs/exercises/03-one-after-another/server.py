"""An echo server that is to serve one client after another.

python3 server.py HOST PORT       judged by: socklab check echo --iterative --only concurrency --only vanished-peers -- python3 server.py {host} {port}

It serves one client, and ends. Fill in the two gaps in main().
"""

import socket
import sys

BACKLOG = 128  # clients that may wait


def listen(host, port):
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    listener.bind(address)
    listener.listen(BACKLOG)
    return listener


def serve_client(connection):
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


def main():
    with listen(sys.argv[1], sys.argv[2]) as listener:
        print("listening at", *listener.getsockname()[:2], flush=True)
        # TODO 1: one client after another, for ever.
        connection, address = listener.accept()
        # TODO 2: a client that breaks its connection off (ConnectionError) ends its own service only: say so, and go on with the next.
        serve_client(connection)


if __name__ == "__main__":
    main()

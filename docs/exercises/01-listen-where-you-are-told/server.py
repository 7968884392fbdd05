"""An echo server that is to listen where it is told.

python3 server.py HOST PORT       judged by: socklab check echo --iterative --only what-is-sent-comes-back -- python3 server.py {host} {port}

It is right but for one thing: whatever it is told, it listens at 127.0.0.1, port 5001. Fill in the gap in listen(). What the calls
below it do is the matter of the next lessons.
"""

import socket
import sys


def listen(host, port):
    # TODO 1: ask socket.getaddrinfo() for a stream socket at this host and port, and take family, kind, protocol and address from its first answer.
    family, kind, protocol, address = socket.AF_INET, socket.SOCK_STREAM, 0, ("127.0.0.1", 5001)
    listener = socket.socket(family, kind, protocol)
    listener.bind(address)
    listener.listen(128)
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

"""An echo server that serves one client after another.

python3 server.py HOST PORT       judged by: socklab check echo --iterative --only concurrency --only vanished-peers -- python3 server.py {host} {port}
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
        while True:
            connection, address = listener.accept()
            try:
                serve_client(connection)
            except ConnectionError as error:
                print(*address[:2], error, flush=True)


if __name__ == "__main__":
    main()

"""An echo server that listens where it is told.

python3 server.py HOST PORT       judged by: socklab check echo --iterative --only what-is-sent-comes-back -- python3 server.py {host} {port}
"""

import socket
import sys


def listen(host, port):
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
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

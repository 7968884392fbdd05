"""An echo server that is to start again on its port at once.

python3 server.py HOST PORT       judged by: socklab check echo --iterative --only the-same-port-again-at-once -- python3 server.py {host} {port}

It is a whole echo server; but when it is restarted while somebody is connected, it has to wait a minute. Fill in the gap in listen().
"""

import socket
import sys

BACKLOG = 128  # clients that may wait
CHUNK = 65536  # most that one recv() takes


def listen(host, port):
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    # TODO 1: connections that have ended, and linger in TIME_WAIT, are not to keep this address from being bound.
    listener.bind(address)
    listener.listen(BACKLOG)
    return listener


def serve_client(connection):
    with connection:  # closes it, also when something fails
        while data := connection.recv(CHUNK):
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

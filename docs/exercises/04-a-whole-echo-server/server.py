"""An echo server that is to send back all that it gets.

python3 server.py HOST PORT       judged by: socklab check echo --iterative -- python3 server.py {host} {port}

It answers once, and closes. Fill in the three gaps in serve_client().
"""

import socket
import sys

BACKLOG = 128  # clients that may wait
CHUNK = 65536  # most that one recv() takes


def listen(host, port):
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    listener.bind(address)
    listener.listen(BACKLOG)
    return listener


def serve_client(connection):
    # TODO 1: recv() gives what is there, and b"" when the client has said FIN. Until then there may be more.
    data = connection.recv(CHUNK)
    # TODO 2: send() may take only a part of what it is given.
    connection.send(data)
    # TODO 3: the connection is to be closed also when recv() or send() has failed.
    connection.close()


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

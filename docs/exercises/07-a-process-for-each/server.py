"""An echo server that is to serve every client at once, by a process for each.

python3 server.py HOST PORT       judged by: socklab check echo -- python3 server.py {host} {port}

It is right but for one thing: it serves one client at a time. Fill in the four gaps.
"""

import os
import signal
import socket
import sys


def serve_client(connection):
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


def reap(*_):
    """Called at SIGCHLD: a child has ended, and stays a zombie until somebody asks how."""
    # TODO 4: ask for every child that has ended: os.waitpid(-1, os.WNOHANG), until it gives 0 or there is no child (ChildProcessError).


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    signal.signal(signal.SIGCHLD, reap)
    with socket.create_server((host, port), backlog=128) as listener:
        while True:
            connection, _ = listener.accept()
            # TODO 1: os.fork() comes back twice: with 0 in the child, with the child's number in the parent.
            # TODO 2: the child has no use for the listener: it closes it, serves its client, and ends with os._exit(0), whatever happens.
            # TODO 3: the parent has no use for the connection: it closes it, and waits for the next client.
            try:
                serve_client(connection)
            except ConnectionError:
                pass


if __name__ == "__main__":
    main()

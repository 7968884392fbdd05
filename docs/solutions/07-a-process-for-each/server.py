"""An echo server that serves every client at once, by a process for each.

python3 server.py HOST PORT       judged by: socklab check echo -- python3 server.py {host} {port}
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
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    signal.signal(signal.SIGCHLD, reap)
    with socket.create_server((host, port), backlog=128) as listener:
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                status = 1
                try:
                    listener.close()
                    serve_client(connection)
                    status = 0
                except ConnectionError:
                    status = 0
                finally:
                    os._exit(status)
            connection.close()


if __name__ == "__main__":
    main()

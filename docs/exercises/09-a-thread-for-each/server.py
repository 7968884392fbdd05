"""An echo server that is to serve every client at once, by a thread for each, and to end when it is asked to.

python3 server.py HOST PORT       judged by: socklab check echo -- python3 server.py {host} {port}

It serves one client at a time. Fill in the three gaps.
"""

import signal
import socket
import sys
import threading


def serve_client(connection):
    try:
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)
    except ConnectionError:
        pass


def stop(number, _frame):
    """Called at SIGTERM and Ctrl-C, in the main thread, in the middle of accept()."""
    # TODO 3: end the main thread, so that `with` closes the listener: sys.exit(0) raises SystemExit here. Then try the server
    #         without TODO 2: who keeps the process alive?


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, stop)
    with socket.create_server((host, port), backlog=128) as listener:
        while True:
            connection, _ = listener.accept()
            # TODO 1: serve the client in a thread of its own. Give the thread the function and its argument: serve_client(connection)
            #         with its brackets would be called here, in the main thread.
            # TODO 2: a client that stays must not keep the whole process alive when the main thread has ended.
            serve_client(connection)


if __name__ == "__main__":
    main()

"""An echo server that serves every client at once, by a thread for each, and ends when it is asked to.

python3 server.py HOST PORT       judged by: socklab check echo -- python3 server.py {host} {port}
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
    sys.exit(0)


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, stop)
    with socket.create_server((host, port), backlog=128) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve_client, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()

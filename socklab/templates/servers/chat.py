"""A chat server, to be filled in: every line that a client sends goes to all clients, the sender too.

python3 server.py --host 127.0.0.1 --port 6001
"""

import argparse
import socket
import threading

clients = set()  # the sockets of those who are here; several threads use it


def serve_client(connection, peer):
    """All that one client says, in a thread of its own."""
    # TODO 1: the client is here from now on: put its connection into `clients`.
    with connection:
        while data := connection.recv(65536):
            # TODO 2: `data` is no line. It may be half of one, or three and a half: keep what has no \n yet until the rest comes.
            # TODO 3: send each whole line to every client, with its \n. A client that does not read must not hold up the others.
            # TODO 4: the line "quit" ends this connection.
            pass
    # TODO 5: it has left (also where recv() raised ConnectionError): take it out of `clients`.


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=6001)
    where = parser.parse_args()
    listener = socket.create_server((where.host, where.port), backlog=128)
    print(f"listening on {where.host} port {where.port}", flush=True)
    while True:
        connection, peer = listener.accept()
        threading.Thread(target=serve_client, args=(connection, peer), daemon=True).start()


if __name__ == "__main__":
    main()

"""An echo server, to be filled in: every byte that a client sends comes back to it, and to nobody else.

python3 server.py --host 127.0.0.1 --port 5001
"""

import argparse
import socket
import threading


def serve_client(connection, peer):
    """All that is said between us and one client, in a thread of its own."""
    with connection:
        while data := connection.recv(65536):
            # TODO 1: send `data` back, all of it. What is one recv() here may have been three send() there: TCP keeps no borders.
            pass
        # TODO 2: recv() gave b"": the client will say no more (FIN). Has everything gone back before this connection closes?


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5001)
    where = parser.parse_args()
    listener = socket.create_server((where.host, where.port), backlog=128)
    print(f"listening on {where.host} port {where.port}", flush=True)
    while True:
        connection, peer = listener.accept()
        # TODO 3: a client may be gone in the middle of a transfer (ConnectionError); that ends its thread, and nothing else.
        threading.Thread(target=serve_client, args=(connection, peer), daemon=True).start()


if __name__ == "__main__":
    main()

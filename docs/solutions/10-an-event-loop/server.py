"""An echo server that serves every client at once, in one thread, by an event loop.

python3 server.py HOST PORT       judged by: socklab check echo -- python3 server.py {host} {port}
"""

import selectors
import socket
import sys


class Client:
    def __init__(self, connection):
        self.connection = connection
        self.pending = b""  # received, and not yet sent back


def accept(listener, selector):
    connection, _ = listener.accept()
    connection.setblocking(False)
    selector.register(connection, selectors.EVENT_READ, Client(connection))


def serve_client(client, selector):
    """Take one step with a client that is ready, without waiting."""
    try:
        if not client.pending:
            client.pending = client.connection.recv(65536)
            if not client.pending:
                drop(client, selector)
                return
        sent = client.connection.send(client.pending)
        client.pending = client.pending[sent:]
    except BlockingIOError:
        pass
    except OSError:
        drop(client, selector)
        return
    wanted = selectors.EVENT_WRITE if client.pending else selectors.EVENT_READ
    selector.modify(client.connection, wanted, client)


def drop(client, selector):
    selector.unregister(client.connection)
    client.connection.close()


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    selector = selectors.DefaultSelector()
    with socket.create_server((host, port), backlog=128) as listener:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    accept(listener, selector)
                else:
                    serve_client(key.data, selector)


if __name__ == "__main__":
    main()

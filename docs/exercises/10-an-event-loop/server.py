"""An echo server that is to serve every client at once, in one thread, by an event loop.

python3 server.py HOST PORT       judged by: socklab check echo -- python3 server.py {host} {port}

It serves many, until one of them does not read: then sendall() waits for that one, and everybody else waits, too. Fill in the gaps.
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
    # TODO 1: no call on this socket may wait.
    selector.register(connection, selectors.EVENT_READ, Client(connection))


def serve_client(client, selector):
    """Take one step with a client that is ready. TODO 2 to 4 make it a step that never waits."""
    try:
        # TODO 3: while something is pending, this client is here because there is room again, not because it has sent: do not receive.
        client.pending = client.connection.recv(65536)
        if not client.pending:
            drop(client, selector)
            return
        # TODO 2: send() takes what there is room for, and says how many bytes that were. The rest stays pending.
        client.connection.sendall(client.pending)
        client.pending = b""
    except BlockingIOError:
        pass
    except OSError:
        drop(client, selector)
        return
    # TODO 4: what is this client waited for from now on? For room (EVENT_WRITE) if something is pending, else for its words (EVENT_READ):
    #         selector.modify(client.connection, ..., client)


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

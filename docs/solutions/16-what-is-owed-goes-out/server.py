"""An echo server by an event loop that pays what it owes before it closes.

python3 server.py HOST PORT       judged by: socklab check echo -- python3 server.py {host} {port}
"""

import selectors
import socket
import sys

CHUNK = 65536  # most that one recv() takes
ENOUGH = 1 << 20  # bytes owed, past which a client is not read until it has taken some of them


class Client:
    def __init__(self, connection):
        self.connection = connection
        self.owed = bytearray()  # received from it, and not yet sent back
        self.finished = False  # its FIN has come: it says no more, and still listens


def turn(selector, client, events):
    """Do for one client what can be done now. Raises OSError if its connection has broken off."""
    if events & selectors.EVENT_READ:
        data = client.connection.recv(CHUNK)
        client.owed += data
        client.finished = not data
    if client.owed:
        try:
            sent = client.connection.send(client.owed)
        except BlockingIOError:
            sent = 0
        del client.owed[:sent]
    if client.finished and not client.owed:
        close(selector, client)
        return
    wanted = selectors.EVENT_WRITE if client.owed else 0
    if not client.finished and len(client.owed) < ENOUGH:
        wanted |= selectors.EVENT_READ
    selector.modify(client.connection, wanted, client)


def close(selector, client):
    selector.unregister(client.connection)
    client.connection.close()


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    selector = selectors.DefaultSelector()
    with socket.create_server((host, port), backlog=128) as listener:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, events in selector.select():
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    connection.setblocking(False)
                    selector.register(connection, selectors.EVENT_READ, Client(connection))
                    continue
                try:
                    turn(selector, key.data, events)
                except OSError:
                    close(selector, key.data)


if __name__ == "__main__":
    main()

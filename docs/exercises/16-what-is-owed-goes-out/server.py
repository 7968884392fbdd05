"""An echo server by an event loop that is to pay what it owes before it closes.

python3 server.py HOST PORT       judged by: socklab check echo -- python3 server.py {host} {port}

It is right but for its ends: it loses what it still owes, and says RST where FIN is meant. Fill in the four gaps.
"""

import selectors
import socket
import struct
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
        if not data:
            # TODO 1: its FIN has come, so it says no more. But it still listens, and something may be owed. Do not close here: remember it.
            close(selector, client)
            return
        client.owed += data
    if client.owed:
        try:
            sent = client.connection.send(client.owed)
        except BlockingIOError:
            sent = 0
        del client.owed[:sent]
    # TODO 2: if it has finished and nothing is owed any more, close, and return: there is nothing left to wait for.
    wanted = selectors.EVENT_WRITE if client.owed else 0
    # TODO 3: who has finished is always ready to read, for recv() gives b"" again and again. Wait for that no more, or the loop spins.
    if len(client.owed) < ENOUGH:
        wanted |= selectors.EVENT_READ
    selector.modify(client.connection, wanted, client)


def close(selector, client):
    selector.unregister(client.connection)
    # TODO 4: this is here to have no connections in TIME_WAIT. What does it make of close(), and of what the kernel still has to send?
    client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
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

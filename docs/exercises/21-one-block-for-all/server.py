"""A chat server by an event loop, which sends line by line, and loses what a client's kernel has no room for.

python3 server.py HOST PORT       judged by: socklab check chat -- python3 server.py {host} {port}
                                  measured by: socklab bench chat -- python3 server.py {host} {port}

Fill in the three gaps. Begin with the second and the third, without which it is wrong; then measure, fill in the first, and measure again.
"""

import collections
import selectors
import socket
import struct
import sys
import time

CHUNK = 65536  # most that one recv() takes
MAX_LINE = 65536  # bytes of text in a line
MAX_OWED = 4 * 1024 * 1024  # kept for a client that does not read; past it, the client is dropped
PATIENCE_S = 1.0  # for a leaver to take what it is still owed
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

selector = selectors.DefaultSelector()
clients = set()  # those who are in the room
leavers = collections.deque()  # (until when, client): out of the room, and not closed yet


class Client:
    def __init__(self, connection):
        self.connection = connection
        self.rest = b""  # of a line that has no newline yet
        self.why = None  # it leaves at the end of this turn: "quit", "eof" or "too-long"
        self.finished = False  # its FIN has come
        self.closed = False
        self.owed = collections.deque()  # parts of blocks that its kernel has not taken yet
        self.bytes_owed = 0
        self.events = READ  # what the selector waits for


def join(listener):
    try:
        connection, _ = listener.accept()
    except OSError:  # mostly EMFILE: no descriptor is free; the client waits in the accept queue
        time.sleep(0.1)
        return
    connection.setblocking(False)
    tune(connection)
    client = Client(connection)
    clients.add(client)
    selector.register(connection, READ, client)


def tune(connection):
    # Lesson 5: a line must not wait for an acknowledgement.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Lesson 17: a peer that vanished without a word is found out in a minute.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)


def hear(client):
    """The lines that have come from a client. Raises OSError."""
    data = client.connection.recv(CHUNK)
    client.finished = not data
    if client not in clients:
        return []  # it has left: what stands behind `quit` is ignored
    if not data:
        client.why = "eof"
        return [client.rest] if client.rest else []  # a last line needs no newline, whatever it says
    *lines, client.rest = (client.rest + data).split(b"\n")
    said = []
    for line in lines:
        line = line.removesuffix(b"\r")
        if line == b"quit":
            client.why = "quit"
            return said
        if len(line) > MAX_LINE:
            client.why = "too-long"
            return said
        if line:
            said.append(line)
    if len(client.rest.removesuffix(b"\r")) > MAX_LINE:
        client.why = "too-long"
    return said


def spread(said):
    """Send what was said in this turn to everybody."""
    # TODO 1: this is a send() for each line and each client. Join what was said into one block, and owe that to each client, once.
    for line in said:
        for client in list(clients):
            owe(client, memoryview(line + b"\n"))


def owe(client, block):
    """Send it to the client, now."""
    # TODO 2: what the kernel does not take is lost here. Keep the rest of the block in client.owed, count it in client.bytes_owed, and
    # call watch(), which waits for room as long as something is owed. Nothing is sent past what is owed. Past MAX_OWED: drop().
    try:
        client.connection.send(block)
    except BlockingIOError:
        pass  # no room at all
    except OSError:
        drop(client)


def pay(client):
    """The client's kernel has room again. Raises OSError."""
    # TODO 3: send what is owed, part by part, until nothing is owed or BlockingIOError says that there is no more room. send() may take
    # a piece of a part only.


def leave(client):
    """Out of the room. What is owed is still paid, then comes our FIN, and the end when the client's has come, too."""
    clients.discard(client)
    leavers.append((time.monotonic() + PATIENCE_S, client))
    if client.why == "too-long":
        owe(client, memoryview(b"error: line longer than %d bytes\n" % MAX_LINE))
    part(client)


def part(client):
    if client.closed or client in clients:
        return
    if not client.owed and client.finished:
        close(client)
    elif not client.owed:
        try:
            client.connection.shutdown(socket.SHUT_WR)
        except OSError:
            close(client)  # it has ended by itself


def drop(client):
    """Give up a client that does not read or has broken off, by RST: it must not take this for a regular end."""
    clients.discard(client)
    if not client.closed:
        client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        close(client)


def close(client):
    selector.unregister(client.connection)
    client.connection.close()
    client.owed.clear()
    client.closed = True


def watch(client):
    """Let the selector wait for what there is to wait for; a system call only where that is a change."""
    events = (0 if client.finished else READ) | (WRITE if client.owed else 0)
    if not client.closed and events != client.events:
        selector.modify(client.connection, events, client)
        client.events = events


def turn(listener):
    """Wait until something can be done, and do all of it."""
    said, here, somebody_waits = [], [], False
    for key, events in selector.select(PATIENCE_S if leavers else None):
        client = key.data
        if client is None:
            somebody_waits = True
            continue
        here.append(client)
        try:
            if events & WRITE:
                pay(client)
            if events & READ:
                said += hear(client)
        except OSError:
            drop(client)  # RST, or nothing was heard of it for too long
    spread(said)
    for client in here:
        if client.why and client in clients:
            leave(client)
        else:
            part(client)
        watch(client)
    while leavers and (leavers[0][1].closed or leavers[0][0] < time.monotonic()):
        drop(leavers.popleft()[1])
    if somebody_waits:
        join(listener)  # after all that was said before it came


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    with socket.create_server((host, port), backlog=1024) as listener:
        listener.setblocking(False)
        selector.register(listener, READ)
        while True:
            turn(listener)


if __name__ == "__main__":
    main()

"""A chat server: every line that a client sends goes to all clients, itself too, and one that does not read is to delay nobody.

python3 server.py HOST PORT       judged by: socklab check chat -- python3 server.py {host} {port}

It is the chat of lesson 15, and each client has a second thread, which does nothing yet: whoever speaks sends to everybody, and waits
for the slowest. Fill in the three gaps.
"""

import socket
import struct
import sys
import threading
import time

CHUNK = 65536  # most that one recv() takes, and one send() gives
MAX_LINE = 65536  # bytes of text in a line
MAX_OWED = 4 * 1024 * 1024  # kept for a client that does not read; past it, the client is dropped
PATIENCE_S = 1.0  # for a leaver to take what it is still owed

room = threading.Lock()  # held to join, to leave and to say; so what is said has one order for all
clients = set()  # those who are in the room


class LineTooLong(Exception):
    pass


class Client:
    """What the server knows of a client. Only who holds `room` may look at `here` and `owed`, or change them."""

    def __init__(self, connection):
        self.connection = connection
        self.here = True  # in the room: lines are owed to it
        self.owed = bytearray()  # said to it, and not yet taken by the kernel
        self.news = threading.Condition(room)  # something is owed, or it has left
        self.speaker = threading.Thread(target=speak, args=(self,), daemon=True)


def join(connection):
    client = Client(connection)
    with room:
        clients.add(client)
    try:
        client.speaker.start()
        threading.Thread(target=serve_client, args=(client,), daemon=True).start()
    except RuntimeError:  # no thread is to be had
        with room:
            drop(client)
        connection.close()


def leave(client):
    with room:
        clients.discard(client)
        client.here = False
        client.news.notify()


def say(line):
    """To everyone in the room. Nothing in here waits for a receiver."""
    with room:
        for client in list(clients):
            owe(client, line)


def owe(client, line):
    """Called by whoever holds `room`."""
    # TODO 1: do not send: put the line into client.owed, and notify client.news, for which its speaker waits.
    # TODO 3: more than MAX_OWED bytes are too much: drop(client).
    try:
        client.connection.sendall(line + b"\n")
    except OSError:
        pass  # it has gone, and the thread that hears it learns of it, too


def drop(client):
    """Give up a client that does not read: its threads wake up, and close() will send RST, for this is no regular end."""
    clients.discard(client)
    client.here = False
    client.owed.clear()
    try:
        client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the connection has ended by itself


def speak(client):
    """Send what the client is owed, until it has left and all is sent. Here, and only here, a slow reader is waited for."""
    # TODO 2: again and again: holding `room`, wait for client.news until something is owed or the client is not here, and copy up to
    # CHUNK bytes of what is owed. Nothing is owed: it has left, the end. Else send the copy, and do not hold `room` meanwhile. Only
    # what has been sent is taken off client.owed, so that MAX_OWED counts all that is kept. OSError: it has gone, the end.


def lines_of(connection):
    """The lines that a client says, without their ends, until the line `quit` or its FIN. Raises OSError, LineTooLong."""
    rest = b""  # of a line that has no newline yet
    while data := connection.recv(CHUNK):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line == b"quit":
                return
            if len(line) > MAX_LINE:
                raise LineTooLong
            if line:
                yield line
        if len(rest.removesuffix(b"\r")) > MAX_LINE:
            raise LineTooLong
    if rest:
        yield rest  # a last line needs no newline, whatever it says


def say_goodbye(connection):
    """FIN, and read on to the client's: close() with unread input would send RST, which destroys what is still on its way."""
    deadline = time.monotonic() + PATIENCE_S
    try:
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(PATIENCE_S)
        while time.monotonic() < deadline and connection.recv(CHUNK):
            pass
    except OSError:
        pass  # it has ended by itself, or says nothing and does not close


def tune(connection):
    # Lesson 5: a line must not wait for an acknowledgement.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A peer that vanished without a word is found out in a minute: while nothing is on its way to it, by asking, and while something is,
    # by waiting no longer for its acknowledgement.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)


def serve_client(client):
    """Hear what a client says, until it leaves."""
    try:
        tune(client.connection)
        for line in lines_of(client.connection):
            say(line)
    except LineTooLong:
        with room:
            owe(client, b"error: line longer than %d bytes" % MAX_LINE)
    except OSError:
        pass  # RST, or nothing was heard of it for too long
    leave(client)
    client.speaker.join(PATIENCE_S)
    say_goodbye(client.connection)  # its FIN wakes a speaker that still waits
    client.speaker.join()
    client.connection.close()


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    with socket.create_server((host, port), backlog=128) as listener:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # mostly EMFILE: no descriptor is free; the client waits in the accept queue
                time.sleep(0.1)
                continue
            join(connection)


if __name__ == "__main__":
    main()

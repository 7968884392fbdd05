"""A chat server: every line that a client sends goes to all clients, itself too, and one that vanishes takes nobody with it.

python3 server.py HOST PORT       judged by: socklab check chat --only presence --only bad-input --only leaks -- python3 server.py {host} {port}
"""

import socket
import sys
import threading
import time

CHUNK = 65536  # most that one recv() takes
MAX_LINE = 65536  # bytes of text in a line
PATIENCE_S = 1.0  # for a leaver to take what it is still owed

room = threading.Lock()  # held to join, to leave and to say
clients = set()  # the sockets of those who are in the room


class LineTooLong(Exception):
    pass


def join(connection):
    with room:
        clients.add(connection)


def leave(connection):
    with room:
        clients.discard(connection)


def say(line):
    """To everyone in the room."""
    with room:
        for each in clients:
            send_line(each, line)


def send_line(connection, line):
    try:
        connection.sendall(line + b"\n")
    except OSError:
        pass  # it has gone; its own thread learns of it, too, and takes it off


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
    """FIN, and read on to the client's: close() with unread input would send RST, which destroys what is still on its way (lesson 16)."""
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


def serve_client(connection):
    try:
        tune(connection)
        for line in lines_of(connection):
            say(line)
    except LineTooLong:
        with room:
            send_line(connection, b"error: line longer than %d bytes" % MAX_LINE)
    except OSError:
        pass  # RST, or nothing was heard of it for too long
    leave(connection)
    say_goodbye(connection)
    connection.close()


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    with socket.create_server((host, port), backlog=128) as listener:
        while True:
            connection, _ = listener.accept()
            join(connection)
            threading.Thread(target=serve_client, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()

"""A chat server: every line that a client sends goes to all clients, itself too, and one that vanishes is to take nobody with it.

python3 server.py HOST PORT       judged by: socklab check chat --only presence --only bad-input --only leaks -- python3 server.py {host} {port}

It is the chat of lesson 15 as it would be if nobody ever vanished: an error of one client's socket ends whoever happens to touch it. Fill
in the three gaps.
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
    # TODO 1: this may raise BrokenPipeError, ConnectionResetError or TimeoutError (all are OSError), in the thread of whoever speaks,
    # and holding `room`. That is not the speaker's end, and the others in the room are to get the line.
    connection.sendall(line + b"\n")


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
    # TODO 3: keepalive, so that a silent peer is found out in a minute: after 30 seconds of silence, 3 questions, 10 seconds apart; and
    # TCP_USER_TIMEOUT, in milliseconds, so that one who does not acknowledge is given up as soon.


def serve_client(connection):
    try:
        tune(connection)
        for line in lines_of(connection):
            say(line)
    except LineTooLong:
        with room:
            send_line(connection, b"error: line longer than %d bytes" % MAX_LINE)
    # TODO 2: recv() raises ConnectionResetError after RST, and this thread ends here. What is left behind?
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

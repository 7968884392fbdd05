"""A chat server: every line that a client sends is to go to all clients, itself too, however the stream is cut.

python3 server.py HOST PORT       judged by: socklab check chat --only framing --only presence --only bad-input -- python3 server.py {host} {port}

It is the chat of lesson 11, but it takes what one recv() gives for one line. Fill in the four gaps; all of them are in lines_of().
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
    while data := connection.recv(CHUNK):
        # TODO 1: data may hold many lines: split it at b"\n", and do what follows for each.
        # TODO 2: behind the last b"\n" stands the begin of a line, or nothing: keep it, and put it before what comes next.
        line = data.removesuffix(b"\n").removesuffix(b"\r")
        if line == b"quit":
            return
        if line:
            yield line
        # TODO 3: a line of more than MAX_LINE bytes, with its newline or still without, raises LineTooLong: nobody may fill our memory.
    # TODO 4: at FIN, what is kept is a line, too.


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


def serve_client(connection):
    try:
        for line in lines_of(connection):
            say(line)
    except LineTooLong:
        with room:
            send_line(connection, b"error: line longer than %d bytes" % MAX_LINE)
    except OSError:
        pass  # RST
    leave(connection)
    say_goodbye(connection)
    connection.close()


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    with socket.create_server((host, port), backlog=128) as listener:
        while True:
            connection, _ = listener.accept()
            # Lesson 5: a line must not wait for an acknowledgement.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            join(connection)
            threading.Thread(target=serve_client, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()

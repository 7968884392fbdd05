"""A chat server: every line that a client sends goes to all clients, itself too. A thread for each client.

python3 server.py HOST PORT       judged by: socklab check chat --only fan-out --only presence -- python3 server.py {host} {port}
"""

import socket
import sys
import threading

room = threading.Lock()  # held to join, to leave and to say
clients = set()  # the sockets of those who are in the room


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
            try:
                each.sendall(line + b"\n")
            except OSError:
                pass  # it has gone; its own thread learns of it, too, and takes it off


def lines_of(connection):
    """The lines that a client says, without their ends, until the line `quit` or its FIN. Raises OSError."""
    with connection.makefile("rb") as file:
        for line in file:
            if line in (b"quit\n", b"quit\r\n"):
                return
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            if line:
                yield line


def serve_client(connection):
    try:
        for line in lines_of(connection):
            say(line)
    except OSError:
        pass  # RST
    finally:
        leave(connection)
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

"""A server that is to be a chat: every line that a client sends is to go to all clients, itself too.

python3 server.py HOST PORT       judged by: socklab check chat --only fan-out --only presence -- python3 server.py {host} {port}

It is an echo server of lines, with a thread for each client: each client hears itself alone. Fill in the three gaps.
"""

import socket
import sys
import threading

room = threading.Lock()  # held to join, to leave and to say
clients = set()  # the sockets of those who are in the room


def join(connection):
    """Called before the client's thread starts, so that it hears all that is said from now on."""
    # TODO 1: keep the socket in `clients`. Two threads may do so at once, so hold `room`: with room: ...


def leave(connection):
    """Called when the client has left, and before its socket is closed."""
    # TODO 3: take the socket off.


def say(connection, line):
    # TODO 2: to everyone in `clients`, and nobody may join or leave meanwhile. One who has gone (sendall() raises OSError) must cost
    # the others nothing; its own thread learns of it, too, and takes it off.
    connection.sendall(line + b"\n")


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
            say(connection, line)
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

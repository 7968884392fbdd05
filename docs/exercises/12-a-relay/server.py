"""A relay: what a client sends is to go on to a chat, and what the chat says to come back, both at once.

python3 server.py HOST PORT       judged by: socklab check chat --only fan-out --only presence --only leaks -- python3 server.py {host} {port}

It sends and receives in turn, by one thread: who wants to hear has to speak first. Fill in the three gaps.
"""

import socket
import sys
import threading


def relay(client, chat_address):
    """The life of a client."""
    try:
        chat = socket.create_connection(chat_address)
    except OSError:
        client.close()
        return
    # TODO 2: start a thread that passes on from `chat` to `client`, pass on from `client` to `chat` here, and wait for the thread.
    try:
        while data := client.recv(65536):
            chat.sendall(data)
            client.sendall(chat.recv(65536))
    except OSError:
        pass
    client.close()
    chat.close()


def pass_on(source, target):
    """Send to one what comes from the other, until its FIN, and that, too."""
    # TODO 1: one direction. Behind the last byte `target` gets a FIN by shutdown(), not by close(): it may still have much to say.
    # TODO 3: an OSError means that one of the two connections broke. Hang up both, for the other thread waits for one of them.


def hang_up(connection):
    """End both directions; a thread that waits for this connection wakes up."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has ended by itself


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    chat = socket.create_server(("127.0.0.1", 0), backlog=128)
    threading.Thread(target=serve_chat, args=(chat,), daemon=True).start()
    with socket.create_server((host, port), backlog=128) as listener:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=relay, args=(client, chat.getsockname()), daemon=True).start()


# The chat of lesson 11, which listens on loopback: only this computer can reach it.

room = threading.Lock()
members = set()


def serve_chat(listener):
    while True:
        connection, _ = listener.accept()
        with room:
            members.add(connection)
        threading.Thread(target=serve_member, args=(connection,), daemon=True).start()


def serve_member(connection):
    try:
        with connection.makefile("rb") as lines:
            for line in lines:
                if line in (b"quit\n", b"quit\r\n"):
                    break
                if line := line.removesuffix(b"\n").removesuffix(b"\r"):
                    say(line)
    except OSError:
        pass
    with room:
        members.discard(connection)
    connection.close()


def say(line):
    with room:
        for each in members:
            try:
                each.sendall(line + b"\n")
            except OSError:
                pass


if __name__ == "__main__":
    main()

"""A relay: what a client sends goes on to a chat, and what the chat says comes back, both at once.

python3 server.py HOST PORT       judged by: socklab check chat --only fan-out --only presence --only leaks -- python3 server.py {host} {port}
"""

import socket
import sys
import threading


def relay(client, chat_address):
    """The life of a client: this thread passes on what it says, a second one what it is told."""
    try:
        chat = socket.create_connection(chat_address)
    except OSError:
        client.close()
        return
    back = threading.Thread(target=pass_on, args=(chat, client), daemon=True)
    back.start()
    pass_on(client, chat)
    back.join()
    client.close()
    chat.close()


def pass_on(source, target):
    """Send to one what comes from the other, until its FIN, and that, too."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:  # one of the two connections broke: the other one ends, too
        hang_up(source)
        hang_up(target)


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

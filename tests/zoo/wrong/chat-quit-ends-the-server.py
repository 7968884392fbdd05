# fault: when one client says quit, the whole server ends
# contract: chat
# caught by: quit-leaves, everyone-hears-a-line, a-room-that-empties-keeps-nothing
# cause: … ended in the middle of the play: it ended by itself, with status …
# lesson: quit ends the one connection, but your break (or exit) leaves the loop that serves all the others, too
import select
import socket
import sys

host, port = sys.argv[1], int(sys.argv[2])
server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind((host, port))
server.listen(128)

received = {}  # socket: what has come and is no line yet
to_send = {}  # socket: what it is still to get


def broadcast(line):
    line = line.removesuffix(b"\r")
    for sock in to_send:
        to_send[sock] += line + b"\n" if line else b""


def remove(sock):
    del received[sock], to_send[sock]
    sock.close()


running = True
while running:
    waiting = [sock for sock in to_send if to_send[sock]]
    readable, writable, _ = select.select([server, *received], waiting, [])
    for sock in writable:
        try:
            to_send[sock] = to_send[sock][sock.send(to_send[sock]) :]
        except OSError:
            to_send[sock] = b""  # recv() will tell
    for sock in readable:
        if sock is server:
            client, _ = server.accept()
            client.setblocking(False)
            received[client] = to_send[client] = b""
            continue
        try:
            data = sock.recv(65536)
        except OSError:
            remove(sock)
            continue
        if not data:
            broadcast(received[sock])
            remove(sock)
            continue
        *lines, received[sock] = (received[sock] + data).split(b"\n")
        for line in lines:
            if line in (b"quit", b"quit\r"):
                running = False  # the fault: this is the loop for all
                break
            broadcast(line)

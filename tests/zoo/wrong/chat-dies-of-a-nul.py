# fault: a NUL byte raises ValueError in the main loop, and the process ends
# contract: chat
# caught by: garbage-brings-nothing-down
# cause: … ended in the middle of the play: ValueError: subsection not found
# lesson: index() raises ValueError when it finds nothing, and a client may send NUL bytes wherever it likes
import select
import socket
import sys

clients = {}  # socket: Client


class Client:
    def __init__(self):
        self.rest = b""
        self.out = bytearray()


def without_telnet_nul(data):
    """telnet sends a carriage return that is not followed by a newline as CR NUL."""
    while b"\0" in data:
        at = data.index(b"\r\0")  # the fault: a NUL may come without CR, too
        data = data[: at + 1] + data[at + 2 :]
    return data


def broadcast(line):
    line = line.removesuffix(b"\r")
    for client in clients.values() if line else ():
        client.out += line + b"\n"


def hear(sock, client):
    """Deliver what came; False when the client leaves."""
    try:
        data = sock.recv(65536)
    except OSError:
        return False
    if not data:
        broadcast(client.rest)
        return False
    *lines, client.rest = (client.rest + without_telnet_nul(data)).split(b"\n")
    for line in lines:
        if line in (b"quit", b"quit\r"):
            return False
        broadcast(line)
    return True


server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
while True:
    waiting = [sock for sock, client in clients.items() if client.out]
    readable, writable, _ = select.select([server, *clients], waiting, [])
    for sock in writable:
        try:
            del clients[sock].out[: sock.send(clients[sock].out)]
        except OSError:
            clients[sock].out.clear()
    for sock in readable:
        if sock is server:
            sock, _ = server.accept()
            sock.setblocking(False)
            clients[sock] = Client()
        elif not hear(sock, clients[sock]):
            del clients[sock]
            sock.close()

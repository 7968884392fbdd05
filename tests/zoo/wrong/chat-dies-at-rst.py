# fault: the ConnectionResetError of recv() ends the whole process when a client sends RST
# contract: chat
# caught by: fin-and-rst-leave-too, garbage-brings-nothing-down, a-room-that-empties-keeps-nothing
# cause: … ended in the middle of the play: a client ended with RST (ECONNRESET), and nobody caught it
# lesson: recv() does not only give b"" at the end, it raises ConnectionResetError after RST, and nobody catches it
import selectors
import socket
import sys

sel = selectors.DefaultSelector()
clients = {}


class Client:
    def __init__(self, sock):
        self.sock, self.partial, self.outgoing = sock, b"", bytearray()


def accept(server):
    sock, _ = server.accept()
    sock.setblocking(False)
    clients[sock] = Client(sock)
    sel.register(sock, selectors.EVENT_READ)


def close(sock):
    sel.unregister(sock)
    del clients[sock]
    sock.close()


def broadcast(line):
    line = line.removesuffix(b"\r")
    for client in clients.values() if line else ():
        client.outgoing += line + b"\n"
        sel.modify(client.sock, selectors.EVENT_READ | selectors.EVENT_WRITE)


def receive(sock):
    client = clients[sock]
    data = sock.recv(65536)  # the fault: this raises an exception after RST
    if not data:
        broadcast(client.partial)
        close(sock)
        return
    *lines, client.partial = (client.partial + data).split(b"\n")
    for line in lines:
        if line in (b"quit", b"quit\r"):
            close(sock)
            return
        broadcast(line)


def send(sock):
    outgoing = clients[sock].outgoing
    try:
        del outgoing[: sock.send(outgoing)]
    except OSError:
        outgoing.clear()
    if not outgoing:
        sel.modify(sock, selectors.EVENT_READ)


server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
sel.register(server, selectors.EVENT_READ)
while True:
    for key, events in sel.select():
        if key.fileobj is server:
            accept(server)
        else:
            (send if events & selectors.EVENT_WRITE else receive)(key.fileobj)

# fault: a line goes to all the others, and not to the one who said it
# contract: chat
# caught by: everyone-hears-a-line, nobody-has-to-speak, two-clients-on-one-host
# cause: the sender does not get its own line: it goes to the others only
# lesson: the sender is a member like the others and has to hear its own line, too, so it must not be left out of the loop
import selectors
import socket
import sys

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
sel = selectors.DefaultSelector()
clients = []


class Client:
    def __init__(self, sock):
        self.sock = sock
        self.inbuf = b""
        self.outbuf = bytearray()


def broadcast(sender, line):
    line = line.removesuffix(b"\r")
    for client in clients:
        if line and client is not sender:  # the fault: "it knows what it said"
            client.outbuf += line + b"\n"
            sel.modify(client.sock, READ | WRITE, client)


def leave(client):
    clients.remove(client)
    sel.unregister(client.sock)
    client.sock.close()


def write(client):
    del client.outbuf[: client.sock.send(client.outbuf)]
    if not client.outbuf:
        sel.modify(client.sock, READ, client)


def read(client):
    data = client.sock.recv(65536)
    if not data:
        broadcast(client, client.inbuf)
        leave(client)
        return
    *lines, client.inbuf = (client.inbuf + data).split(b"\n")
    for line in lines:
        if line in (b"quit", b"quit\r"):
            leave(client)
            return
        broadcast(client, line)


server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
sel.register(server, READ)
while True:
    for key, events in sel.select():
        if key.fileobj is server:
            sock, _ = server.accept()
            sock.setblocking(False)
            clients.append(Client(sock))
            sel.register(sock, READ, clients[-1])
            continue
        try:
            (write if events & WRITE else read)(key.data)
        except OSError:
            leave(key.data)

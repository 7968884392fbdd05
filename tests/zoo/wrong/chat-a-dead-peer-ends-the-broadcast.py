# fault: an error of sending to a client that is gone ends the loop over the clients, so those behind it in the list miss the line
# contract: chat
# caught by: quit-leaves, fin-and-rst-leave-too, everyone-hears-a-line
# cause: after somebody left, … was passed by: the list of clients is changed while it is gone through, or one failed send() ends the round
# lesson: the try stands around the whole loop instead of around the one send(), so the first dead client ends it for all behind it
import selectors
import socket
import sys

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
selector = selectors.DefaultSelector()
clients = []


class Client:
    def __init__(self, sock):
        self.sock, self.rest, self.pending = sock, b"", bytearray()


def send_pending(client):
    try:
        del client.pending[: client.sock.send(client.pending)]
    except BlockingIOError:
        pass  # when there is room again
    selector.modify(client.sock, READ | WRITE if client.pending else READ, client)


def broadcast(line):
    try:
        for client in clients if line else []:
            client.pending += line + b"\n"
            send_pending(client)
    except OSError:
        clients.remove(client)  # the fault: it is removed, and the loop is over


def hang_up(client):
    # It leaves the list as soon as a line cannot be sent to it.
    selector.unregister(client.sock)
    client.sock.close()


def receive(client):
    data = client.sock.recv(65536)
    *lines, client.rest = (client.rest + data).split(b"\n")
    for line in lines:
        if line in (b"quit", b"quit\r"):
            return False
        broadcast(line.removesuffix(b"\r"))
    if not data:
        broadcast(client.rest)
    return bool(data)


server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=100)
selector.register(server, READ)
while True:
    for key, events in selector.select():
        if key.fileobj is server:
            sock, address = server.accept()
            sock.setblocking(False)
            clients.append(Client(sock))
            selector.register(sock, READ, clients[-1])
        elif events & READ:
            try:
                if not receive(key.data):
                    hang_up(key.data)
            except OSError:
                hang_up(key.data)
        else:
            send_pending(key.data)

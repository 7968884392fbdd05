# fault: a client that is gone is still sent to, and the BrokenPipeError (or ConnectionResetError) of that send() ends the whole process
# contract: chat
# caught by: fin-and-rst-leave-too
# cause: … ended in the middle of the play: it sent to a client that was gone (EPIPE), and nobody caught it
# lesson: whoever has gone is still in the list when you send, and send() to it raises an exception that nobody catches
import selectors
import socket
import sys

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class ChatServer:
    def __init__(self, host, port):
        self.selector = selectors.DefaultSelector()
        self.incoming = {}  # socket: the line it has begun
        self.outgoing = {}  # socket: what it is still to be sent
        self.selector.register(socket.create_server((host, port), backlog=128), READ, self.accept)

    def run(self):
        while True:
            for key, events in self.selector.select():
                key.data(key.fileobj, events)

    def accept(self, server, events):
        sock, _ = server.accept()
        sock.setblocking(False)
        self.incoming[sock], self.outgoing[sock] = b"", b""
        self.selector.register(sock, READ, self.serve)

    def serve(self, sock, events):
        if events & WRITE:
            self.send(sock)
        if events & READ:
            try:
                data = sock.recv(65536)
            except ConnectionResetError:
                data = self.incoming[sock] = b""
            self.hear(sock, data)

    def hear(self, sock, data):
        if not data:
            self.broadcast(self.incoming.pop(sock))
            self.selector.unregister(sock)  # it has no more to say
            return
        *lines, self.incoming[sock] = (self.incoming[sock] + data).split(b"\n")
        for line in lines:
            if line in (b"quit", b"quit\r"):
                self.selector.unregister(sock)
                del self.incoming[sock], self.outgoing[sock]
                sock.close()
                return
            self.broadcast(line)

    def broadcast(self, line):
        if line := line.removesuffix(b"\r"):
            for sock in self.outgoing:
                self.outgoing[sock] += line + b"\n"
                self.send(sock)

    def send(self, sock):
        try:
            sent = sock.send(self.outgoing[sock])  # the fault: BrokenPipeError, if this one is gone
        except BlockingIOError:
            sent = 0
        self.outgoing[sock] = self.outgoing[sock][sent:]
        if sock in self.incoming:
            self.selector.modify(sock, READ | (WRITE if self.outgoing[sock] else 0), self.serve)


ChatServer(sys.argv[1], int(sys.argv[2])).run()

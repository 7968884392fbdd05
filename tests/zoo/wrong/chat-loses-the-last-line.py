# fault: a last line without a newline before FIN is dropped
# contract: chat
# caught by: the-last-line-needs-no-newline
# cause: what … said last, without a newline before its FIN, was lost: at the end of a connection the rest of the buffer is a line
# lesson: when recv() gives b"" there may be text in the buffer that has no newline yet; that was said, too, and has to be delivered
import selectors
import socket
import sys

selector = selectors.DefaultSelector()
connections = {}  # socket: its Connection


class Connection:
    def __init__(self, sock):
        self.sock, self.input, self.output = sock, b"", b""
        connections[sock] = self
        selector.register(sock, selectors.EVENT_READ, self)

    def close(self):
        del connections[self.sock]
        selector.unregister(self.sock)
        self.sock.close()

    def write(self, data):
        self.output += data
        selector.modify(self.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def on_writable(self):
        sent = self.sock.send(self.output)
        self.output = self.output[sent:]
        if not self.output:
            selector.modify(self.sock, selectors.EVENT_READ, self)

    def on_readable(self):
        data = self.sock.recv(65536)
        if not data:
            self.close()  # the fault: and self.input with it
            return
        self.input += data
        while b"\n" in self.input:
            line, _, self.input = self.input.partition(b"\n")
            line = line.removesuffix(b"\r")
            if line == b"quit":
                self.close()
                return
            if line:
                for connection in connections.values():
                    connection.write(line + b"\n")


def main():
    server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
    selector.register(server, selectors.EVENT_READ)
    while True:
        for key, events in selector.select():
            if key.data is None:
                sock, _ = server.accept()
                sock.setblocking(False)
                Connection(sock)
                continue
            try:
                if events & selectors.EVENT_WRITE:
                    key.data.on_writable()
                if events & selectors.EVENT_READ:
                    key.data.on_readable()
            except OSError:
                key.data.close()


main()

# fault: quit takes a client out of the list, but its connection is not closed
# contract: chat
# caught by: quit-leaves, everyone-hears-a-line, carriage-returns-and-empty-lines
# cause: … said quit, and the server does not close its connection
# lesson: leaving is two things: out of the list, and close() of the socket; without close() the other side waits for an end that never comes
import queue
import socket
import sys
import threading

clients = []
lock = threading.Lock()


class Client:
    def __init__(self, conn):
        self.conn = conn
        self.outgoing = queue.Queue()

    def write(self):
        try:
            while (line := self.outgoing.get()) is not None:
                self.conn.sendall(line)
        except OSError:
            pass

    def lines(self):
        rest = b""
        while data := self.conn.recv(65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line in (b"quit", b"quit\r"):
                    self.leave()
                    while self.conn.recv(65536):
                        pass  # the fault: what it says is ignored, but we wait here until it closes
                    return
                yield line.removesuffix(b"\r")
        yield rest

    def run(self):
        with lock:
            clients.append(self)
        threading.Thread(target=self.write, daemon=True).start()
        try:
            for line in self.lines():
                with lock:
                    for client in clients if line else ():
                        client.outgoing.put(line + b"\n")
            self.conn.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.leave()
        self.conn.close()

    def leave(self):
        with lock:
            if self in clients:
                clients.remove(self)
        self.outgoing.put(None)


server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
while True:
    client = Client(server.accept()[0])
    threading.Thread(target=client.run, daemon=True).start()

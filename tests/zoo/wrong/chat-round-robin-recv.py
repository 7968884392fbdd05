# fault: one thread asks the clients in turn with a blocking recv(), so nobody is heard until the one whose turn it is has spoken
# contract: chat
# caught by: two-clients-on-one-host, quit-leaves, the-half-typed-line-blocks-nobody
# cause: the server waits in recv() for …, who is silent, and does not serve … meanwhile
# lesson: recv() on a blocking socket waits for that one client, and all who come behind it in the list wait with it
import queue
import socket
import sys
import threading
import time

clients = []


class Client:
    def __init__(self, conn):
        self.conn, self.buffer, self.outbox = conn, b"", queue.Queue()
        threading.Thread(target=self.send_all, daemon=True).start()

    def send_all(self):
        try:
            while (line := self.outbox.get()) is not None:
                self.conn.sendall(line)
        except OSError:
            pass  # the main loop finds out, too

    def hang_up(self):
        self.outbox.put(None)
        try:
            self.conn.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.conn.close()

    def read_lines(self):
        """The lines that have come, and whether the client has left."""
        try:
            data = self.conn.recv(65536)  # the fault: this one may have nothing to say
        except OSError:
            return [], True
        if not data:
            return [self.buffer], True
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        lines = [line.removesuffix(b"\r") for line in lines] + [b"quit"]
        said = lines[: lines.index(b"quit")]
        return said, len(said) < len(lines) - 1


def accept_all(server):
    while True:
        conn, _ = server.accept()
        clients.append(Client(conn))


def main():
    server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
    threading.Thread(target=accept_all, args=(server,), daemon=True).start()
    while True:
        for client in list(clients):
            lines, left = client.read_lines()
            for line in filter(None, lines):
                for each in clients:
                    each.outbox.put(line + b"\n")
            if left:
                clients.remove(client)
                client.hang_up()
        if not clients:
            time.sleep(0.01)


main()

# fault: it waits with readline() for the rest of an unfinished line, and nobody else is served meanwhile
# contract: chat
# caught by: the-half-typed-line-blocks-nobody
# cause: the server waits for the end of …'s unfinished line (readline()), and everyone waits with it
# lesson: select() says that something has come, not that a whole line has; readline() waits for the newline, and the only thread with it
import select
import socket
import sys

MSG_DONTWAIT = socket.MSG_DONTWAIT


class Client:
    def __init__(self, sock):
        self.sock = sock
        # Without a buffer, or select() would not see the lines that wait in it.
        self.file = sock.makefile("rb", buffering=0)
        self.pending = b""

    def fileno(self):
        return self.sock.fileno()

    def send_pending(self):
        try:
            sent = self.sock.send(self.pending, MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = len(self.pending)  # it has left, and readline() will tell
        self.pending = self.pending[sent:]

    def close(self):
        self.file.close()
        self.sock.close()


def main(host, port):
    server = socket.create_server((host, port), backlog=128)
    clients = []
    while True:
        waiting = [client for client in clients if client.pending]
        readable, writable, _ = select.select([server, *clients], waiting, [])
        for client in writable:
            client.send_pending()
        for ready in readable:
            if ready is server:
                clients.append(Client(server.accept()[0]))
                continue
            try:
                line = ready.file.readline()  # the fault: if it is only half a line, we wait here
            except OSError:
                line = b""
            if line in (b"", b"quit\n", b"quit\r\n"):
                clients.remove(ready)
                ready.close()
                continue
            text = line.removesuffix(b"\n").removesuffix(b"\r")
            for client in clients if text else []:
                client.pending += text + b"\n"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

# fault: only the last two who came hear anything
# contract: chat
# caught by: a-full-room, everyone-hears-a-line, quit-leaves
# cause: only the newest clients hear: an older one's socket is overwritten by a newcomer's
# lesson: your list has two places and a third client pushes the first one out; every client that has joined is owed every line
import collections
import queue
import socket
import sys
import threading

talkers = collections.deque(maxlen=2)  # the fault: a chat is not only for two
lock = threading.Lock()


class Talker(threading.Thread):
    def __init__(self, conn):
        super().__init__(daemon=True)
        self.conn = conn
        self.outbox = queue.SimpleQueue()
        self.writer = threading.Thread(target=self.write, daemon=True)

    def run(self):
        self.writer.start()
        try:
            self.listen()
            self.conn.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        with lock:
            if self in talkers:
                talkers.remove(self)
        self.outbox.put(None)
        self.conn.close()

    def listen(self):
        rest = b""
        while data := self.conn.recv(65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line in (b"quit", b"quit\r"):
                    return
                self.say(line.removesuffix(b"\r"))
        self.say(rest)

    def say(self, line):
        if line:
            with lock:
                for talker in talkers:
                    talker.outbox.put(line + b"\n")

    def write(self):
        try:
            while line := self.outbox.get():
                self.conn.sendall(line)
        except OSError:
            pass


if __name__ == "__main__":
    server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
    while True:
        conn, _ = server.accept()
        talker = Talker(conn)
        with lock:
            talkers.append(talker)
        talker.start()

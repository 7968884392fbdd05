# fault: lines that came in one segment with quit, behind it, are still delivered
# contract: chat
# caught by: what-comes-behind-quit-is-ignored
# cause: what … said behind quit was delivered: the rest of the segment is still worked off
# lesson: after quit you go on through the lines that are in your hands already; quit ends the client at that line, so break there
import queue
import socket
import sys
import threading


class Chat:
    def __init__(self):
        self.lock = threading.Lock()
        self.queues = {}

    def join(self, sock):
        with self.lock:
            self.queues[sock] = queue.Queue()
        return self.queues[sock]

    def leave(self, sock):
        with self.lock:
            self.queues.pop(sock).put(None)

    def say(self, line):
        line = line.removesuffix(b"\r")
        with self.lock:
            for each in self.queues.values() if line else ():
                each.put(line + b"\n")


def write_loop(sock, lines):
    try:
        while (line := lines.get()) is not None:
            sock.sendall(line)
    except OSError:
        pass


def read_loop(sock, chat):
    buffer = b""
    leaving = False
    while not leaving:
        data = sock.recv(65536)
        if not data:
            chat.say(buffer)
            break
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            if line in (b"quit", b"quit\r"):
                leaving = True
            else:
                chat.say(line)  # the fault: even if it is leaving


def serve(sock, chat):
    lines = chat.join(sock)
    threading.Thread(target=write_loop, args=(sock, lines), daemon=True).start()
    try:
        read_loop(sock, chat)
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    chat.leave(sock)
    sock.close()


listener, the_chat = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128), Chat()
while True:
    threading.Thread(target=serve, args=(listener.accept()[0], the_chat), daemon=True).start()

# fault: a line that has "quit" anywhere in it ends its sender's connection
# contract: chat
# caught by: only-the-line-quit-is-quit
# cause: … was thrown out for a line in which quit only occurs
# lesson: the command is the whole line quit, but "in" looks for these four letters anywhere in the line
import queue
import socketserver
import sys
import threading

members = set()
lock = threading.Lock()


class Member(socketserver.StreamRequestHandler):
    def setup(self):
        super().setup()
        self.lines = queue.SimpleQueue()
        threading.Thread(target=self.write, daemon=True).start()
        with lock:
            members.add(self)

    def handle(self):
        try:
            while line := self.rfile.readline():
                line, newline, _ = line.partition(b"\n")
                if b"quit" in line and newline:  # the fault: it is in "I will not quit", too
                    return
                if line := line.removesuffix(b"\r"):
                    self.broadcast(line + b"\n")
        except OSError as error:
            print(self.client_address, error)

    def broadcast(self, line):
        with lock:
            for member in members:
                member.lines.put(line)

    def write(self):
        while line := self.lines.get():
            try:
                self.request.sendall(line)
            except OSError:
                return

    def finish(self):
        with lock:
            members.remove(self)
        self.lines.put(b"")
        super().finish()


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 128


host, port = sys.argv[1:3]
Server((host, int(port)), Member).serve_forever()

# fault: an empty line ends its sender's connection
# contract: chat
# caught by: carriage-returns-and-empty-lines
# cause: … was thrown out for an empty line: the end of a connection is recv() giving b"", not an empty line
# lesson: readline() gives b"" at the end and b"\n" for an empty line; after strip() you cannot tell the two apart
import queue
import socketserver
import sys
import threading

outboxes = set()
guard = threading.Lock()


def post(line):
    with guard:
        for outbox in outboxes:
            outbox.put(line + b"\n")


class ChatHandler(socketserver.StreamRequestHandler):
    def handle(self):
        outbox = queue.Queue()
        threading.Thread(target=self.send_from, args=(outbox,), daemon=True).start()
        with guard:
            outboxes.add(outbox)
        try:
            self.read_lines()
        except OSError:
            pass
        with guard:
            outboxes.remove(outbox)
        outbox.put(None)

    def read_lines(self):
        while True:
            raw = self.rfile.readline()
            line = raw.removesuffix(b"\n").removesuffix(b"\r")
            if not line:  # the fault: it may have pressed the return key, no more
                break
            if line == b"quit" and raw != b"quit":
                break
            post(line)

    def send_from(self, outbox):
        try:
            while (line := outbox.get()) is not None:
                self.request.sendall(line)
        except OSError:
            pass


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128


if __name__ == "__main__":
    host, port = sys.argv[1], int(sys.argv[2])
    with Server((host, port), ChatHandler) as server:
        print("listening on", host, port)
        server.serve_forever()

# fault: of a line it keeps the first 1024 bytes only
# contract: chat
# caught by: a-line-of-64-kib, long-lines-never-interleave
# cause: of a line of … bytes only the first … were delivered: a buffer's size is taken for the longest line
# lesson: a line may have up to 64 KiB and is delivered whole, but you cut it at the size that you had in mind
import queue
import socketserver
import sys
import threading

MAX_LINE = 1024
lock = threading.Lock()
queues = []


def writer(sock, messages):
    for message in iter(messages.get, None):
        try:
            sock.sendall(message)
        except OSError:
            break


def broadcast(line):
    with lock:
        for each in queues:
            each.put(line[:MAX_LINE] + b"\n")  # the fault: the rest of a longer line is lost


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        messages = queue.Queue()
        threading.Thread(target=writer, args=(self.request, messages), daemon=True).start()
        with lock:
            queues.append(messages)
        try:
            self.converse()
        except ConnectionError:
            pass
        finally:
            with lock:
                queues.remove(messages)
            messages.put(None)

    def converse(self):
        for line in self.rfile:
            if line in (b"quit\n", b"quit\r\n"):
                return
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            if line:
                broadcast(line)


socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer.request_queue_size = 128
socketserver.ThreadingTCPServer.daemon_threads = True
with socketserver.ThreadingTCPServer((sys.argv[1], int(sys.argv[2])), Handler) as server:
    server.serve_forever()

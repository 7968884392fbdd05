# fault: a client is a member only after its first line
# contract: chat
# caught by: nobody-has-to-speak, everyone-hears-a-line, nothing-from-before
# cause: … has not said anything yet and hears nothing: a member is who is connected, not who has spoken
# lesson: a client is added to the list where its lines are handled, so one who only listens never gets there; add it where it is accepted
import queue
import socketserver
import sys
import threading

room = {}  # handler: its outbox
room_lock = threading.Lock()


class ChatHandler(socketserver.StreamRequestHandler):
    def setup(self):
        super().setup()
        self.outbox = queue.Queue()
        threading.Thread(target=self.deliver, daemon=True).start()

    def deliver(self):
        try:
            while (line := self.outbox.get()) is not None:
                self.request.sendall(line)
        except OSError:
            pass  # handle() comes to its end as well

    def handle(self):
        try:
            for line in self.rfile:
                if line in (b"quit\n", b"quit\r\n"):
                    break
                line = line.removesuffix(b"\n").removesuffix(b"\r")
                if not line:
                    continue
                with room_lock:
                    room[self] = self.outbox  # the fault: it has joined only now
                    for outbox in room.values():
                        outbox.put(line + b"\n")
        except ConnectionError:
            pass

    def finish(self):
        with room_lock:
            room.pop(self, None)
        self.outbox.put(None)
        super().finish()


class ChatServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    with ChatServer((sys.argv[1], int(sys.argv[2])), ChatHandler) as server:
        server.serve_forever()

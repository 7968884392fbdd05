# fault: it takes blanks and line ends off both ends of what it received, before it sends that back
# contract: echo
# caught by: what-is-sent-comes-back, one-byte-at-a-time
# cause: strip() takes white space away from what was sent
# lesson: strip() takes away white space that belongs to what was sent: an echo changes nothing
import socketserver
import sys


class EchoHandler(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            while True:
                data = self.request.recv(4096)
                if not data:
                    break
                data = data.strip()  # the fault: "the newline is only from the Enter key"
                self.request.sendall(data)
        except ConnectionError as error:
            print(self.client_address, error)


class EchoServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    with EchoServer((sys.argv[1], int(sys.argv[2])), EchoHandler) as server:
        server.serve_forever()

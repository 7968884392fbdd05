# fault: of what one recv() gives only the first 1024 bytes are sent back
# contract: echo
# caught by: a-megabyte-comes-back, half-close-gets-the-rest
# cause: only the first … of what recv() gave are sent back
# lesson: it receives up to 65536 bytes at once and sends back only the first 1024 of them
import socketserver
import sys

BUFFER_SIZE = 1024


class MyTCPHandler(socketserver.BaseRequestHandler):
    def handle(self):
        while True:
            try:
                self.data = self.request.recv(65536)
                if not self.data:
                    break
                self.request.sendall(self.data[:BUFFER_SIZE])  # the fault: there may be more
            except OSError:
                break


class MyTCPServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 128
    daemon_threads = True


with MyTCPServer((sys.argv[1], int(sys.argv[2])), MyTCPHandler) as server:
    server.serve_forever()

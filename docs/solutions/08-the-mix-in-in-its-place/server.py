"""An echo server that serves every client at once, by socketserver.ForkingMixIn.

python3 server.py HOST PORT       judged by: socklab check echo -- python3 server.py {host} {port}
"""

import socketserver
import sys


class EchoHandler(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            while data := self.request.recv(65536):
                self.request.sendall(data)
        except ConnectionError:
            pass


class EchoServer(socketserver.ForkingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    request_queue_size = 128
    max_children = 1000


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    with EchoServer((host, port), EchoHandler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()

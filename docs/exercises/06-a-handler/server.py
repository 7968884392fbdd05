"""An echo server by socketserver, as it is often seen in examples.

python3 server.py HOST PORT       judged by: socklab check echo --iterative -- python3 server.py {host} {port}

It answers once, and ends after its first client. Fill in the three gaps; one client at a time is enough here.
"""

import socketserver
import sys


class EchoHandler(socketserver.BaseRequestHandler):
    def handle(self):
        # TODO 1: this is one recv() and one answer, and then the library closes the connection. A conversation lasts until
        #         the client has said FIN (lesson 4); and a client that ends with RST (ConnectionError) is no error of ours.
        data = self.request.recv(65536)
        self.request.sendall(data)


class EchoServer(socketserver.TCPServer):
    allow_reuse_address = True
    # TODO 3: of ten clients that come at once the last few cannot even connect. Which attribute is listen()'s argument?


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    with EchoServer((host, port), EchoHandler) as server:
        # TODO 2: this serves one client. A server goes on.
        server.handle_request()


if __name__ == "__main__":
    main()

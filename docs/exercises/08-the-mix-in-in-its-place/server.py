"""An echo server that is to serve every client at once, by socketserver.ForkingMixIn.

python3 server.py HOST PORT       judged by: socklab check echo -- python3 server.py {host} {port}

The mix-in is there, and nothing forks. Fill in the three gaps, one after the other, and let check judge in between.
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


# TODO 1: whose process_request() is called? EchoServer.__mro__ says who is asked first.
class EchoServer(socketserver.TCPServer, socketserver.ForkingMixIn):
    allow_reuse_address = True
    request_queue_size = 128
    # TODO 3: of fifty clients the last ten are not served. Which attribute of the mix-in says so?


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    with EchoServer((host, port), EchoHandler) as server:
        # TODO 2: nobody asks how the children ended. The mix-in does so in service_actions(): who calls that?
        while True:
            server.handle_request()


if __name__ == "__main__":
    main()

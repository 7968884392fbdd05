# fault: it takes the line end off before it sends a datagram back
# contract: udp-echo
# caught by: empty-and-huge-ones-too
# cause: strip() takes white space away from what was sent
# lesson: a datagram is bytes, and an echo sends back all of them, the line end at its end too
import socket
import socketserver
import sys


class EchoHandler(socketserver.BaseRequestHandler):
    def handle(self):
        data, sock = self.request
        message = data.rstrip(b"\r\n")  # the fault: these two bytes were sent, too
        sock.sendto(message, self.client_address)


class EchoServer(socketserver.UDPServer):
    address_family = socket.AF_INET
    max_packet_size = 65535


if __name__ == "__main__":
    with EchoServer((sys.argv[1], int(sys.argv[2])), EchoHandler) as server:
        server.serve_forever()

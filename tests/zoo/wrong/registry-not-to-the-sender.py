# fault: it delivers to everybody but the one who said it
# contract: registry
# caught by: all-hear-it-the-sender-too, nobody-is-there-until-it-says-so
# cause: what is said goes to every member but its sender: the sender is one of them, too
# lesson: what is said goes to every registered address, and the sender's is one of them; leave nobody out of the loop
import socketserver
import sys

registered = set()


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        data, _ = self.request
        me = self.client_address
        match data.strip(b" \t\r\n"):
            case b"#REG":
                registered.add(me)
                self.send(b"registered", me)
            case b"#DEREG":
                registered.discard(me)
                self.send(b"deregistered", me)
            case _ if me in registered:
                for other in registered:
                    if other != me:  # the fault: the sender is owed it, too
                        self.send(data, other)

    def send(self, data, address):
        try:
            self.request[1].sendto(data, address)
        except OSError as error:
            print(f"{address}: {error}", file=sys.stderr)


socketserver.UDPServer.max_packet_size = 65535
with socketserver.UDPServer((sys.argv[1], int(sys.argv[2])), Handler) as server:
    server.serve_forever()

# fault: it listens on port 9999, whatever port it is told
# contract: echo
# caught by: start
# cause: its port is written into the program: it does not take the one that it is told
# lesson: its port is written into the program: take the one that it is told
import socketserver


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            while data := self.request.recv(4096):
                self.request.sendall(data)
        except OSError as error:
            print(self.client_address, error)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    HOST, PORT = "0.0.0.0", 9999  # the fault: sys.argv is not looked at
    with Server((HOST, PORT), Handler) as server:
        server.serve_forever()

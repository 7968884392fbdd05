# fault: nothing comes back before the client has sent a newline
# contract: echo
# caught by: one-byte-at-a-time, what-is-sent-comes-back
# cause: it waits for a newline (readline()) where bytes are to come back as they are
# lesson: it waits for a newline: readline() gives nothing until a line is whole, and an echo has no lines, only bytes
import socketserver
import sys


class LineEcho(socketserver.StreamRequestHandler):
    def handle(self):
        try:
            while True:
                line = self.rfile.readline()  # the fault: returns at "\n" or at the end
                if not line:
                    return
                self.wfile.write(line)
        except OSError as error:
            print("Client", self.client_address, "has gone:", error)


class ThreadedServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    HOST, PORT = sys.argv[1], int(sys.argv[2])
    server = ThreadedServer((HOST, PORT), LineEcho)
    server.serve_forever()

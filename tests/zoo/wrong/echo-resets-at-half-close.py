# fault: when the client half-closes, the server ends the connection with RST instead of FIN
# contract: echo
# caught by: half-close-gets-the-rest, nothing-is-left-of-whoever-left
# cause: … half-closed and got RST: the server closed with data unread or unsent (SO_LINGER …?)
# lesson: with SO_LINGER 0 close() throws away what is not sent yet and says RST: leave it out, and close() sends the rest and FIN
import socket
import struct
import sys
import threading

NO_TIME_WAIT = struct.pack("ii", 1, 0)


class ClientThread(threading.Thread):
    def __init__(self, conn):
        super().__init__(daemon=True)
        self.conn = conn

    def run(self):
        try:
            while data := self.conn.recv(65536):
                self.conn.sendall(data)
            # the fault: so that no connections in TIME_WAIT are left
            self.conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_TIME_WAIT)
        except OSError as error:
            print("client gone:", error)
        finally:
            self.conn.close()


def main(host, port):
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((host, port))
    server.listen(128)
    while True:
        conn, _ = server.accept()
        ClientThread(conn).start()


main(sys.argv[1], int(sys.argv[2]))

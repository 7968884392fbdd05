# fault: a second thread for each client goes on for ever after the client has left
# contract: echo
# caught by: nothing-is-left-of-whoever-left
# cause: a thread does not end when its client leaves: … threads more after … clients came and went
# lesson: the reporting thread runs in an endless loop, and nobody tells it that its client has left
import socket
import sys
import threading
import time


class Client:
    def __init__(self, conn, address):
        self.conn, self.address = conn, address
        self.count = 0
        threading.Thread(target=self.echo, daemon=True).start()
        threading.Thread(target=self.report, daemon=True).start()

    def echo(self):
        try:
            while data := self.conn.recv(16384):
                self.conn.sendall(data)
                self.count += len(data)
        except OSError:
            pass
        self.conn.close()

    def report(self):
        while True:  # the fault: it should end with echo()
            time.sleep(60)
            print(self.address, "has sent", self.count, "bytes so far")


server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
while True:
    Client(*server.accept())

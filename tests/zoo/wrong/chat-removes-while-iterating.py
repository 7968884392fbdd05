# fault: it removes those who left from the list while it goes through that list, so the next one in it misses the line
# contract: chat
# caught by: quit-leaves, everyone-hears-a-line, fin-and-rst-leave-too
# cause: after somebody left, … was passed by: the list of clients is changed while it is gone through, or one failed send() ends the round
# lesson: remove() moves the rest of the list one place forward under the loop that is going through it, and the loop skips one
import select
import socket
import sys


class User:
    def __init__(self, sock):
        self.sock, self.gone = sock, False
        self.received, self.to_send = b"", bytearray()

    def fileno(self):
        return self.sock.fileno()

    def leave(self):
        self.gone = True
        self.sock.close()


def send_to_all(users, line):
    if not line:
        return
    for user in users:
        if user.gone:
            users.remove(user)  # the fault: the list becomes shorter under the loop
        else:
            user.to_send += line + b"\n"


def handle(user, users):
    data = user.sock.recv(65536)
    *lines, user.received = (user.received + data).split(b"\n")
    for line in lines:
        if line.removesuffix(b"\r") == b"quit":
            user.leave()
            return
        send_to_all(users, line.removesuffix(b"\r"))
    if not data:
        send_to_all(users, user.received)
        user.leave()


def main(host, port):
    server = socket.create_server((host, int(port)), backlog=64)
    users = []
    while True:
        here = [user for user in users if not user.gone]
        readable, writable, _ = select.select([server, *here], [user for user in here if user.to_send], [])
        for user in writable:
            try:
                del user.to_send[: user.sock.send(user.to_send)]
            except OSError:
                user.to_send.clear()  # recv() will fail, too
        for each in readable:
            if each is server:
                sock, _ = server.accept()
                sock.setblocking(False)
                users.append(User(sock))
                continue
            try:
                handle(each, users)
            except OSError:
                each.leave()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

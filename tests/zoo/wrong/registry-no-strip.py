# fault: it does not know a command with white space around it, like the "#REG\n" of nc -u
# contract: registry
# caught by: white-space-around-is-ignored, commands-are-not-delivered
# cause: "…" is not taken for a command: white space around it does not count
# lesson: "#REG\n" is not == "#REG": take the white space around off before you compare
import socket
import sys

REGISTER, DEREGISTER = b"#REG", b"#DEREG"
peers = set()


def reply(sock, data, peer):
    try:
        sock.sendto(data, peer)
    except OSError:
        pass  # lost for this one


def handle(sock, data, peer):
    if data == REGISTER:  # the fault: a newline or a blank beside it, and it is another text
        peers.add(peer)
        reply(sock, b"registered", peer)
    elif data == DEREGISTER:
        peers.discard(peer)
        reply(sock, b"deregistered", peer)
    elif peer in peers:
        for each in peers:
            reply(sock, data, each)


server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], int(sys.argv[2])))
while True:
    handle(server, *server.recvfrom(65535))

# fault: it takes whatever begins with #REG or #DEREG for the command
# contract: registry
# caught by: only-the-exact-commands
# cause: "…" is taken for a command, and is a text: only the exact command is one
# lesson: startswith() is also true of #REGISTER, which is a text; a command is the whole datagram, so compare with ==
import socket
import sys


def send(sock, data, address):
    try:
        sock.sendto(data, address)
    except OSError as error:
        print(f"{address}: {error}", file=sys.stderr)


def serve(sock):
    members = set()
    while True:
        data, sender = sock.recvfrom(65535)
        text = data.strip(b" \t\r\n")
        if text.startswith(b"#REG"):  # the fault: #REGISTER begins like this, too
            members.add(sender)
            send(sock, b"registered", sender)
        elif text.startswith(b"#DEREG"):
            members.discard(sender)
            send(sock, b"deregistered", sender)
        elif sender in members:
            for member in members:
                send(sock, data, member)


with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind((sys.argv[1], int(sys.argv[2])))
    serve(sock)

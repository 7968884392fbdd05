# fault: it delivers what comes from an address that has not registered
# contract: registry
# caught by: a-strangers-words-go-nowhere
# cause: … has not registered, and what it says is delivered: before anything is delivered, its sender is looked up
# lesson: anybody can send a datagram to an open port, so before you deliver ask whether its sender is registered
import socket
import sys


def send(sock, data, address):
    try:
        sock.sendto(data, address)
    except OSError as error:
        print(f"{address}: {error}", file=sys.stderr)


def serve(sock):
    members = {}  # address: how many messages it has sent
    while True:
        data, sender = sock.recvfrom(65535)
        command = data.strip(b" \t\r\n")
        if command == b"#REG":
            members.setdefault(sender, 0)
            send(sock, b"welcome", sender)
        elif command == b"#DEREG":
            members.pop(sender, None)
            send(sock, b"goodbye", sender)
        else:  # the fault: nobody asks who it comes from
            if sender in members:
                members[sender] += 1
            for member in members:
                send(sock, data, member)


with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind((sys.argv[1], int(sys.argv[2])))
    serve(sock)

# fault: it puts the sender's address in front of everything it delivers
# contract: registry
# caught by: all-hear-it-the-sender-too, nothing-that-arrives-brings-it-down
# cause: it puts "…" before what was sent: a datagram is delivered unchanged
# lesson: a datagram is delivered unchanged; with something in front it is another one, and the largest no longer fits
import socket
import sys

clients = set()
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], int(sys.argv[2])))


def send(data, address):
    try:
        sock.sendto(data, address)
    except OSError as error:
        print(f"to {address}: {error}", file=sys.stderr)


def broadcast(data, sender):
    name = f"{sender[0]}:{sender[1]}"
    for client in clients:
        send(f"[{name}] ".encode() + data, client)  # the fault: data alone was said


while True:
    data, address = sock.recvfrom(65535)
    command = data.strip(b" \t\r\n")
    if command == b"#REG":
        clients.add(address)
        send(b"registered", address)
    elif command == b"#DEREG":
        clients.discard(address)
        send(b"deregistered", address)
    elif address in clients:
        broadcast(data, address)

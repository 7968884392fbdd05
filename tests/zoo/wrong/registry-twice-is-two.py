# fault: who registers twice stands in the list twice and gets everything twice
# contract: registry
# caught by: twice-is-once
# cause: … is registered more than once: a second #REG adds it again (a list where a set is wanted)
# lesson: append() does not ask whether the address is there already; keep a set, for a client may say #REG again when an answer was lost
import socket
import sys

sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], int(sys.argv[2])))
clients = []


def send(message, client):
    try:
        sock.sendto(message, client)
    except OSError as error:
        print(f"{client}: {error}", file=sys.stderr)


while True:
    message, client = sock.recvfrom(65535)
    command = message.strip(b" \t\r\n")
    if command == b"#REG":
        clients.append(client)  # the fault: it may be in it already
        send(b"registered, %d in the list" % len(clients), client)
    elif command == b"#DEREG":
        if client in clients:
            clients.remove(client)
        send(b"deregistered", client)
    elif client in clients:
        for each in clients:
            send(message, each)

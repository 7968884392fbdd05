# fault: it reads at most 1024 bytes of a datagram, so of a longer one only the beginning is delivered
# contract: registry
# caught by: nothing-that-arrives-brings-it-down
# cause: of a datagram of … bytes … came: recvfrom(…) throws the rest away
# lesson: recvfrom(n) throws away what does not fit into n bytes, so give it room for the largest datagram there is
import socket
import sys

HOST, PORT = sys.argv[1], int(sys.argv[2])

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((HOST, PORT))
users = set()


def send_to(user, data):
    try:
        server.sendto(data, user)
    except OSError as error:
        print("could not send to", user, error, file=sys.stderr)


while True:
    data, user = server.recvfrom(1024)  # the fault: the rest of a longer one is gone
    command = data.strip(b" \t\r\n")
    if command == b"#REG":
        users.add(user)
        send_to(user, b"You are registered.")
    elif command == b"#DEREG":
        users.discard(user)
        send_to(user, b"You are no longer registered.")
    elif user in users:
        for each in users:
            send_to(each, data)

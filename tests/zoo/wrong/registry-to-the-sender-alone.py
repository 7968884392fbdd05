# fault: what a member says goes to its sender alone
# contract: registry
# caught by: nobody-is-there-until-it-says-so
# cause: what a member says comes back to it alone: it is delivered to every member, the sender too
# lesson: an echo server answers one address; a registry keeps a set of them, and delivers to all
import socket
import sys

clients = set()


def send(sock, data, address):
    try:
        sock.sendto(data, address)
    except OSError as error:
        print(f"{address}: {error}", file=sys.stderr)


def main():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((sys.argv[1], int(sys.argv[2])))
    while True:
        data, address = sock.recvfrom(65535)
        command = data.strip(b" \t\r\n")
        if command == b"#REG":
            clients.add(address)
            data = b"#OK"
        elif command == b"#DEREG":
            clients.discard(address)
            data = b"#OK"
        elif address not in clients:
            continue
        send(sock, data, address)  # the fault: the others hear nothing


main()

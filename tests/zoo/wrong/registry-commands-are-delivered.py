# fault: it passes the commands on to the others like any other datagram
# contract: registry
# caught by: commands-are-not-delivered
# cause: … got …'s "…": a command is between one client and the server, and is not delivered
# lesson: a command is between one client and the server; after you have answered it you are done with it
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
        receivers = set(clients) if address in clients else set()
        command = data.strip(b" \t\r\n")
        if command == b"#REG":
            clients.add(address)
            send(sock, b"#OK", address)
            receivers = clients - {address}  # the fault: these need not hear of it
        elif command == b"#DEREG":
            clients.discard(address)
            send(sock, b"#OK", address)
            receivers = set(clients)
        for each in receivers:
            send(sock, data, each)


main()

# fault: it keeps its clients by IP address alone, so a second one on the same host takes the place of the first
# contract: registry
# caught by: two-clients-on-one-host-are-two
# cause: … and … are on one host, and only … is known: clients are told apart by their IP address alone
# lesson: a client is address and port together, and two programs on one host have the same address
import socket
import sys

clients = {}  # IP address: where to send


def main():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((sys.argv[1], int(sys.argv[2])))
    while True:
        data, address = sock.recvfrom(65535)
        ip, _port = address
        command = data.strip(b" \t\r\n")
        if command == b"#REG":
            clients[ip] = address  # the fault: whoever was registered with this IP is forgotten
            send(sock, b"OK registered", [address])
        elif command == b"#DEREG":
            clients.pop(ip, None)
            send(sock, b"OK deregistered", [address])
        elif ip in clients:
            send(sock, data, clients.values())


def send(sock, data, addresses):
    for address in addresses:
        try:
            sock.sendto(data, address)
        except OSError as error:
            print(address, error, file=sys.stderr)


main()

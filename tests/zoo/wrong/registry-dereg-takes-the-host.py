# fault: #DEREG takes off every client of the sender's host
# contract: registry
# caught by: two-clients-on-one-host-are-two
# cause: when a client of the same host left, … was taken off with it: a client is address and port together
# lesson: a client is address and port together, and you compare the addresses only, so one takes its neighbour along
import socket
import sys

clients = []


def send(sock, data, address):
    try:
        sock.sendto(data, address)
    except OSError as error:
        print(f"{address}: {error}", file=sys.stderr)


def serve(sock):
    global clients
    while True:
        data, address = sock.recvfrom(65535)
        command = data.strip(b" \t\r\n")
        if command == b"#REG":
            if address not in clients:
                clients.append(address)
            send(sock, b"registered", address)
        elif command == b"#DEREG":
            clients = [c for c in clients if c[0] != address[0]]  # the fault: the port counts, too
            send(sock, b"deregistered", address)
        elif address in clients:
            for client in clients:
                send(sock, data, client)


with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind((sys.argv[1], int(sys.argv[2])))
    serve(sock)

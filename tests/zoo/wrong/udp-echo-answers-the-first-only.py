# fault: it keeps the address of its first sender and sends everything there
# contract: udp-echo
# caught by: a-datagram-comes-back, from-another-port
# cause: what … said went to …: the address of the first client is kept for all
# lesson: a UDP socket has no client of its own, so each answer goes to the address that came with that very datagram
import socket
import sys

MAX_DATAGRAM = 65535


def main():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((sys.argv[1], int(sys.argv[2])))
    client = None
    while True:
        data, address = sock.recvfrom(MAX_DATAGRAM)
        if client is None:
            client = address  # the fault: the next datagram may come from somebody else
            print(f"client {client[0]}:{client[1]} is here", file=sys.stderr)
        try:
            sock.sendto(data, client)
        except OSError as error:
            print(f"sendto: {error}", file=sys.stderr)


main()

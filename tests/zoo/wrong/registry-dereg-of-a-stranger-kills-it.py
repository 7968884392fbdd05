# fault: #DEREG of an address that is not registered ends the server with a traceback
# contract: registry
# caught by: a-stranger-may-leave
# cause: … ended in the middle of the play: ValueError: list.remove(x): x not in list
# lesson: list.remove() raises ValueError for what is not in the list, and nobody catches it; look first, or use the discard() of a set
import socket
import sys

MAX_DATAGRAM = 65535


def deliver(sock, data, receivers):
    for receiver in receivers:
        try:
            sock.sendto(data, receiver)
        except OSError as error:
            print(f"to {receiver}: {error}", file=sys.stderr)


def main(host, port):
    registered = []
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, port))
    while True:
        data, address = sock.recvfrom(MAX_DATAGRAM)
        word = data.strip(b" \t\r\n")
        if word == b"#REG":
            if address not in registered:
                registered.append(address)
            deliver(sock, b"you are in", [address])
        elif word == b"#DEREG":
            registered.remove(address)  # the fault: ValueError if it is not in there
            deliver(sock, b"you are out", [address])
        elif address in registered:
            deliver(sock, data, registered)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

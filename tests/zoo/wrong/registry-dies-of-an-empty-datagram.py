# fault: it looks at the first byte of every datagram and dies of one that has none
# contract: registry
# caught by: nothing-that-arrives-brings-it-down
# cause: … ended in the middle of the play: IndexError: index out of range
# lesson: a datagram may be empty, and then data[0] raises IndexError; use startswith(), or compare the whole
import socket
import sys

registered = set()


def send(sock, data, address):
    try:
        sock.sendto(data, address)
    except OSError as error:
        print(f"{address}: {error}", file=sys.stderr)


def is_command(data):
    return data[0] in b"# \t\r\n"  # the fault: there may be no data[0]


def main():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((sys.argv[1], int(sys.argv[2])))
    while True:
        data, address = sock.recvfrom(65535)
        command = data.strip(b" \t\r\n") if is_command(data) else None
        if command == b"#REG":
            registered.add(address)
            send(sock, b"registered", address)
        elif command == b"#DEREG":
            registered.discard(address)
            send(sock, b"deregistered", address)
        elif address in registered:
            for each in registered:
                send(sock, data, each)


main()

# fault: it decodes each datagram as UTF-8 and dies with a traceback of one that is not
# contract: registry
# caught by: nothing-that-arrives-brings-it-down, all-hear-it-the-sender-too
# cause: … ended in the middle of the play: it takes bytes for text: decode() fails at what is no UTF-…
# lesson: decode() raises UnicodeDecodeError on bytes that are no UTF-8, and nobody catches it; compare bytes, b"#REG", and deliver bytes
import socket
import sys

clients = set()


def send(sock, text, address):
    try:
        sock.sendto(text.encode(), address)
    except OSError as error:
        print(f"{address}: {error}", file=sys.stderr)


def main():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((sys.argv[1], int(sys.argv[2])))
    while True:
        data, address = sock.recvfrom(65535)
        text = data.decode("utf-8")  # the fault: anybody may send any bytes
        command = text.strip(" \t\r\n")
        if command == "#REG":
            clients.add(address)
            send(sock, "registered", address)
        elif command == "#DEREG":
            clients.discard(address)
            send(sock, "deregistered", address)
        elif address in clients:
            for client in clients:
                send(sock, text, client)


if __name__ == "__main__":
    main()

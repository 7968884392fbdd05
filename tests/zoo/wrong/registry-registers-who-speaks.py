# fault: any datagram registers its sender
# contract: registry
# caught by: a-strangers-words-go-nowhere, only-the-exact-commands
# cause: … has not registered, and what it says is delivered: before anything is delivered, its sender is looked up
# lesson: only #REG registers; whoever merely sends something has not asked for anything to be delivered
import socket
import sys

peers = set()


def send(sock, data, address):
    try:
        sock.sendto(data, address)
    except OSError as error:
        print(f"{address}: {error}", file=sys.stderr)


def main():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((sys.argv[1], int(sys.argv[2])))
    while True:
        data, peer = sock.recvfrom(65535)
        if peer not in peers:
            print(f"new peer {peer[0]}:{peer[1]}", file=sys.stderr)
            peers.add(peer)  # the fault: it has not said #REG
        command = data.strip(b" \t\r\n")
        if command == b"#REG":
            send(sock, b"registered", peer)
        elif command == b"#DEREG":
            peers.remove(peer)
            send(sock, b"deregistered", peer)
        else:
            for each in peers:
                send(sock, data, each)


main()

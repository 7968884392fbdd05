# fault: it asks for ICMP errors, and takes each for one of the datagram that it is about to send
# contract: registry
# caught by: a-refused-member-costs-the-others-nothing
# cause: what goes to … is refused (ICMP), and … misses what was said: the error of one datagram is raised by the next call, whose own datagram is not sent then
# lesson: an error of a UDP socket is news of an earlier datagram, perhaps to somebody else: send again what was not sent
import socket
import sys

LARGEST = 65535  # no datagram is longer
WHITE_SPACE = b" \t\r\n"  # around a command; a person's `nc -u` sends the newline, too
IP_RECVERR = 11  # from linux/in.h; Python has this name from 3.14 on


def handle(members, data, address):
    """What one datagram does to the members; returns (what to send, to which addresses)."""
    command = data.strip(WHITE_SPACE)
    if command == b"#REG":
        members[address] = True
        return b"registered", [address]
    if command == b"#DEREG":
        members.pop(address, None)
        return b"deregistered", [address]
    return data, list(members) if address in members else []


def report_errors(sock):
    """Take all errors out of the socket's error queue, and say whose datagrams were refused."""
    while True:
        try:
            _, _, _, address = sock.recvmsg(0, 0, socket.MSG_ERRQUEUE)
        except BlockingIOError:
            return
        print(f"refused: what went to {address}", file=sys.stderr)


def send(sock, data, receiver):
    try:
        sock.sendto(data, receiver)
    except OSError:
        report_errors(sock)  # the fault: the error is of an earlier datagram, and this one has not been sent


def serve(sock):
    members = {}
    while True:
        try:
            data, address = sock.recvfrom(LARGEST)
        except OSError:
            report_errors(sock)
            continue
        answer, receivers = handle(members, data, address)
        for receiver in receivers:
            send(sock, answer, receiver)


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        sock.bind((host, port))
        serve(sock)


if __name__ == "__main__":
    main()

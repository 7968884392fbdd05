# fault: it reads at most 1024 bytes of a datagram, and the rest is lost
# contract: udp-echo
# caught by: empty-and-huge-ones-too
# cause: of a datagram of … bytes … came: recvfrom(…) throws the rest away
# lesson: recvfrom(n) throws away what does not fit into n bytes, so give it room for the largest datagram there is
import socket
import sys

BUFFER_SIZE = 1024


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((host, port))
        while True:
            data, address = server.recvfrom(BUFFER_SIZE)  # the fault: a datagram may have 65,507 bytes
            server.sendto(data, address)


if __name__ == "__main__":
    main()

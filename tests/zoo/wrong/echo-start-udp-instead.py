# fault: it opens a UDP socket on its port instead of a TCP one
# contract: echo
# caught by: start
# cause: it opens a UDP socket (SOCK_DGRAM) where a TCP one (SOCK_STREAM) is wanted
# lesson: it opens a UDP socket (SOCK_DGRAM) where a TCP one (SOCK_STREAM) is wanted
import socket
import sys


def main():
    if len(sys.argv) != 3:
        print("usage: PROGRAM HOST PORT")
        return
    host, port = sys.argv[1], int(sys.argv[2])
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # the fault: UDP has no connections
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    print(f"Echo server on {host}:{port}")
    while True:
        data, address = sock.recvfrom(65535)
        try:
            sock.sendto(data, address)
        except OSError as error:
            print(address, error)


if __name__ == "__main__":
    main()

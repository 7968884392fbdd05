# fault: it connects its socket to the first client, and the kernel lets nobody else's datagrams in
# contract: udp-echo
# caught by: from-another-port, a-datagram-comes-back
# cause: the server's host refuses what … sends (ICMP): its socket is closed, or is connected to another client by connect()
# lesson: connect() on a UDP socket makes no connection, it is a filter: only that address is heard from then on (udp(7))
import socket
import sys

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind((sys.argv[1], int(sys.argv[2])))
    data, client = sock.recvfrom(65535)
    sock.connect(client)  # the fault: whoever comes next is refused
    sock.send(data)
    while True:
        sock.send(sock.recv(65535))

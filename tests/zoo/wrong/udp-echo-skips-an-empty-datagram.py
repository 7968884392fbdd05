# fault: it does not answer an empty datagram
# contract: udp-echo
# caught by: empty-and-huge-ones-too
# cause: an empty datagram is not answered: it is one like any other, and no end of anything in UDP
# lesson: `if data` asks whether a stream goes on; a datagram without bytes is a datagram, and its sender waits for it
import socket
import sys

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind((sys.argv[1], int(sys.argv[2])))
    while True:
        data, client = sock.recvfrom(65535)
        if data:  # the fault
            sock.sendto(data, client)

# fault: it sends everything back to whom it came from
# contract: registry
# caught by: two-clients-on-one-host-are-two
# cause: each gets back what it has said, as from an echo server: what a member says goes to every member
# lesson: an echo server answers one address; a registry keeps a set of them, and delivers to all
import socket
import sys

sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], int(sys.argv[2])))
while True:
    data, address = sock.recvfrom(65535)
    sock.sendto(data, address)  # the fault

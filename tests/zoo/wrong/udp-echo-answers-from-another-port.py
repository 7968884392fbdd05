# fault: it answers by a second socket, so the answer comes from a port that nobody has asked
# contract: udp-echo
# caught by: a-datagram-comes-back
# cause: the answer came from port … not from the server's own: a second socket sends it, and many clients throw it away
# lesson: a client (and a NAT or firewall before it) takes an answer only from the address that it has asked, so send by the socket that received
import socket
import sys

host, port = sys.argv[1], int(sys.argv[2])

receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind((host, port))
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # the fault: the kernel gives it a port of its own

while True:
    data, address = receiver.recvfrom(65535)
    try:
        sender.sendto(data, address)
    except OSError as error:
        print("cannot answer:", error, file=sys.stderr)

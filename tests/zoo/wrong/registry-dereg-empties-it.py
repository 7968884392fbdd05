# fault: #DEREG takes off everybody
# contract: registry
# caught by: a-stranger-may-leave
# cause: since …'s #DEREG … gets nothing any more: #DEREG takes off who sends it, and nobody else
# lesson: who leaves takes its own address off the set, and nothing but that
import socket
import sys

members = set()

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind((sys.argv[1], int(sys.argv[2])))
    while True:
        data, address = sock.recvfrom(65535)
        command = data.strip(b" \t\r\n")
        if command == b"#REG":
            members.add(address)
            sock.sendto(b"registered", address)
        elif command == b"#DEREG":
            members = set()  # the fault
            sock.sendto(b"deregistered", address)
        elif address in members:
            for member in members:
                sock.sendto(data, member)

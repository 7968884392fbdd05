# fault: a second #REG of the same client is not answered
# contract: registry
# caught by: twice-is-once
# cause: a second "#REG" is not answered: the answer to the first may have been lost, so each is answered
# lesson: a client repeats itself because an answer was lost; only another answer ends that
import socket
import sys

members = set()

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind((sys.argv[1], int(sys.argv[2])))
    while True:
        data, address = sock.recvfrom(65535)
        command = data.strip(b" \t\r\n")
        if command == b"#REG":
            if address not in members:  # the fault: the set needs no such question, and the client an answer
                members.add(address)
                sock.sendto(b"registered", address)
        elif command == b"#DEREG":
            members.discard(address)
            sock.sendto(b"deregistered", address)
        elif address in members:
            for member in members:
                sock.sendto(data, member)

# fault: it takes an empty datagram for the end and leaves its loop
# contract: udp-echo
# caught by: empty-and-huge-ones-too
# cause: … ended in the middle of the play: it ended by itself, with status …
# lesson: in TCP b"" from recv() means that the peer is done, but in UDP it is a datagram like any other, only without bytes
import socket
import sys

host, port = sys.argv[1], int(sys.argv[2])
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((host, port))
print(f"echo server on {host}:{port}", flush=True)

while True:
    data, client = sock.recvfrom(65535)
    if not data:
        break  # the fault: nobody has left, for nobody was connected
    sock.sendto(data, client)

sock.close()

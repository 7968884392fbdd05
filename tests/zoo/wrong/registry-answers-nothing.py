# fault: it does what #REG and #DEREG say, but answers neither
# contract: registry
# caught by: a-stranger-may-leave, nobody-is-there-until-it-says-so, twice-is-once
# cause: "…" is not answered: a client cannot know whether it is registered
# lesson: a datagram can be lost without a word, so without an answer the client cannot know whether it is registered
import socket
import sys

peers = set()
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], int(sys.argv[2])))

while True:
    data, peer = sock.recvfrom(65535)
    command = data.strip(b" \t\r\n")
    if command == b"#REG":
        peers.add(peer)
        print(peer, "registered", file=sys.stderr)  # the fault: we know it, but the client does not
        continue
    if command == b"#DEREG":
        peers.discard(peer)
        print(peer, "deregistered", file=sys.stderr)
        continue
    if peer not in peers:
        continue
    for each in peers:
        try:
            sock.sendto(data, each)
        except OSError as error:
            print(each, error, file=sys.stderr)

# fault: it takes every datagram in which #REG or #DEREG stands somewhere for the command
# contract: registry
# caught by: only-the-exact-commands
# cause: "…" is taken for a command, and is a text: only the exact command is one
# lesson: `in` looks for the word anywhere, so "say #REG" registers instead of being delivered; a command is the whole datagram
import socket
import sys


class Members(set):
    def handle(self, data, address):
        """Returns what to send, and where."""
        if b"#DEREG" in data:
            self.discard(address)
            return b"deregistered", [address]
        if b"#REG" in data:  # the fault: somebody may only speak of #REG
            self.add(address)
            return b"registered", [address]
        return data, list(self) if address in self else []


members = Members()
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], int(sys.argv[2])))
while True:
    answer, receivers = members.handle(*sock.recvfrom(65535))
    for receiver in receivers:
        try:
            sock.sendto(answer, receiver)
        except OSError as error:
            print(f"{receiver}: {error}", file=sys.stderr)

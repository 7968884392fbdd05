# fault: it takes #reg and #dereg for commands, too
# contract: registry
# caught by: only-the-exact-commands
# cause: "…" is taken for a command, and is a text: only the exact command is one
# lesson: upper() makes a command of what is a text; the commands are #REG and #DEREG, in capitals, and nothing else
import socket
import sys


class Registry:
    def __init__(self, host, port):
        self.addresses = set()
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((host, port))

    def send(self, data, address):
        try:
            self.sock.sendto(data, address)
        except OSError as error:
            print("sendto", address, error, file=sys.stderr)

    def run(self):
        while True:
            data, address = self.sock.recvfrom(65535)
            command = data.strip(b" \t\r\n").upper()  # the fault: #reg becomes #REG
            if command == b"#REG":
                self.addresses.add(address)
                self.send(b"registered", address)
            elif command == b"#DEREG":
                self.addresses.discard(address)
                self.send(b"deregistered", address)
            elif address in self.addresses:
                for each in self.addresses:
                    self.send(data, each)


Registry(sys.argv[1], int(sys.argv[2])).run()

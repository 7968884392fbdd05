# fault: lines are delivered without their newline
# contract: chat
# caught by: everyone-hears-a-line, nobody-has-to-speak
# cause: lines are delivered without the newline that ends them
# lesson: split() and strip() took the newline away, and you have to put it back when you send, or nobody can tell where the line ends
import asyncio
import sys

members = set()


class Chat(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.partial = b""
        members.add(self)

    def data_received(self, data):
        *lines, self.partial = (self.partial + data).split(b"\n")
        for line in lines:
            if line in (b"quit", b"quit\r"):
                members.discard(self)
                self.transport.close()
                return
            self.broadcast(line)

    def broadcast(self, line):
        line = line.removesuffix(b"\r")
        for member in members:
            member.transport.write(line)  # the fault: and where is the "\n"?

    def eof_received(self):
        self.broadcast(self.partial)
        return False  # close

    def connection_lost(self, error):
        members.discard(self)
        if error:
            print("connection lost:", error)


async def main():
    server = await asyncio.get_running_loop().create_server(Chat, sys.argv[1], int(sys.argv[2]))
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

# fault: of several lines in one segment only the first is delivered
# contract: chat
# caught by: one-segment-may-hold-many-lines, everyone-hears-a-line
# cause: of several lines in one segment only the first was delivered: recv() is taken for a message
# lesson: one recv() may give many lines, but you take the element 0 of split() and throw the others away
import asyncio
import sys

clients = []


class ChatProtocol(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.buffer = b""
        clients.append(self)

    def data_received(self, data):
        self.buffer += data
        if b"\n" not in self.buffer:
            return
        parts = self.buffer.split(b"\n")
        self.buffer = parts[-1]  # has no newline yet
        line = parts[0]  # the fault: there may be more than one
        if line in (b"quit", b"quit\r"):
            self.leave()
            self.transport.close()
        else:
            self.say(line)

    def eof_received(self):
        self.say(self.buffer)

    def connection_lost(self, exc):
        self.leave()

    def leave(self):
        if self in clients:
            clients.remove(self)

    def say(self, line):
        line = line.removesuffix(b"\r")
        for client in clients:
            if line:
                client.transport.write(line + b"\n")


async def main(host, port):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(ChatProtocol, host, port)
    await server.serve_forever()


asyncio.run(main(sys.argv[1], int(sys.argv[2])))

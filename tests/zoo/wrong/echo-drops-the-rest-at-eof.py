# fault: when the client half-closes, what is still in the server's own buffer for it is thrown away
# contract: echo
# caught by: what-is-owed-goes-out-before-the-end, half-close-gets-the-rest
# cause: at the client's FIN … of … bytes were still owed, and the server closed without them
# lesson: at the client's FIN it closes at once: there is no more to receive, but what is in the buffer is still owed and goes out first
import asyncio
import sys

SHARE, PAUSE = 16384, 0.1  # bytes, seconds: nobody gets more than its share of the line


class EchoProtocol(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.outbuf = bytearray()
        self.timer = None

    def data_received(self, data):
        self.outbuf += data
        if self.timer is None:
            self.flush()

    def flush(self):
        self.timer = None
        self.transport.write(bytes(self.outbuf[:SHARE]))
        del self.outbuf[:SHARE]
        if self.outbuf:
            self.timer = asyncio.get_running_loop().call_later(PAUSE, self.flush)

    def eof_received(self):
        self.transport.close()  # the fault: outbuf may not be empty yet

    def connection_lost(self, error):
        if self.timer:
            self.timer.cancel()


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(EchoProtocol, sys.argv[1], int(sys.argv[2]), backlog=128)
    await server.serve_forever()


asyncio.run(main())

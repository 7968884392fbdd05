# fault: it sends everything back in capital letters
# contract: echo
# caught by: what-is-sent-comes-back, one-byte-at-a-time, half-close-gets-the-rest
# cause: it sends back something else than it got: an echo changes nothing
# lesson: an echo changes nothing: upper() makes other bytes of what was sent
import asyncio
import sys


class UpperEcho(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data.upper())  # the fault: data alone would be the echo

    def pause_writing(self):
        self.transport.pause_reading()  # who does not read is not read either

    def resume_writing(self):
        self.transport.resume_reading()


async def main(host, port):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(UpperEcho, host, port, backlog=128)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))

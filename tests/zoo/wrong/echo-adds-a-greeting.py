# fault: it greets every client at its connect
# contract: echo
# caught by: what-is-sent-comes-back, one-byte-at-a-time, a-megabyte-comes-back
# cause: before …: an echo adds nothing
# lesson: an echo adds nothing: it says something before it is asked, and the client takes that for its own bytes
import asyncio
import sys


class EchoServer:
    def __init__(self):
        self.clients = 0

    async def client(self, reader, writer):
        self.clients += 1
        try:
            writer.write(b"Welcome!\n")  # the fault: nobody has sent that
            while not reader.at_eof():
                data = await reader.read(4096)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # this one is gone, the others stay
        finally:
            self.clients -= 1
            writer.close()

    async def run(self, host, port):
        server = await asyncio.start_server(self.client, host, port, backlog=128)
        await server.serve_forever()


asyncio.run(EchoServer().run(sys.argv[1], int(sys.argv[2])))

# fault: the sender gets its own line twice
# contract: chat
# caught by: everyone-hears-a-line, two-clients-on-one-host
# cause: the sender gets its own line twice: once with all the others, and once more
# lesson: the sender is in the list of clients already, so sending it the line "as a confirmation" beside the loop is once too often
import asyncio
import sys

clients = set()


async def handle(reader, writer):
    def say(text):
        text = text.removesuffix(b"\n").removesuffix(b"\r")
        if not text:
            return
        writer.write(text + b"\n")  # the fault: the confirmation; the loop sends it to this writer again
        for other in clients:
            other.write(text + b"\n")

    clients.add(writer)
    try:
        while True:
            line = await reader.readline()
            if line in (b"", b"quit\n", b"quit\r\n"):
                break
            say(line)
    except ConnectionError:
        pass
    finally:
        clients.remove(writer)
        writer.close()


async def main(host, port):
    server = await asyncio.start_server(handle, host, int(port), limit=2**20)
    async with server:
        await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))

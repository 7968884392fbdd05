# fault: it closes the connection after the first answer
# contract: echo
# caught by: what-is-sent-comes-back, one-byte-at-a-time, an-idle-connection-stays
# cause: it closes the connection after … bytes: it answers once, and an echo goes on until the client ends
# lesson: it answers once and closes: the loop around recv() is missing, and an echo goes on until the client ends
import asyncio
import sys


async def handle_echo(reader, writer):
    addr = writer.get_extra_info("peername")
    try:
        data = await reader.read(65536)  # the fault: once, and not until b"" comes
        writer.write(data)
        await writer.drain()
        print(f"Answered {len(data)} bytes to {addr!r}")
    except ConnectionError as error:
        print(f"{addr!r}: {error}")
    writer.close()


async def main():
    server = await asyncio.start_server(handle_echo, sys.argv[1], int(sys.argv[2]), backlog=128)
    async with server:
        await server.serve_forever()


asyncio.run(main())

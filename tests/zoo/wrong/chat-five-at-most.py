# fault: a sixth client is accepted and closed at once
# contract: chat
# caught by: a-full-room
# cause: the server takes no more than … clients at once: it closed …'s connection at once
# lesson: your list has five places and closes everyone who comes after; a room has no such bound
import asyncio
import sys

MAX_CLIENTS = 5
clients = []


async def read_lines(reader):
    while line := await reader.readline():
        if line in (b"quit\n", b"quit\r\n"):
            return
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if line:
            yield line


async def on_connect(reader, writer):
    if len(clients) >= MAX_CLIENTS:
        writer.close()  # the fault: number six may not come in
        return
    clients.append(writer)
    try:
        async for line in read_lines(reader):
            for client in clients:
                client.write(line + b"\n")
    except ConnectionError:
        pass
    finally:
        clients.remove(writer)
        writer.close()


async def main():
    host, port = sys.argv[1], int(sys.argv[2])
    server = await asyncio.start_server(on_connect, host, port, limit=2**18)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

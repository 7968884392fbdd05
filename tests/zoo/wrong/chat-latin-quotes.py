# fault: bytes that are no UTF-8 arrive as U+FFFD instead of as they were
# contract: chat
# caught by: bytes-pass-through
# cause: it takes bytes for text: decode() with errors="replace" puts U+FFFD for what is no UTF-…
# lesson: errors="replace" does not raise, but what it replaces is lost; a line is bytes, so pass it on as bytes and decode nothing
import asyncio
import sys

connected = set()


def send_to_all(text):
    for writer in connected:
        writer.write(f"{text}\n".encode())


async def client_loop(reader, writer):
    connected.add(writer)
    try:
        while True:
            data = await reader.readline()
            if data in (b"", b"quit\n", b"quit\r\n"):
                break
            text = data.decode(errors="replace")  # the fault: what is no UTF-8 becomes U+FFFD
            text = text.removesuffix("\n").removesuffix("\r")
            if text:
                send_to_all(text)
    except (ConnectionResetError, BrokenPipeError):
        pass
    finally:
        connected.discard(writer)
        writer.close()


async def main():
    host = sys.argv[1]
    port = int(sys.argv[2])
    server = await asyncio.start_server(client_loop, host, port, limit=100_000)
    print("chat on", server.sockets[0].getsockname())
    async with server:
        await server.serve_forever()


try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("bye")

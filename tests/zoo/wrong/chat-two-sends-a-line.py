# fault: a line is sent in several pieces and others may send in between, so the lines of several senders get into each other
# contract: chat
# caught by: long-lines-never-interleave
# cause: lines of different senders are mixed into one another: pieces are passed on as recv() gives them, or several threads send() on one socket without a lock
# lesson: at every await another task may run and write to the same client, so a line has to be handed over whole, or under a lock
import asyncio
import sys

BLOCK = 512
writers = set()


async def send_line(writer, name, text):
    writer.write(name + b"> ")
    for start in range(0, len(text), BLOCK):
        writer.write(text[start : start + BLOCK])
        await asyncio.sleep(0.001)  # the fault: not so fast, we thought, but meanwhile others write here, too
    writer.write(b"\n")


async def handle_line(name, line):
    text = line.removesuffix(b"\n").removesuffix(b"\r")
    if text:
        await asyncio.gather(*(send_line(writer, name, text) for writer in writers))


async def chat(reader, writer):
    host, port = writer.get_extra_info("peername")[:2]
    name = f"{host}:{port}".encode()
    writers.add(writer)
    try:
        while line := await reader.readline():
            if line in (b"quit\n", b"quit\r\n"):
                break
            await handle_line(name, line)
    except ConnectionError:
        print(name.decode(), "is lost")
    finally:
        writers.remove(writer)
        writer.close()


async def main():
    host, port = sys.argv[1:]
    server = await asyncio.start_server(chat, host, int(port), limit=2**20, backlog=128)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

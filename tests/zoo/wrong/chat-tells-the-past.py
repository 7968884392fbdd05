# fault: whoever joins gets the last ten lines that were said before
# contract: chat
# caught by: nothing-from-before
# cause: … got "…", which was said before it came: newcomers are told the past
# lesson: a newcomer is owed what is said from now on and nothing from before, but you keep the old lines and send them
import asyncio
import collections
import sys

history = collections.deque(maxlen=10)
clients = set()


def say(text):
    text = text.removesuffix(b"\n").removesuffix(b"\r")
    if text:
        history.append(text)
        for writer in clients:
            writer.write(text + b"\n")


async def chat(reader, writer):
    for text in history:
        writer.write(text + b"\n")  # the fault: this was said before it came
    clients.add(writer)
    try:
        while line := await reader.readline():
            if line in (b"quit\n", b"quit\r\n"):
                break
            say(line)
    except ConnectionError:
        print("connection lost", file=sys.stderr)
    finally:
        clients.discard(writer)
        writer.close()


async def main():
    host, port = sys.argv[1:]
    server = await asyncio.start_server(chat, host, int(port), limit=1 << 20)
    await server.serve_forever()


asyncio.run(main())

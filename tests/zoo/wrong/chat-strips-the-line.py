# fault: blanks at the beginning and the end of a line are taken away
# contract: chat
# caught by: a-line-keeps-its-blanks
# cause: strip() takes away blanks that belong to the line
# lesson: strip() takes away all white space at both ends, not only the newline, so use removesuffix()
import asyncio
import sys


class Room:
    def __init__(self):
        self.writers = set()

    async def serve(self, reader, writer):
        self.writers.add(writer)
        try:
            async for line in reader:
                if line in (b"quit\n", b"quit\r\n"):
                    break
                line = line.strip()  # the fault: "    indented" is no longer indented
                if line:
                    self.say(line)
        except ConnectionError as error:
            print("lost a client:", error, file=sys.stderr)
        finally:
            self.writers.discard(writer)
            writer.close()

    def say(self, line):
        for writer in self.writers:
            writer.write(line + b"\n")


async def main(host, port):
    room = Room()
    server = await asyncio.start_server(room.serve, host, port, limit=1024 * 1024, backlog=128)
    print(f"chat server on {host}:{port}")
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))

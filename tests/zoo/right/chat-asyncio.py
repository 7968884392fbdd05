# contract: chat
# language: Python (asyncio)
# packages: python3
# start: python3 {file} {host} {port}
import asyncio
import sys

MAX_LINE = 64 * 1024
MAX_PENDING = 4 * 1024 * 1024  # kept for a client that does not read
PATIENCE_S = 3  # for a leaver to take what it is owed and to close

room = set()


def say(lines):
    block = b"".join(line + b"\n" for line in lines)
    for client in list(room) if block else ():
        client.transport.write(block)  # never waits: asyncio keeps what the kernel does not take
        if client.transport.get_write_buffer_size() > MAX_PENDING:
            client.drop()


class Client(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.rest = b""
        room.add(self)

    def connection_lost(self, exc):
        room.discard(self)

    def data_received(self, data):
        if self not in room:
            return  # it has left, and what comes behind is ignored
        *whole, self.rest = (self.rest + data).split(b"\n")
        lines, parting = [], None
        for line in whole:
            line = line.removesuffix(b"\r")
            if line == b"quit":
                parting = b""
                break
            if len(line) > MAX_LINE:
                parting = b"error: line too long\n"
                break
            if line:
                lines.append(line)
        say(lines)
        if parting is None and len(self.rest) > MAX_LINE + 1:
            parting = b"error: line too long\n"
        if parting is not None and self in room:
            self.leave(parting)

    def eof_received(self):
        if self in room:
            if line := self.rest.removesuffix(b"\r"):
                say([line])  # a last line needs no newline, whatever it says
            self.leave()
        return False  # asyncio sends what is owed, then closes

    def leave(self, parting=b""):
        room.discard(self)
        self.rest = b""
        self.transport.write(parting)
        if not self.transport.is_closing():
            self.transport.write_eof()  # after what is owed; until the client's own FIN we read on
        asyncio.get_running_loop().call_later(PATIENCE_S, self.transport.abort)

    def drop(self):
        room.discard(self)
        self.transport.abort()


async def main(host, port):
    server = await asyncio.get_running_loop().create_server(Client, host, port, backlog=512)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))

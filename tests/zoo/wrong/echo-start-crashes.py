# fault: it ends with a NameError before it has a socket
# contract: echo
# caught by: start
# cause: it fails before it listens, by an error of its own
# lesson: it fails before it listens, by an error of its own: main() is called before the function that it needs is defined
import asyncio
import sys


async def echo(reader, writer):
    try:
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
    except ConnectionError as error:
        print(error)
    writer.close()


async def main():
    host, port = address_from(sys.argv)
    server = await asyncio.start_server(echo, host, port, backlog=128)
    await server.serve_forever()


asyncio.run(main())  # the fault: address_from() is defined only below


def address_from(argv):
    return argv[1], int(argv[2])

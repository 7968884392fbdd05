# fault: it throws out a client that says nothing for a second
# contract: echo
# caught by: an-idle-connection-stays
# cause: the server closed …'s connection after …s of silence: an idle connection stays open
# lesson: silence is not the end of a connection: a client may think as long as it likes, so wait for it without a timeout
import asyncio
import sys

IDLE = 1.0  # seconds


async def serve(reader, writer):
    name = writer.get_extra_info("peername")
    try:
        while True:
            data = await asyncio.wait_for(reader.read(4096), IDLE)  # the fault: raises TimeoutError
            if not data:
                break
            writer.write(data)
            await writer.drain()
    except TimeoutError:
        print(name, "was idle for too long")
    except ConnectionError as error:
        print(name, error)
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, host=sys.argv[1], port=int(sys.argv[2]), backlog=128)
    async with server:
        await server.serve_forever()


asyncio.run(main())

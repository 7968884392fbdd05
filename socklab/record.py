"""`socklab record`: stand between a real client and a server, pass on all that happens, and remember it.

nc, telnet, a program ──▶ Recorder ──▶ server
                             └──▶ Moments (socklab/recorded.py) ──▶ a scenario
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

from socklab.recorded import Moment, name_of

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST (socket(7))


class Recorder:
    """A listening socket and what went through it."""

    def __init__(self, host: str, port: int, to: tuple[str, int], tell: Callable[[Moment], None]) -> None:
        """Raises OSError when it cannot listen there."""
        self.to = to
        self.moments: list[Moment] = []
        self.ended = asyncio.Event()
        """Somebody came, and all who came have gone."""
        self._tell = tell
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0
        self.listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
        self.listener.setblocking(False)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    async def run(self) -> None:
        """Take whoever comes, until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                client, _ = await loop.sock_accept(self.listener)
                client.setblocking(False)
                self.ended.clear()
                task = asyncio.ensure_future(self._serve(client, name_of(self._count)))
                self._count += 1
                self._tasks.add(task)
                task.add_done_callback(self._gone)
        finally:
            self.listener.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self.ended.set()

    def _happened(self, who: str, kind: str, data: bytes = b"") -> None:
        moment = Moment(who, kind, data)
        self.moments.append(moment)
        self._tell(moment)

    async def _serve(self, client: socket.socket, who: str) -> None:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in self.to[0] else socket.AF_INET
        with client, socket.socket(family, socket.SOCK_STREAM) as server:
            server.setblocking(False)
            try:
                await loop.sock_connect(server, self.to)
            except OSError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)  # as the server did
                return
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._happened(who, "connected")
            ways = [
                asyncio.ensure_future(self._pass_on(client, server, who, "said", "half-closed", "aborted")),
                asyncio.ensure_future(self._pass_on(server, client, who, "got", "eof", "reset")),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_on(
        self, source: socket.socket, target: socket.socket, who: str, data: str, end: str, broken: str
    ) -> None:
        """One direction, to its end: FIN as FIN, RST as RST. Raises ConnectionResetError behind an RST."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                chunk = await loop.sock_recv(source, 65536)
            except OSError:
                self._happened(who, broken)
                target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                raise ConnectionResetError from None
            if not chunk:
                self._happened(who, end)
                try:
                    target.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # it is gone: its own direction tells of it
                return
            self._happened(who, data, chunk)
            try:
                await loop.sock_sendall(target, chunk)
            except OSError:
                return  # the other direction tells of it

"""`socklab record`: stand between real clients and a server, pass on all that happens, and remember it.

nc, telnet, a program ──▶ Recorder ──▶ server
                             └──▶ Moments (socklab/recorded.py) ──▶ a scenario

Over TCP each connection is a client; over UDP each address from which somebody sends, and the server sees as many as there are.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from socklab.recorded import Moment, name_of

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST (socket(7))


Tell = Callable[[Moment], None]
Address = tuple[str, int] | tuple[str, int, int, int]


class Recorder(ABC):
    """A socket that stands for the server's, and what went through it."""

    def __init__(self, kind: socket.SocketKind, at: tuple[str, int], to: tuple[str, int], tell: Tell) -> None:
        """Raises OSError when it cannot listen there."""
        self.to = to
        self.moments: list[Moment] = []
        self.ended = asyncio.Event()
        """Somebody came, and all who came have gone. Over UDP nobody can tell."""
        self._tell = tell
        self._count = 0
        self.listener = socket.socket(_family(at[0]), kind)
        try:
            if kind == socket.SOCK_STREAM:
                self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind(at)
            self.listener.setblocking(False)
        except (OSError, OverflowError):
            self.listener.close()
            raise

    @abstractmethod
    async def run(self) -> None:
        """Take whoever comes, until cancelled."""

    def _another(self) -> str:
        self._count += 1
        return name_of(self._count - 1)

    def _happened(self, who: str, kind: str, data: bytes = b"") -> None:
        moment = Moment(who, kind, data, time.monotonic_ns())
        self.moments.append(moment)
        self._tell(moment)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


class StreamRecorder(Recorder):
    """Over TCP: FIN is passed on as FIN, RST as RST."""

    def __init__(self, at: tuple[str, int], to: tuple[str, int], tell: Tell) -> None:
        super().__init__(socket.SOCK_STREAM, at, to, tell)
        self.listener.listen(128)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                client, _ = await loop.sock_accept(self.listener)
                client.setblocking(False)
                self.ended.clear()
                task = asyncio.ensure_future(self._serve(client, self._another()))
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

    async def _serve(self, client: socket.socket, who: str) -> None:
        loop = asyncio.get_running_loop()
        with client, socket.socket(_family(self.to[0]), socket.SOCK_STREAM) as server:
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


class DatagramRecorder(Recorder):
    """Over UDP: each datagram as it is, empty ones too, and for each client a socket of its own towards the server."""

    def __init__(self, at: tuple[str, int], to: tuple[str, int], tell: Tell) -> None:
        super().__init__(socket.SOCK_DGRAM, at, to, tell)
        self._clients: dict[Address, tuple[str, socket.socket]] = {}

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[None]] = []
        try:
            while True:
                data, address = await loop.sock_recvfrom(self.listener, 65536)
                if address not in self._clients:
                    server = socket.socket(_family(self.to[0]), socket.SOCK_DGRAM)
                    self._clients[address] = self._another(), server
                    server.setblocking(False)
                    server.connect(self.to)
                    tasks.append(asyncio.ensure_future(self._answers(address)))
                self._pass_on(data, *self._clients[address])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.listener.close()
            for _, server in self._clients.values():
                server.close()

    def _pass_on(self, data: bytes, who: str, server: socket.socket) -> None:
        self._happened(who, "said", data)
        for _ in range(2):
            try:
                server.send(data)
                return
            except ConnectionRefusedError:
                self._happened(who, "refused")  # what was sent before; this is not sent yet (udp(7))
            except OSError:
                return  # as if it had been lost on its way

    async def _answers(self, address: Address) -> None:
        loop = asyncio.get_running_loop()
        who, server = self._clients[address]
        while True:
            try:
                data = await loop.sock_recv(server, 65536)
            except ConnectionRefusedError:
                # Nobody listens there (ICMP). That cannot be passed on to the client, only written down.
                self._happened(who, "refused")
                continue
            self._happened(who, "got", data)
            try:
                self.listener.sendto(data, address)
            except OSError:
                pass  # as if it had been lost on its way


async def moments_of(recorder: Recorder, once: bool, stop: asyncio.Event) -> list[Moment]:
    """Record until `stop`, or with `once` until all who came have gone."""
    running = asyncio.ensure_future(recorder.run())
    until = [asyncio.ensure_future(stop.wait())]
    if once:
        until.append(asyncio.ensure_future(recorder.ended.wait()))
    await asyncio.wait(until, return_when=asyncio.FIRST_COMPLETED)
    moments = list(recorder.moments)  # what we do to those who are still there is no part of it
    for task in (running, *until):
        task.cancel()
    await asyncio.gather(running, *until, return_exceptions=True)
    return moments

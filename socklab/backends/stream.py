"""A stream socket in the event loop, as agents, containers and the engine's output are heard and told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

CHUNK = 262144  # bytes that are read or written at a time


class Stream:
    """Hands on what comes; what does not go out at once waits. Both ways end together."""

    def __init__(
        self,
        sock: socket.socket,
        on_data: Callable[[bytes], None],
        on_end: Callable[[OSError | None], None],
    ) -> None:
        """`on_end` is called once, unless we close it ourselves: with why nothing could be written, or None when it was closed there."""
        self.closed = False
        self._sock = sock
        self._on_data = on_data
        self._on_end = on_end
        self._out = bytearray()
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        self._loop.add_reader(sock, self._readable)

    def write(self, data: bytes) -> None:
        self._out += data
        self._flush()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()

    def _flush(self) -> None:
        if self.closed:
            return
        try:
            while self._out:
                del self._out[: self._sock.send(self._out[:CHUNK])]
        except BlockingIOError:
            self._loop.add_writer(self._sock, self._flush)
        except OSError as exc:
            self._end(exc)
        else:
            self._loop.remove_writer(self._sock)

    def _readable(self) -> None:
        try:
            data = self._sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._on_data(data)
        else:
            self._end(None)

    def _end(self, problem: OSError | None) -> None:
        self.close()
        self._on_end(problem)


class Lines:
    """Makes whole lines of what comes, however long they are."""

    def __init__(self, on_line: Callable[[bytes], None]) -> None:
        self._on_line = on_line
        self._partial: list[bytes] = []

    def feed(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._on_line(b"".join([*self._partial, line]))
            self._partial.clear()
        if rest:
            self._partial.append(rest)

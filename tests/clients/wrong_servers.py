"""Servers in a thread, right but for what a test lets them do to each message. Real sockets, and no more than a crowd needs."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Sequence
from typing import Any

IDLE_S = 0.02  # without anything to do, what a fault holds back goes out: it is late, not lost


class End(Exception):
    """A fault ends the connection: raised with True, by RST."""


class Fault:
    """What goes to each receiver in the place of a message. This one does nothing."""

    def of(self, message: bytes, receiver: int) -> Sequence[bytes]:
        """`receiver` counts from 0 in the order of arrival. Raises End."""
        return [message]

    def held(self, receiver: int) -> Sequence[bytes]:
        """What it has kept back, when nothing else happens."""
        return []


class _Server:
    kind = socket.SOCK_STREAM

    def __init__(self, fault: Fault | None = None, shift: int = 0) -> None:
        """`shift`: an echo goes to the client that came so many later."""
        self.fault = fault or Fault()
        self.shift = shift
        self.listener = socket.socket(socket.AF_INET, self.kind)
        self.listener.bind(("127.0.0.1", 0))
        self.address = list(self.listener.getsockname())
        self.clients: list[Any] = []
        self._ending, self._end = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Any:
        if self.kind == socket.SOCK_STREAM:
            self.listener.listen(1000)
        self._selector.register(self.listener, selectors.EVENT_READ, self._arrive)
        self._selector.register(self._ending, selectors.EVENT_READ, None)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()
        self._thread.join(20)
        for each in [self.listener, self._ending, *self.clients]:
            if isinstance(each, socket.socket):
                each.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            ready = self._selector.select(IDLE_S)
            if not ready:
                for number, client in enumerate(self.clients):
                    for message in self.fault.held(number):
                        self._send(client, message)
            for key, _ in ready:
                if key.data is None:
                    return
                key.data(key.fileobj)

    def _arrive(self, listener: socket.socket) -> None:
        raise NotImplementedError

    def _send(self, client: Any, data: bytes) -> None:
        raise NotImplementedError


class _Streams(_Server):
    def _arrive(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.settimeout(20)
        self.clients.append(client)
        self._selector.register(client, selectors.EVENT_READ, self._readable)

    def _readable(self, client: socket.socket) -> None:
        try:
            data = client.recv(65536)
        except OSError:
            data = b""
        if data:
            self._heard(client, data)
        else:
            self._leave(client)

    def _heard(self, client: socket.socket, data: bytes) -> None:
        raise NotImplementedError

    def _leave(self, client: socket.socket) -> None:
        if client.fileno() >= 0:
            self._selector.unregister(client)
            client.close()  # and keeps its number among the clients

    def _send(self, client: socket.socket, data: bytes) -> None:
        if data and client.fileno() >= 0:
            with contextlib.suppress(OSError):
                client.sendall(data)

    def _deliver(self, message: bytes, number: int) -> None:
        client = self.clients[number]
        if client.fileno() < 0:
            return
        try:
            self._send(client, b"".join(self.fault.of(message, number)))
        except End as exc:
            if exc.args:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._leave(client)


class Chat(_Streams):
    """Each line to all."""

    def __init__(self, fault: Fault | None = None) -> None:
        super().__init__(fault)
        self._rests: dict[socket.socket, bytes] = {}

    def _heard(self, client: socket.socket, data: bytes) -> None:
        *lines, self._rests[client] = (self._rests.get(client, b"") + data).split(b"\n")
        for line in lines:
            for number in range(len(self.clients)):
                self._deliver(line + b"\n", number)


class Echo(_Streams):
    """What comes goes back."""

    def _heard(self, client: socket.socket, data: bytes) -> None:
        self._deliver(data, (self.clients.index(client) + self.shift) % len(self.clients))


class _Datagrams(_Server):
    kind = socket.SOCK_DGRAM

    def _send(self, client: Any, data: bytes) -> None:
        self.listener.sendto(data, client)

    def _deliver(self, message: bytes, number: int) -> None:
        for each in self.fault.of(message, number):
            self._send(self.clients[number], each)


class DatagramEcho(_Datagrams):
    def _arrive(self, listener: socket.socket) -> None:
        data, client = listener.recvfrom(65536)
        if client not in self.clients:
            self.clients.append(client)
        self._deliver(data, (self.clients.index(client) + self.shift) % len(self.clients))


class Registry(_Datagrams):
    """To all who have said #REG."""

    def _arrive(self, listener: socket.socket) -> None:
        data, client = listener.recvfrom(65536)
        if data == b"#REG":
            self.clients.append(client)
            self._send(client, b"registered")
            return
        for number in range(len(self.clients)):
            self._deliver(data, number)

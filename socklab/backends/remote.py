"""The conductor's side of a node that is a container: one stream to backends/node.py, for our programs there and for orders."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from socklab.backends import CannotStart, Completed, Inside, LabError
from socklab.backends.clock import Clock
from socklab.backends.stream import Lines, Stream
from socklab.sockets import SocketTable

ANSWER_LIMIT = 20.0  # seconds; longer than any order but `run` takes on a machine that is not stuck

Decode = Callable[[bytes], Iterable[tuple[str, bytes]]]


def docker_frames() -> Decode:
    """A decoder of the stream of `docker attach`: 8 bytes of header, then so many of stdout or stderr.

    Source: Docker Engine API, "Attach to a container", stream format.
    """
    rest = b""

    def decode(data: bytes) -> Iterable[tuple[str, bytes]]:
        nonlocal rest
        rest += data
        at = 0
        while len(rest) - at >= 8:
            size = int.from_bytes(rest[at + 4 : at + 8], "big")
            if len(rest) - at - 8 < size:
                break
            yield ("stderr" if rest[at] == 2 else "stdout"), rest[at + 8 : at + 8 + size]
            at += 8 + size
        rest = rest[at:]

    return decode


def plain(data: bytes) -> Iterable[tuple[str, bytes]]:
    """A stream with nothing but the node's lines on it."""
    return [("stdout", data)]


class RemoteNode:
    """A container with node.py in it."""

    def __init__(self, name: str, stream: socket.socket, decode: Decode = plain) -> None:
        self.name = name
        self.clock: Clock | None = None
        """Of a node on another machine: by it, all that its programs tell is told in the time of ours."""
        self.on_end: Callable[[], None] | None = None
        self.gone: str | None = None
        self._decode = decode
        self._lines = Lines(self._line)
        self._complaint = b""
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._numbers = itertools.count(1)
        self._inside: dict[bytes, Stream] = {}
        self._stream = Stream(stream, self._data, self._ended)

    # orders

    async def inside(self, program: Inside, *arguments: Any) -> socket.socket:
        """Start one of our own programs there anew; the socket is its control stream."""
        letter = program[:1].encode()
        self._drop(letter)
        answer = await self._ask("inside", program=program, arguments=arguments)
        if not answer["ok"]:
            raise LabError(f"the {program} on {self.name} cannot be started: {answer['error']}")
        ours, theirs = socket.socketpair()
        lines = Lines(lambda line: self._stream.write(letter + line + b"\n"))
        self._inside[letter] = Stream(ours, lines.feed, lambda _: None)
        return theirs

    async def alone(self) -> None:
        """End our own programs there."""
        for letter in list(self._inside):
            self._drop(letter)
        await self._ask("alone")

    async def run(self, argv: Sequence[str], input: str = "", limit: float = 10.0) -> Completed:
        answer = await self._ask("run", limit + ANSWER_LIMIT, argv=list(argv), input=input, limit=limit)
        if answer.get("missing"):
            raise CannotStart(answer["error"])
        if not answer["ok"]:
            raise LabError(f"{answer['error']} (on {self.name})")
        return Completed(tuple(argv), answer["status"], answer["stdout"], answer["stderr"])

    async def sockets(self, listening: bool) -> SocketTable:
        answer = await self._ask("sockets", listening=listening)
        return SocketTable.parse((name.removesuffix("6"), text) for name, text in answer["tables"].items())

    async def hosts(self, text: str) -> None:
        """What the node's /etc/hosts holds."""
        answer = await self._ask("hosts", text=text)
        if not answer["ok"]:
            raise LabError(f"the names on {self.name} cannot be set: {answer['error']}")

    async def resolve(self, name: str) -> str:
        """The IPv4 address that the node's name service gives for a name."""
        answer = await self._ask("resolve", name=name)
        if not answer["ok"]:
            raise LabError(
                f"{self.name} finds no address of {name} ({answer['error']}); does its container run?"
            )
        return str(answer["address"])

    async def compare_clocks(self) -> None:
        """One round trip more, by which its clock is known."""
        asked = time.monotonic_ns()
        answer = await self._ask("clock")
        if self.clock is not None:
            self.clock.heard(asked, answer["t"], time.monotonic_ns())

    async def devices(self) -> dict[str, str]:
        """Address → name of its interface."""
        done = await self.run(["ip", "-json", "-4", "address"])
        if done.status:
            raise LabError(f"the interfaces of {self.name} cannot be read: {done.stderr.strip()}")
        return {a["local"]: link["ifname"] for link in json.loads(done.stdout) for a in link["addr_info"]}

    async def _ask(self, do: str, within: float = ANSWER_LIMIT, **arguments: Any) -> dict[str, Any]:
        if self.gone:
            raise LabError(self.gone)
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        self._stream.write(b"n" + json.dumps({"id": number, "do": do, **arguments}).encode() + b"\n")
        try:
            async with asyncio.timeout(within):
                return await answer
        except TimeoutError:
            raise LabError(
                f"the container of {self.name} has not answered ({do}) within {within:g}s; is the machine out of memory?"
            ) from None
        finally:
            self._answers.pop(number, None)

    # the stream

    def _data(self, data: bytes) -> None:
        for name, part in self._decode(data):
            if name == "stderr":
                self._complaint = (self._complaint + part)[-4096:]
            else:
                self._lines.feed(part)

    def _ended(self, problem: OSError | None) -> None:
        said = self._complaint.decode(errors="replace").strip().splitlines()
        if problem:
            what = f"is gone: {problem.strerror}"
        else:
            what = f"ended: {said[-1]}" if said else "ended; was it killed?"
        self.close(f"the container of {self.name} {what}")

    def _line(self, line: bytes) -> None:
        letter = line[:1]
        if letter != b"n":
            if letter in self._inside:
                told = self.clock.translated(line[1:]) if self.clock is not None else line[1:]
                self._inside[letter].write(told + b"\n")
            return
        try:
            message = json.loads(line[1:])
        except ValueError:
            self.close(f"the container of {self.name} said what is no JSON: {line[:80]!r}")
            return
        if "ended" in message:
            self._drop(message["ended"].encode())
            return
        answer = self._answers.get(message.get("id"))
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _drop(self, letter: bytes) -> None:
        if letter in self._inside:
            self._inside.pop(letter).close()

    def close(self, why: str = "the lab has been stopped") -> None:
        """Close the stream; the container's program ends of it."""
        if self.gone is not None:
            return
        self.gone = why
        self._stream.close()
        for letter in list(self._inside):
            self._drop(letter)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(LabError(why))
        if self.on_end is not None:
            self.on_end()

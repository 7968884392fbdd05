"""The scripted client as a real process, spoken to line by line; and the sockets that it talks to."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

AGENT = Path(__file__).resolve().parents[2] / "clients" / "agent.py"
LIMIT_S = 20.0  # for what happens at once on an idle machine; reaching it is a failure, so it may be generous
Message = dict[str, Any]


class Agent:
    """One agent. Its reports are collected by a thread; tests wait for them with a limit."""

    def __init__(self, before: Sequence[str] = ()) -> None:
        """`before` is a command line that starts the agent in surroundings of its own."""
        self.process = subprocess.Popen(
            [*before, sys.executable, str(AGENT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin, self._stdout = self.process.stdin, self.process.stdout
        self.number = 0
        self.events: list[Message] = []
        """What was reported and not yet taken by event() or received()."""
        self.answers: list[Message] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.hello = self.event("hello", client=None)
        self.pid = int(self.hello["pid"])

    def _read(self) -> None:
        for line in self._stdout:
            message = json.loads(line)
            with self._changed:
                (self.events if "event" in message else self.answers).append(message)
                self._changed.notify_all()

    # commands

    def raw(self, data: bytes) -> None:
        """Bytes for its control stream, as they are."""
        self._stdin.write(data)
        self._stdin.flush()

    def tell(self, do: str, **arguments: Any) -> int:
        """Give a command and do not wait; returns its number."""
        self.number += 1
        self.raw(json.dumps({"id": self.number, "do": do, **arguments}).encode() + b"\n")
        return self.number

    def answer(self, number: int | None) -> Message:
        """The answer to the command of this number, waited for."""

        def found() -> Message | None:
            return next((a for a in self.answers if a["id"] == number), None)

        with self._changed:
            assert self._changed.wait_for(lambda: found() is not None, LIMIT_S), f"no answer to {number}"
            answer = found()
            assert answer is not None
            self.answers.remove(answer)
            return answer

    def ask(self, do: str, **arguments: Any) -> Message:
        return self.answer(self.tell(do, **arguments))

    def open(self, to: Any, client: str = "a", kind: str = "tcp", **more: Any) -> Message:
        return self.answer(self.start_open(to, client, kind, **more))

    def start_open(self, to: Any, client: str = "a", kind: str = "tcp", **more: Any) -> int:
        return self.tell("open", client=client, kind=kind, to=to, **more)

    def send(self, *texts: str, client: str = "a", **more: Any) -> Message:
        return self.ask("send", client=client, chunks=[{"text": text} for text in texts], **more)

    def status(self, client: str = "a") -> Message:
        status: Message = self.ask("status")["clients"][client]
        return status

    # reports

    def event(self, kind: str, client: str | None = "a") -> Message:
        """The next event of this kind of this client, waited for and taken away."""

        def found() -> Message | None:
            return next((e for e in self.events if e["event"] == kind and e.get("client") == client), None)

        with self._changed:
            assert self._changed.wait_for(lambda: found() is not None, LIMIT_S), f"no {kind}: {self.seen()}"
            event = found()
            assert event is not None
            self.events.remove(event)
            return event

    def received(self, length: int, client: str = "a") -> bytes:
        """So many bytes, put together from as many chunks as it takes."""
        got = b""
        while len(got) < length:
            got += content(self.event("received", client))
        return got

    def seen(self) -> list[tuple[str, str]]:
        """Events that were not taken, in order: their kind and whose they are."""
        with self._changed:
            return [(e["event"], e.get("client", "")) for e in self.events]

    # its process

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the process, so that all that is done meanwhile meets it at once."""
        self.process.send_signal(signal.SIGSTOP)
        until(lambda: self._state() == "T", "the agent is held")
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def _state(self) -> str:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2][0]

    def memory(self) -> int:
        """Its resident memory, in bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def sockets(self) -> int:
        """How many sockets it has open."""
        links = (os.readlink(link) for link in Path(f"/proc/{self.pid}/fd").iterdir())
        return sum(link.startswith("socket:") for link in links)

    def end(self) -> int:
        """End its control stream; returns its exit status."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        return self.wait()

    def wait(self) -> int:
        status = self.process.wait(LIMIT_S)
        self._reader.join(LIMIT_S)
        self._stdout.close()
        return status

    def clean_up(self) -> None:
        """Leave nothing of it behind, whatever the test did."""
        if self.process.poll() is None:
            self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        if not self._stdout.closed:
            self.wait()


def content(event: Message) -> bytes:
    """The bytes of a report."""
    return event["text"].encode() if "text" in event else base64.b64decode(event["base64"])


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until condition() is true; fail with `what` if it never is."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.005)  # between two looks at what tells nobody when it changes


def connected(agent: Agent, listener: socket.socket, client: str = "a", **more: Any) -> socket.socket:
    """Connect a client to a listener; returns the server's end."""
    name = listener.getsockname()
    to = name if isinstance(name, str) else list(name[:2])
    kind = "unix" if listener.family == socket.AF_UNIX else "tcp"
    number = agent.start_open(to, client, kind, **more)
    server, _ = listener.accept()
    server.settimeout(LIMIT_S)
    assert agent.answer(number)["ok"]
    return server


def reset(connection: socket.socket) -> None:
    """End a connection with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def read_to_end(connection: socket.socket) -> bytes:
    """All that comes until the peer's FIN. A reset raises ConnectionResetError."""
    data = bytearray()
    while more := connection.recv(65536):
        data += more
    return bytes(data)


def fill(connection: socket.socket, most: int = 1 << 30) -> int:
    """Send "x" until no more is taken, or so many are; returns how many."""
    connection.setblocking(False)
    sent = 0
    # 0.2 s without room: nothing moves any more, or the machine is busy; no test may rest on which it is.
    while sent < most and select.select([], [connection], [], 0.2)[1]:
        try:
            sent += connection.send(b"x" * 65536)
        except BlockingIOError:
            continue
    connection.settimeout(LIMIT_S)
    return sent


def unacknowledged(connection: socket.socket) -> int:
    """Bytes that the peer's kernel does not have yet, and 1 for a FIN (SIOCOUTQ, tcp(7))."""
    import fcntl
    import termios

    return int(struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0])


@contextlib.contextmanager
def full_backlog(family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0)) -> Iterator[socket.socket]:
    """A listener that accepts nobody and has no room left for a connection."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        listener.bind(address)
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket(family))
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        listener.settimeout(LIMIT_S)
        yield listener

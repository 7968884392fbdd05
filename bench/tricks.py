"""What each trick of our servers is worth: the server without it beside the server as it is. `python -m bench tricks`.

python -m bench tricks           the table of docs/bench.md, some ten minutes
python -m bench tricks --keep    and puts it there

A server without a trick is the server's own text with a small edit, so nothing is kept twice. Where the text that is to be edited is
not there any more, nothing is measured: the trick has been changed, and its edit has to follow.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median

from bench.figures import ROOT
from socklab import bench, holdings, player, topology
from socklab.backends import Backend
from socklab.load import Load, Subject, of_service, processor_time
from socklab.words import duration

PAGE = ROOT / "docs" / "bench.md"
START, END = "<!-- python -m bench tricks --keep: start -->", "<!-- end -->"
ROUNDS = 9
SECONDS = 0.5


class Stale(Exception):
    """The text of a server is not what an edit expects; the message says which."""


@dataclass(frozen=True)
class Stalled:
    """Clients of a chat who do not read while one speaks and hears all of it; then they do."""

    clients: int
    line: int
    """Bytes, with the newline."""
    said: int = 5 << 20
    """Bytes: more than their kernels take (tcp_wmem is 4 MiB at most), by less than the 4 MiB at which a chat drops a client."""

    @property
    def name(self) -> str:
        size = f"{self.line} B" if self.line < 1024 else f"{self.line >> 10} KiB"
        return f"{self.clients} leave {self.said >> 20} MiB unread, {size}"


@dataclass(frozen=True)
class Dialogue:
    """Two clients of a chat: one says two lines, one right after the other has come, and the other answers. Who speaks, too, does not
    acknowledge at once what it hears (delayed acknowledgements, RFC 1122, 4.2.3.2)."""

    turns: int = 20

    @property
    def name(self) -> str:
        return "two take turns, with two lines each"


@dataclass(frozen=True)
class Trick:
    service: str
    name: str
    without: str
    """What the server does instead."""
    load: Load | Stalled | Dialogue
    edits: tuple[tuple[str, str], ...]
    """Text of the server, and what stands there without the trick."""
    figure: str = "processor"
    """What is compared: processor, the server's time for each message, which other work on the machine, or a generator at its limit,
    changes least; memory, for each client; latency, the mean of all"""

    @property
    def path(self) -> Path:
        return ROOT / "services" / f"{self.service.replace('-', '_')}.py"

    def text(self) -> str:
        """The server without the trick. Raises Stale."""
        text = self.path.read_text()
        for old, new in self.edits:
            if (times := text.count(old)) != 1:
                raise Stale(
                    f"{self.path.relative_to(ROOT)} has {times} times what “{self.name}” in bench/tricks.py edits, not once:\n{old}"
                )
            text = text.replace(old, new)
        return text

    def subject(self, folder: Path) -> Subject:
        """The server without the trick, its file in this folder. Raises Stale."""
        file = folder / f"{len(list(folder.iterdir()))}.py"
        file.write_text(self.text())
        ours = self.ours()
        own = self.path.relative_to(ROOT).as_posix()
        command = tuple(str(file) if word == own else word for word in ours.service.command)
        assert command != ours.service.command
        return replace(
            ours, name=f"{self.service}, {self.without}", service=replace(ours.service, command=command)
        )

    def ours(self) -> Subject:
        return of_service(self.service, topology.read(ROOT / "docker-compose.yml"))


def _chat(senders: int, receivers: int, size: int = 64, rate: float = 0.0) -> Load:
    return Load(kind="fan-out", senders=senders, receivers=receivers, size=size, rate=rate, seconds=SECONDS)


def _echo(connections: int, in_flight: int = 1, rate: float = 0.0) -> Load:
    return Load(kind="echo", receivers=connections, in_flight=in_flight, rate=rate, seconds=SECONDS)


_NO_DELAY = "connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)"
_NAGLE = (_NO_DELAY, _NO_DELAY.replace("1)", "0)"))

TRICKS = (
    Trick(
        "chat-eventloop",
        "all lines of a turn in one block",
        "each line by itself",
        _chat(10, 100),
        (
            (
                'if said:\n        block = memoryview(b"\\n".join(said) + b"\\n")',
                'for line in said:\n        block = memoryview(line + b"\\n")',
            ),
        ),
    ),
    Trick(
        "chat-eventloop",
        "reads of 128 KiB",
        "of 64 KiB",
        _chat(1, 100),
        (("CHUNK = 131072", "CHUNK = 65536"),),
    ),
    Trick(
        "chat-eventloop",
        "reads of 128 KiB",
        "of 4 KiB",
        _chat(1, 100),
        (("CHUNK = 131072", "CHUNK = 4096"),),
    ),
    Trick(
        "chat-eventloop",
        "blocks of 128 KiB and little more",
        "of 16 KiB",
        _chat(100, 100, 1024),
        (("MAX_BLOCK = 131072", "MAX_BLOCK = 16384"),),
    ),
    Trick(
        "chat-eventloop",
        "recv_into() of one buffer",
        "recv()",
        Dialogue(turns=1000),
        (
            (
                "size = client.connection.recv_into(room.buffer)",
                "data = client.connection.recv(CHUNK)\n        size = len(data)",
            ),
            ("client.rest + room.buffer[:size]", "client.rest + data"),
        ),
    ),
    Trick(
        "chat-eventloop",
        "looks at all lines at once, in C",
        "at each",
        _chat(1, 1),
        (
            (
                'if b"quit" in lines or max(map(len, lines), default=0) > MAX_LINE:\n        end = next(n ',
                "end = next((n ",
            ),
            (
                'if line == b"quit" or len(line) > MAX_LINE)\n',
                'if line == b"quit" or len(line) > MAX_LINE), None)\n    if end is not None:\n',
            ),
            ("return list(filter(None, lines))", "return [line for line in lines if line]"),
        ),
    ),
    Trick(
        "chat-eventloop",
        "sends at once",
        "when select() says that there is room",
        Dialogue(turns=1000),
        (("if not client.pending:\n                try:", "if False:\n                try:"),),
    ),
    Trick(
        "chat-eventloop",
        "no Nagle's algorithm",
        "with it",
        Dialogue(),
        (_NAGLE,),
        "latency",
    ),
    Trick(
        "chat-eventloop",
        "many pending blocks in one sendmsg()",
        "one",
        Stalled(50, 1024),
        (("itertools.islice(client.pending, 100)", "itertools.islice(client.pending, 1)"),),
    ),
    Trick(
        "chat-eventloop",
        "a deque when something is pending",
        "from the beginning",
        Load(kind="idle", receivers=5000),
        (("self.pending = ()", "self.pending = collections.deque()"),),
        "memory",
    ),
    Trick(
        "chat-eventloop",
        "what is pending is the block of all",
        "a copy for each",
        Stalled(50, 32 << 10),
        (("owe(room, client, block[sent:])", "owe(room, client, memoryview(bytes(block[sent:])))"),),
        "memory",
    ),
    Trick(
        "eventloop",
        "sends at once",
        "when select() says that there is room",
        _echo(100),
        (
            (
                "sent = client.connection.send(client.pending)",
                "waits = client.events == selectors.EVENT_READ\n"
                "        sent = 0 if waits else client.connection.send(client.pending)",
            ),
        ),
    ),
    Trick(
        "eventloop",
        "keeps what it waits for",
        "asks get_key()",
        _echo(100),
        (("if client.events != wanted:", "if selector.get_key(client.connection).events != wanted:"),),
    ),
    Trick(
        "eventloop",
        "epoll",
        "poll()",
        _echo(1000, rate=2000),
        (("selectors.DefaultSelector()", "selectors.PollSelector()"),),
    ),
    Trick(
        "chat",
        "all lines of a read in one block",
        "each line by itself",
        _chat(1, 100),
        (
            (
                "            say(client, lines)",
                "            for line in lines:\n                say(client, [line])",
            ),
        ),
    ),
    Trick(
        "chat",
        "who hears sends at once",
        "leaves it to the second threads",
        _chat(1, 100, rate=200),
        (("            pay(each)\n", "            each.wake.notify()\n"),),
    ),
    Trick(
        "udp-registry",
        "looks at leases once in 1,000 datagrams",
        "after each",
        _chat(1, 1),
        (("BATCH = 1000", "BATCH = 1"),),
    ),
)


@dataclass(frozen=True)
class Worth:
    """Pairs of figures, each of the server as it is and without the trick, one right after the other."""

    trick: Trick
    pairs: Sequence[tuple[float, float]]

    @property
    def ratios(self) -> list[float]:
        """Above 1, the trick helps."""
        return [other / ours for ours, other in self.pairs]

    def line(self) -> str:
        trick, ratios = self.trick, self.ratios
        ours, other = (_shown(trick.figure, median(values)) for values in zip(*self.pairs, strict=True))
        worth = f"×{_few(median(ratios))} ({_few(min(ratios))}–{_few(max(ratios))})"
        cells = [
            f"`{trick.service}`",
            f"{trick.name}; without: {trick.without}",
            trick.load.name,
            ours,
            other,
            worth,
        ]
        return f"| {' | '.join(cells)} |"


def _few(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.0f}"


def _shown(figure: str, value: float) -> str:
    match figure:
        case "processor":  # seconds for a million are microseconds for one
            return f"{value * 1e3:.0f} ns" if value < 1 else f"{value:.1f} µs"
        case "latency":
            return duration(value)
        case _:
            kib = value / 1024
            return f"{kib:.2f} KiB a client" if kib < 10 else f"{kib:,.0f} KiB a client"


async def worth(trick: Trick, backend: Backend, folder: Path, rounds: int) -> Worth:
    """Measure. Raises Stale, LabError, and SystemExit where one of both does not deliver what it ought to."""
    both = [trick.ours(), trick.subject(folder)]
    if not isinstance(trick.load, Load):
        figures = [[alone(each, trick.load)[trick.figure] for each in both] for _ in range(rounds)]
        return Worth(trick, [(ours, other) for ours, other in figures])
    rows = await bench.compare(both, [trick.load], backend, rounds)
    for row in rows:
        if row.cannot or row.wrong:
            raise SystemExit(f"{row.subject.name}, {trick.load.name}: {row.cannot or '; '.join(row.wrong)}")
    return Worth(trick, list(zip(*(row.values(trick.figure) for row in rows), strict=True)))


def alone(subject: Subject, what: Stalled | Dialogue) -> dict[str, float]:
    """The figures of a chat under what no crowd does."""
    program = [sys.executable if word == "python" else word for word in subject.service.command]
    with (
        subprocess.Popen(
            [*program, "--host", "127.0.0.1", "--port", "0"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as server,
        ExitStack() as stack,
    ):
        stack.callback(server.terminate)
        assert server.stdout is not None
        _, _, host, port = server.stdout.readline().split()

        def join(buffer: int = 0) -> socket.socket:
            """A client who has heard its own line is in the room."""
            client = stack.enter_context(socket.socket())
            client.settimeout(60)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if buffer:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            client.connect((host, int(port)))
            client.sendall(b"here\n")
            _read(client, 5)
            return client

        if isinstance(what, Dialogue):
            return _dialogue(what, server.pid, join(), join())
        readers = [join(buffer=4096) for _ in range(what.clients)]
        return _stalled(what, server.pid, readers, join())


def _stalled(
    what: Stalled, server: int, readers: Sequence[socket.socket], speaker: socket.socket
) -> dict[str, float]:
    before, spent = holdings.read(server).memory, processor_time(server)
    line, lines = b"x" * (what.line - 1) + b"\n", what.said // what.line
    for _ in range(lines):
        speaker.sendall(line)
        _read(speaker, what.line)
    memory = holdings.read(server).memory - before
    for number, reader in enumerate(readers):
        later = 5 * (len(readers) - number)  # who came first has heard all the others come, and who speaks
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        _read(reader, later + lines * what.line)
    spent = processor_time(server) - spent
    return {"memory": memory / len(readers), "processor": spent / (lines * len(readers)) * 1e6}


def _dialogue(what: Dialogue, server: int, one: socket.socket, other: socket.socket) -> dict[str, float]:
    _read(one, 5)  # the other came
    times: list[float] = []
    spent = processor_time(server)
    for _ in range(what.turns):
        for speaker, hearer in ((one, other), (other, one)):
            for line in (b"first\n", b"second\n"):
                began = time.perf_counter()
                speaker.sendall(line)
                _read(hearer, len(line))
                times.append(time.perf_counter() - began)
                _read(speaker, len(line))
    spent = processor_time(server) - spent
    return {"latency": mean(times), "processor": spent / len(times) * 1e6}


def _read(client: socket.socket, size: int) -> None:
    while size:
        if not (data := client.recv(min(size, 1 << 18))):
            raise SystemExit("the server ended a connection")
        size -= len(data)


def table(found: Sequence[Worth]) -> Iterator[str]:
    yield "| server | trick | load | with it | without | worth |"
    yield "|---|---|---|---|---|---|"
    yield from (each.line() for each in found)


async def _measured() -> list[Worth]:
    for trick in TRICKS:
        trick.text()  # before minutes of measuring
    backend, found = player.backend("process"), []
    try:
        with tempfile.TemporaryDirectory(prefix="socklab-bench-") as folder:
            for trick in TRICKS:
                found.append(await worth(trick, backend, Path(folder), ROUNDS))
                print(found[-1].line(), flush=True)
    finally:
        await backend.close()
    return found


def main() -> None:
    try:
        found = asyncio.run(_measured())
    except Stale as exc:
        raise SystemExit(str(exc)) from None
    if "--keep" in sys.argv:
        before, _, rest = PAGE.read_text().partition(START)
        after = rest.partition(END)[2]
        PAGE.write_text("\n".join([before + START, "", *table(found), "", END + after]))

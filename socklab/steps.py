"""What a scenario is made of: clients, and steps with what they do, send and expect. Pure data.

`reader` makes them of what a file says; the performer does them, the judge says whether what they expect has come.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from socklab.source import printable

UNKILLED = "unkilled"
"""An exit status, of whatever number, that is no SIGKILL."""


@dataclass(frozen=True)
class Client:
    name: str
    beside: str | None = None
    """The client (or `server`) whose host it shares."""
    networks: tuple[str, ...] = ()
    """Networks by name; none: those of the compose file's `client`, or of the server."""
    of: int = 0
    """It is a crowd of so many clients in one program; 0: one client."""


@dataclass(frozen=True)
class Pattern:
    """What a single message is held against."""

    kind: str
    """contains, is, regex, bytes, any; or wire: words that all stand in what was seen on the wire"""
    value: str | bytes = ""
    """A text may hold {placeholders}."""

    def __str__(self) -> str:
        if self.kind == "any":
            return "any message"
        if self.kind == "wire":
            return f"on the wire {self.value!s}"
        if isinstance(self.value, bytes):
            return f"the bytes {self.value[:40]!r}" + ("…" if len(self.value) > 40 else "")
        if self.kind == "regex":
            return f"/{printable(self.value)}/"
        text = f'"{printable(self.value)}"'
        return f"exactly {text}" if self.kind == "is" else text


@dataclass(frozen=True)
class Expectation:
    """What one client (or the server) is to see.

    kind: sequence (the patterns in order), set (in any order), exactly (all that came), sent (all that came is what the
    client sent), eof, reset, error, exit. `family` marks a text with {n}, told out `count` times.
    """

    kind: str
    patterns: tuple[Pattern, ...] = ()
    count: int = 1
    family: bool = False
    once: bool = False
    log: bool = False
    word: str = ""
    """For error: which; for exit: the status."""

    def __str__(self) -> str:
        tail = ", nothing twice" if self.once else ""
        if self.kind in ("eof", "reset"):
            return f"the connection to end ({self.kind})"
        if self.kind == "error":
            return f'the error "{self.word}"'
        if self.kind == "exit" and self.word == UNKILLED:
            return "its process to end, without SIGKILL"
        if self.kind == "exit":
            return f"its process to end with status {self.word}"
        if self.kind == "sent":
            return "exactly what it sent"
        shown = ", ".join(str(p) for p in self.patterns[:6]) + (", …" if len(self.patterns) > 6 else "")
        if self.family:
            return f"{shown} for n = 1…{self.count}, in {'any ' if self.kind == 'set' else ''}order{tail}"
        if self.kind == "exactly":
            return f"exactly [{shown}] and nothing else"
        times = f" {self.count} times" if self.count > 1 else ""
        order = (
            "" if len(self.patterns) < 2 else " in this order" if self.kind == "sequence" else " in any order"
        )
        return f"{'a log line with ' if self.log else ''}{shown}{times}{order}{tail}"


@dataclass(frozen=True)
class Payload:
    """What one client sends in one step: messages, each cut into pieces."""

    text: str | None
    """A text with {placeholders}, or None where `raw` is given."""
    raw: bytes = b""
    lines: int | None = None
    repeat: int = 1
    pieces: tuple[str, ...] = ()
    pause: float = 0.0
    to: str | None = None


@dataclass(frozen=True)
class ConnectOptions:
    to: str | None = None
    port: int | None = None
    source_port: int | None = None
    fails: str | None = None
    over: str | None = None


@dataclass(frozen=True)
class LoadOptions:
    """What a crowd does. `rate` in messages a second of all together (0: as many as the server carries), `lasts` in seconds."""

    size: int = 64
    senders: int = 1
    in_flight: int = 1
    rate: int = 0
    lasts: float = 1.0
    messages: int = 0
    """At least so many."""

    def __str__(self) -> str:
        return f"{self.size}-byte messages for {self.lasts:g}s" + (
            f", {self.rate} a second" if self.rate else ""
        )


@dataclass(frozen=True)
class Step:
    verb: str
    line: int
    text: str
    """The step as it stands in the file, on one line."""
    names: tuple[str, ...] = ()
    connects: tuple[tuple[str, ConnectOptions], ...] = ()
    sends: tuple[tuple[str, tuple[Payload, ...]], ...] = ()
    expects: tuple[tuple[str, Expectation], ...] = ()
    windows: tuple[tuple[str, float], ...] = ()
    loads: tuple[tuple[str, LoadOptions], ...] = ()
    options: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()
    sockets: tuple[tuple[str, str, Mapping[str, str]], ...] = ()
    """Whose kernel, its peer (or `listen`), and what is wanted of the socket."""
    links: tuple[tuple[str, str], ...] = ()
    """Directed pairs of names; for heal: empty means all."""
    fault: Mapping[str, Any] = field(default_factory=dict)
    """The settings of a link fault, as its gate takes them; texts to match may hold {placeholders}."""
    steps: tuple[Step, ...] = ()
    times: int = 1
    seconds: float = 0.0
    within: float | None = None
    during: tuple[Step, ...] = ()
    lasts: float | None = None
    """Seconds after which the fault is undone."""
    capture: str | None = None
    hint: str = ""
    """The likely cause if it fails."""
    note: str | None = None

    def walk(self) -> Iterator[Step]:
        """This step, and every step inside it."""
        yield self
        for inner in (*self.steps, *self.during):
            yield from inner.walk()

"""What a play comes to, and what a person needs to know of it. Pure: made from a history and nothing else."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from socklab.history import Event, Past
from socklab.matching import shown
from socklab.scenario import Scenario


class Verdict(Enum):
    PASS = "pass"
    FAIL = "fail"  # the server is wrong
    ERROR = "error"  # the lab is broken, or it cannot be known
    SKIP = "skip"  # this backend cannot do it

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Failure:
    """A failed play in five lines: the step, what was expected, what came, what the server logged, the likely cause."""

    where: str
    step: str
    expected: str
    got: str
    server: str
    cause: str = ""
    start: bool = False
    """It never became a server."""

    def lines(self) -> list[str]:
        result = [
            f"{self.where}: {self.step}",
            f"expected  {self.expected}",
            f"got       {self.got}",
            f"server    {self.server}",
        ]
        return [*result, f"cause     {self.cause}"] if self.cause else result


@dataclass(frozen=True)
class Result:
    scenario: Scenario
    backend: str
    verdict: Verdict
    reason: str = ""
    """For skip and error: one or two lines, with the way out. For fail: the first thing that was wrong."""
    failure: Failure | None = None
    seconds: float = 0.0
    folder: Path | None = None
    notes: tuple[str, ...] = ()
    events: Past = field(default=(), repr=False)


def exit_code(verdicts: Iterable[Verdict], *, invalid: bool = False) -> int:
    """0 all that was played passed; 1 a server failed; 2 an invalid scenario; 3 the lab broke, or nothing was played.
    When several hold, 2 before 3 before 1."""
    seen = set(verdicts)
    if invalid:
        return 2
    if Verdict.ERROR in seen or not seen - {Verdict.SKIP}:
        return 3
    return 1 if Verdict.FAIL in seen else 0


def as_json(results: Iterable[Result]) -> str:
    """All verdicts, for a program: a list of objects with scenario, service, backend, verdict, reason, where, seconds, run."""
    rows = [
        {
            "scenario": str(r.scenario.path),
            "label": r.scenario.label,
            "service": r.scenario.service,
            "backend": r.backend,
            "verdict": str(r.verdict),
            "reason": r.reason,
            "where": r.failure.where if r.failure else None,
            "seconds": round(r.seconds, 3),
            "run": str(r.folder) if r.folder else None,
        }
        for r in results
    ]
    return json.dumps(rows, indent=1) + "\n"


class Tail:
    """The last few of many things that came."""

    def __init__(self, most: int, shown: Callable[[Event], str]) -> None:
        """`shown` makes each a text, once it is asked for."""
        self._last: deque[Event] = deque(maxlen=most)
        self._count = 0
        self._shown = shown

    def add(self, event: Event) -> None:
        self._last.append(event)
        self._count += 1

    def told(self, between: str) -> str:
        more = self._count - len(self._last)
        return (f"… {more} more, then " if more else "") + between.join(map(self._shown, self._last))


class Reception:
    """What a client got on its latest connection, for a person: the last few chunks, and how it ended."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._chunks = Tail(4, lambda event: shown(event.content))
        self._endings: list[str] = []

    def feed(self, event: Event) -> None:
        if event.kind == "connected":
            self._begin()
        elif event.kind == "received":
            self._chunks.add(event)
        elif event.kind in ("eof", "reset"):
            self._endings.append(event.kind)
        elif event.kind == "error":
            self._endings.append(f"error: {event.data.get('error')}")

    def __str__(self) -> str:
        if chunks := self._chunks.told(" "):
            return " ".join([chunks, *self._endings])
        return ", then ".join(["nothing", *filter(None, [", ".join(self._endings)])])


def server_log(events: Iterable[Event], most: int = 3) -> str:
    """The server's last words: what it logged and how it ended."""
    lines: deque[str] = deque(maxlen=most)
    ending = ""
    for event in events:
        if event.kind == "log":
            text = str(event.data["text"])
            if text.strip() and not text.startswith("ready "):
                lines.append(text)
        elif event.kind == "spawned":
            ending = ""
        elif event.kind == "exited":
            status = int(event.data["status"])
            ending = f" [ended {'by signal ' + str(-status) if status < 0 else 'with status ' + str(status)}]"
    tail = [shown(line.encode(errors="surrogateescape"), 100)[1:-1] for line in lines]
    return (" | ".join(tail) or "(it logged nothing)") + ending

"""What a play comes to, and what a person needs to know of it. Pure: made from a history and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from socklab.history import Event
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
    events: Sequence[Event] = field(default=(), repr=False)


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


def received(events: Iterable[Event], client: str, since: int = 0, most: int = 4) -> str:
    """What a client got, for a person: the last few chunks, or that there was nothing."""
    mine = [e for e in events if e.node == client and e.t >= since]
    connected = max((i for i, e in enumerate(mine) if e.kind == "connected"), default=0)
    mine = mine[connected:]
    chunks = [e for e in mine if e.kind == "received"]
    endings = [
        e.kind if e.kind != "error" else f"error: {e.data.get('error')}"
        for e in mine
        if e.kind in ("eof", "reset", "error")
    ]
    if not chunks and not endings:
        return f"{client}: nothing"
    parts = [f"… {len(chunks) - most} more, then"] if len(chunks) > most else []
    parts += [shown(e.content) for e in chunks[-most:]]
    return f"{client}: {' '.join(parts + endings) if chunks else 'nothing, then ' + ', '.join(endings)}"


def on_the_wire(events: Iterable[Event], most: int = 6) -> str:
    """The last of what TCP did, for a person."""
    told = [
        f"{e.data['from']}→{e.data['to']} {' '.join(e.data['words'])}" for e in events if e.kind == "wire"
    ]
    more = f"… {len(told) - most} more, then " if len(told) > most else ""
    return f"on the wire: {more}{', '.join(told[-most:]) or 'nothing of the kind'}"


def server_log(events: Iterable[Event], most: int = 3) -> str:
    """The server's last words: what it logged and how it ended."""
    lines: list[str] = []
    ending = ""
    for event in events:
        if event.kind == "log" and not str(event.data["text"]).startswith("ready "):
            lines.append(str(event.data["text"]))
        elif event.kind == "spawned":
            ending = ""
        elif event.kind == "exited":
            status = int(event.data["status"])
            ending = f" [ended {'by signal ' + str(-status) if status < 0 else 'with status ' + str(status)}]"
    tail = [shown(line.encode(errors="surrogateescape"), 100)[1:-1] for line in lines if line.strip()][-most:]
    return (" | ".join(tail) or "(it logged nothing)") + ending

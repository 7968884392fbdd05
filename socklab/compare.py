"""Architectures side by side: the same clients come to each server, and its history tells who waited for whom and what it held.

for each service: a few small plays ──▶ histories ──▶ one row of figures ──▶ table, JSON, plot
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from socklab import conductor
from socklab.backends import Backend, LabError
from socklab.conductor import Options
from socklab.scenario import Scenario, plays
from socklab.source import Source
from socklab.topology import Topology
from socklab.verdict import Result, Verdict

SERVICES = ("echo", "handler", "threaded", "forking", "eventloop")
CROWD, HELD = 50, 20
ROUNDS = 3

BEHIND_A_SILENT_ONE = """
title: A client behind a silent one
clauses: [echo.5]
service: {service}
clients: [silent, bob]
steps:
  - connect: silent
  - connect: bob
  - send: {{bob: hello}}
  - expect: {{bob: hello}}
"""
BEHIND_A_STALLED_ONE = """
title: A client behind one that does not read
clauses: [echo.5]
service: {service}
clients: [stalled, bob]
steps:
  - connect: stalled
  - stall: stalled
  - send: {{stalled: {{text: "0123456789abcdef", repeat: 12000}}}}
  - connect: bob
  - send: {{bob: hello}}
  - expect: {{bob: hello}}
"""
ALL_AT_ONCE = f"""
title: Many clients at once
clauses: [echo.5]
service: {{service}}
clients: [{{{{crowd: {CROWD}}}}}]
steps:
  - connect: crowd
  - send: {{{{crowd: hello}}}}
  - expect: {{{{crowd: hello}}}}
"""
WHAT_IT_HOLDS = f"""
title: What it holds for its clients
clauses: [echo.3]
service: {{service}}
clients: [{{{{crowd: {HELD}}}}}]
steps:
  - steady: server
  - connect: crowd
  - send: {{{{crowd1: hello}}}}
  - expect: {{{{crowd1: hello}}}}
  - steady: server
    within: 1ms
"""


@dataclass(frozen=True)
class Row:
    """One server. Times in seconds; None: not within the limit of a step."""

    service: str
    behind_silent: float | None
    behind_stalled: float | None
    served_at_once: int
    """Of CROWD clients."""
    threads: float
    processes: float
    descriptors: float
    memory: float
    """Bytes. These four: for each of HELD clients that are connected."""


class Broken(LabError):
    """A play that says nothing: of the lab, not of the server."""


async def compare(
    services: Sequence[str], topology: Topology, backend: Backend, options: Options
) -> list[Row]:
    """A row for each service, medians of ROUNDS. Raises Broken, TopologyError, ScenarioError."""
    rows = []
    for service in services:
        silent, stalled, many, held = [], [], [], []
        for _ in range(ROUNDS):
            results = await asyncio.gather(
                *(
                    _played(text, service, topology, backend, options)
                    for text in (BEHIND_A_SILENT_ONE, BEHIND_A_STALLED_ONE)
                )
            )
            silent.append(_answered_after(results[0], "bob"))
            stalled.append(_answered_after(results[1], "bob"))
            many.append(_served(await _played(ALL_AT_ONCE, service, topology, backend, options)))
            held.append(_held(await _played(WHAT_IT_HOLDS, service, topology, backend, options)))
        rows.append(
            Row(
                service,
                _median(silent),
                _median(stalled),
                int(median(many)),
                **{name: median(each[name] for each in held) for name in held[0]},
            )
        )
    return rows


async def _played(text: str, service: str, topology: Topology, backend: Backend, options: Options) -> Result:
    scenario: Scenario = plays(Source.parse(text.format(service=service), Path("compare.scenario.yaml")))[0]
    result = await conductor.play(scenario, topology, backend, options)
    if result.verdict in (Verdict.ERROR, Verdict.SKIP):
        raise Broken(f"{service}: {result.reason}")
    if result.failure is not None and result.failure.start:
        raise Broken(f"{service}: {result.failure.got}")
    return result


def _answered_after(result: Result, client: str) -> float | None:
    sent = next((e.t for e in result.events if e.kind == "sent" and e.node == client), None)
    got = next((e.t for e in result.events if e.kind == "received" and e.node == client), None)
    return (got - sent) / 1e9 if sent is not None and got is not None else None


def _served(result: Result) -> int:
    return len({e.node for e in result.events if e.kind == "received"})


def _held(result: Result) -> dict[str, float]:
    seen = [e.data for e in result.events if e.kind == "holdings"]
    before, after = seen[0], seen[-1]
    return {
        "threads": (after["threads"] - before["threads"] - after["children"] + before["children"]) / HELD,
        "processes": (after["children"] - before["children"]) / HELD,
        "descriptors": (after["descriptors"] - before["descriptors"]) / HELD,
        "memory": (after["memory"] - before["memory"]) / HELD,
    }


def _median(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return median(there) if len(there) * 2 > len(values) else None


def table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Cells for a person, the heading first."""
    heading = (
        "",
        "behind a silent",
        "behind a stalled",
        f"of {CROWD} at once",
        "threads",
        "processes",
        "descriptors",
        "memory",
    )
    under = ("", "client", "client", "", "a client", "a client", "a client", "a client")
    cells = [
        (
            row.service,
            _time(row.behind_silent),
            _time(row.behind_stalled),
            str(row.served_at_once),
            f"{row.threads:.2g}",
            f"{row.processes:.2g}",
            f"{row.descriptors:.2g}",
            f"{max(row.memory, 0) / 1024:.0f} KiB",
        )
        for row in rows
    ]
    return [heading, under, *cells]


def _time(seconds: float | None) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds is not None else "until it leaves"


def as_data(rows: Sequence[Row]) -> list[dict[str, object]]:
    return [asdict(row) for row in rows]


def plot(rows: Sequence[Row], path: Path) -> None:
    """One figure, a panel for each thing that is compared. Raises ImportError without matplotlib, OSError, ValueError."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels: list[tuple[str, list[float]]] = [
        (f"clients served at once (of {CROWD})", [row.served_at_once for row in rows]),
        ("ms behind a silent client", [_shown(row.behind_silent) for row in rows]),
        ("threads and processes a client", [row.threads + row.processes for row in rows]),
        ("KiB a client", [max(row.memory, 0) / 1024 for row in rows]),
    ]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(14, 3.2), layout="constrained")
    names = [row.service for row in rows]
    for axis, (title, values) in zip(axes, panels, strict=True):
        bars = axis.barh(names, values, color="#0072b2")  # of Okabe and Ito's palette, for any eyes
        never = [row.behind_silent is None and title.startswith("ms") for row in rows]
        labels = [
            "waits until it leaves" if no else f"{value:.3g}" if value < 100 else f"{value:,.0f}"
            for value, no in zip(values, never, strict=True)
        ]
        axis.bar_label(bars, labels, padding=3)
        axis.set_title(title, fontsize=10)
        axis.invert_yaxis()
        axis.margins(x=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    pyplot.close(figure)


def _shown(seconds: float | None) -> float:
    return seconds * 1e3 if seconds is not None else 0.0

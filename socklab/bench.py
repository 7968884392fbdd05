"""Servers under load side by side: in turns, several rounds, medians with their spread.

    subjects × loads ── round after round, each subject in turn ──▶ [Measured] ──▶ Row ──▶ table, JSON, plot

Each measurement has a server of its own, started anew, so that none inherits what another left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from socklab.backends import Backend
from socklab.load import Load, Measured, Subject, measure
from socklab.terminal import columns
from socklab.words import duration, safe

FULL = 0.95
"""Of a processor: a generator that takes more may be what is measured."""
_UNITS = {"echo": "round trips", "fan-out": "deliveries", "churn": "clients", "idle": "clients"}


@dataclass(frozen=True)
class Row:
    """One subject under one load, over all rounds."""

    subject: Subject
    load: Load
    rounds: Sequence[Measured]

    @property
    def cannot(self) -> str:
        return next((each.cannot for each in self.rounds if each.cannot), "")

    @property
    def wrong(self) -> tuple[str, ...]:
        """What was wrong in any round."""
        return tuple(dict.fromkeys(what for each in self.rounds for what in each.wrong))

    @property
    def limited(self) -> bool:
        """The generator had no time left, so the server may be able to do more."""
        return not self.load.rate and self.of("busy") >= FULL

    def of(self, name: str) -> float:
        """The median of a figure."""
        return median(self.values(name))

    def values(self, name: str) -> list[float]:
        return [value for each in self.rounds if (value := getattr(each, name)) is not None] or [0.0]

    def percentile(self, name: str) -> float | None:
        """The median of the rounds' percentiles, in seconds."""
        found = [each.percentiles[name] for each in self.rounds if name in each.percentiles]
        return median(found) if found else None

    def known(self, name: str) -> bool:
        return any(getattr(each, name) is not None for each in self.rounds)

    def as_data(self) -> dict[str, Any]:
        return {
            "subject": self.subject.name,
            "peer": self.subject.peer,
            "load": self.load.name,
            "kind": self.load.kind,
            "median": self.of("per_second"),
            "rounds": [each.as_data() for each in self.rounds],
        }


async def compare(
    subjects: Sequence[Subject],
    loads: Sequence[Load],
    backend: Backend,
    rounds: int = 3,
    pin: bool = True,
    patience: float = 1.0,
    told: Callable[[Measured], None] = lambda _: None,
) -> list[Row]:
    """Measure each subject under each load, in turns. Raises LabError and TopologyError."""
    rows = []
    for load in loads:
        found: dict[str, list[Measured]] = {subject.name: [] for subject in subjects}
        for _ in range(rounds):
            for subject in subjects:
                if found[subject.name] and found[subject.name][0].cannot:
                    continue
                measured = await measure(subject, load, backend, pin, patience)
                found[subject.name].append(measured)
                told(measured)
        rows += [Row(subject, load, found[subject.name]) for subject in subjects]
    return rows


def tables(rows: Sequence[Row]) -> Iterator[str]:
    """For a person: a table for each load, with ratios to the best peer."""
    for load in dict.fromkeys(row.load for row in rows):
        yield ""
        yield from _table(load, [row for row in rows if row.load == load])


def best_peer(rows: Iterable[Row]) -> Row | None:
    peers = [row for row in rows if row.subject.peer and not row.cannot]
    best = max(peers, key=lambda row: row.of("per_second"), default=None)
    return best if best and best.of("per_second") else None


def _table(load: Load, rows: Sequence[Row]) -> Iterator[str]:
    idle, timed = load.kind == "idle", load.rate > 0 or load.kind == "churn"
    best = best_peer(rows)
    unit = _UNITS[load.kind]
    heading = [load.name]
    heading += ["kept", "memory a client"] if idle else [f"{unit}/s"]
    heading += ["× best peer"] if best and not idle and not load.rate else []
    heading += ["p50", "p99", "p99.9"] if timed else []
    heading += [] if idle else [f"server, s a million {unit}", "generator"]
    cells = [tuple(heading)]
    for row in rows:
        if row.cannot:
            cells.append((row.subject.name, row.cannot, *[""] * (len(heading) - 2)))
            continue
        values = row.values("per_second")
        cell = [row.subject.name]
        if idle:
            cell += [f"{row.of('per_second'):,.0f}"]
            cell += [f"{row.of('memory') / 1024:.1f} KiB" if row.known("memory") else "–"]
        else:
            least = "≥ " if row.limited else ""
            spread = f" ({shown(min(values))}–{shown(max(values))})" if len(values) > 1 else ""
            cell += [f"{least}{shown(median(values))}{spread}"]
        if best and not idle and not load.rate:
            cell += [f"{row.of('per_second') / best.of('per_second'):.2f}"]
        if timed:
            cell += [duration(row.percentile(name)) for name in ("p50", "p99", "p99.9")]
        if not idle:
            cell += [_few(row.of("processor")) if row.known("processor") else "–", f"{row.of('busy'):.0%}"]
        cells.append(tuple(cell))
    yield from columns(cells)
    for row in rows:
        if (left := int(row.of("descriptors"))) > 0 and not row.cannot:
            yield f"  {row.subject.name}: {left:,} descriptors more than before when the clients had gone"
        if unsaid := int(row.of("unsaid")):
            yield f"  {row.subject.name}: did not take {unsaid:,} messages that were due; they are in no latency"
        if row.wrong and not row.cannot:
            yield f"  {row.subject.name}: {'; '.join(row.wrong)}"
        if printed := next((each.printed for each in row.rounds if each.printed), ""):
            yield f"  {row.subject.name}: its last line: {safe(printed)[:200]}"
    if (
        load.rate
        and not idle
        and (late := max((row.of("late") for row in rows if not row.cannot), default=0)) > 1e-3
    ):
        yield f"  the generator was up to {duration(late)} late itself; that is in the latencies"
    if error := max((row.of("clock_error") for row in rows if not row.cannot), default=0):
        yield f"  agents are on several machines: latencies are right to ±{duration(error)}, the error of their clocks"
    if any(row.limited for row in rows if not row.cannot):
        yield "  ≥: the generator had no time left; the server may do more (another --agents, on more processors)"


def shown(number: float) -> str:
    """`41.2 M`, `97.3 k`, `812`"""
    if number >= 1e6:
        return f"{number / 1e6:.3g} M"
    if number >= 1e4:
        return f"{number / 1e3:.3g} k"
    return f"{number:,.0f}"


def _few(seconds: float) -> str:
    """`2,580`, `1.53`, `0.0163`"""
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"


def as_data(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [row.as_data() for row in rows]


def plot(rows: Sequence[Row], path: Path) -> None:
    """One figure, a panel for each load. Raises ImportError without matplotlib, OSError, ValueError."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    loads = list(dict.fromkeys(row.load for row in rows))
    across = min(len(loads), 2)
    down = -(-len(loads) // across)
    subjects = len({row.subject.name for row in rows})
    figure, axes = pyplot.subplots(
        down,
        across,
        figsize=(6.5 * across, (0.6 + 0.32 * subjects) * down),
        layout="constrained",
        squeeze=False,
    )
    flat = [axis for line in axes for axis in line]
    for axis, load in zip(flat, loads, strict=False):
        _panel(axis, load, [row for row in rows if row.load == load and not row.cannot])
    for axis in flat[len(loads) :]:
        axis.set_visible(False)
    figure.savefig(path)
    pyplot.close(figure)


def _panel(axis: Any, load: Load, rows: Sequence[Row]) -> None:
    """Bars with the spread of the rounds; of a rate, the latencies."""
    if load.rate:
        values = [(row.percentile("p99") or 0.0) * 1e3 for row in rows]
        spread = [[each.percentiles.get("p99", 0.0) * 1e3 for each in row.rounds] for row in rows]
        title, labels = f"{load.name}: p99 in ms (less is better)", [f"{value:.3g}" for value in values]
    elif load.kind == "idle":
        spread = [[value / 1024 for value in row.values("memory")] for row in rows]
        values = [median(each) for each in spread]
        title, labels = f"{load.name}: KiB a client (less is better)", [f"{value:.2g}" for value in values]
    else:
        spread = [row.values("per_second") for row in rows]
        values = [median(each) for each in spread]
        title, labels = f"{load.name}: {_UNITS[load.kind]}/s", [shown(value) for value in values]
    errors = [
        [value - min(each) for value, each in zip(values, spread, strict=True)],
        [max(each) - value for value, each in zip(values, spread, strict=True)],
    ]
    # Two of Okabe and Ito's colours, for any eyes: ours (or one's own), and peers.
    colours = ["#e69f00" if row.subject.peer else "#0072b2" for row in rows]
    bars = axis.barh([row.subject.name for row in rows], values, xerr=errors, color=colours, ecolor="#555555")
    axis.bar_label(bars, labels, padding=4)
    axis.set_title(title, fontsize=10)
    axis.invert_yaxis()
    axis.margins(x=0.25)
    axis.set_xticks([])
    axis.spines[["top", "right", "bottom"]].set_visible(False)

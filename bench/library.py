"""The library's time, split into work and waiting, and what is waited for. `python -m bench library`.

Plays go on side by side, so their seconds add up to more than the wall's. Each moment of a play belongs to the step that began last of
those that go on; work is the CPU time of all that was started.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections import Counter
from pathlib import Path

from bench.figures import ROOT, SOCKLAB, row, spread, wall
from socklab import player
from socklab.conductor import Options
from socklab.history import Event, Past
from socklab.verdict import Result

TOLD = 0.02
"""Share of the time from which a kind of step has a line of its own."""
SLOWEST = 3


async def played(paths: list[Path]) -> list[Result]:
    selection = player.select(player.find(paths), ROOT / "docker-compose.yml")
    backend, _ = await player.choose("auto")
    try:
        return [result async for result in player.play_all(selection.scenarios, backend, Options())]
    finally:
        await backend.close()


def split(result: Result) -> Counter[str]:
    """Nanoseconds of one play by what it was at: a verb, or `start`, `end` and `lab` around the steps."""
    spent: Counter[str] = Counter()
    at, since = "start", 0
    going: list[Event] = []
    first = last = 0
    for event in _marks(result.events):
        if event.kind == "play":
            first = since = event.t
            continue
        spent[at] += event.t - since
        since = last = event.t
        if event.kind == "step" and event.data["phase"] == "begin":
            going.append(event)
        elif event.kind == "step":
            going = [step for step in going if step.data["path"] != event.data["path"]]
        at = str(going[-1].data["verb"]) if going else "end"
    spent["lab"] = round(result.seconds * 1e9) - (last - first)
    return spent


def _marks(events: Past) -> list[Event]:
    return [event for event in events if event.kind in ("play", "step", "verdict")]


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


NAMES = {
    "start": "the start of servers and agents",
    "lab": "making the lab, and taking it down",
    "end": "between steps, and the last look",
}


def main() -> None:
    row(
        "the whole library",
        spread(wall([*SOCKLAB, "play", "--quiet", "--no-runs"], 3), 1, "s"),
        "≤ 15 s on two cores",
    )
    began, cpu = time.perf_counter(), _cpu()
    results = asyncio.run(played([ROOT / "scenarios"]))
    seconds, cpu = time.perf_counter() - began, _cpu() - cpu
    cores = len(os.sched_getaffinity(0))
    row(f"  {len(results)} plays once more, here: work", f"{cpu:.1f} s of CPU in {seconds:.1f} s", "–")
    row(
        f"  {cores} cores at work, and idle while all wait",
        f"{cpu / seconds / cores:.0%}, {1 - cpu / seconds / cores:.0%}",
        "–",
    )
    spent: Counter[str] = sum((split(result) for result in results), Counter())
    whole = spent.total()
    row("  the plays' own seconds, side by side", f"{whole / 1e9:.1f} s", "–")
    for what, each in spent.most_common():
        if each >= TOLD * whole:
            row(f"    {NAMES.get(what, what)}", f"{each / 1e9:.1f} s = {each / whole:.0%}", "–")
    for result in sorted(results, key=lambda result: -result.seconds)[:SLOWEST]:
        row(f"    one of the longest: {result.scenario.label}"[:58], f"{result.seconds:.1f} s", "–")

"""What an event of a play costs, and how that grows with clients and with what has happened. `python -m bench growth`.

The conductor's own CPU time and memory, in a process of its own for each play; servers and agents work beside it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.figures import ROOT, chat_of, output, row

CROWDS = ((1, 5000), (10, 1000), (50, 400), (100, 200))
"""Clients, and lines that all of them hear: about 10,000 events, but for the first."""
MILLION = (100, 10_000)
PART = 10_000
"""Events at the beginning and at the end that are compared."""


async def _play(path: Path, runs: Path) -> dict[str, Any]:
    from socklab import conductor, player
    from socklab.conductor import Options
    from socklab.history import Event

    cpu = [time.process_time()]
    memory: list[int] = []
    count = 0

    def happened(_: Event) -> None:
        nonlocal count
        count += 1
        if count % PART == 0:
            cpu.append(time.process_time())
            memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())

    (scenario, topology), *_ = player.select([path], ROOT / "docker-compose.yml").scenarios
    backend, _why = await player.choose("netns")
    began = time.perf_counter()
    try:
        result = await conductor.play(
            scenario, topology, backend, Options(runs=runs, capture=False, on_event=happened)
        )
    finally:
        await backend.close()
    return {
        "verdict": str(result.verdict),
        "events": count,
        "wall": time.perf_counter() - began,
        "cpu": time.process_time() - cpu[0],
        "parts": [b - a for a, b in itertools.pairwise(cpu)],
        "memory": memory,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    }


def measured(clients: int, lines: int) -> dict[str, Any]:
    """A play in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.scenario.yaml"
        path.write_text(chat_of(clients, lines))
        figures: dict[str, Any] = json.loads(output([sys.executable, "-m", "bench.growth", str(path)]))
    if figures["verdict"] != "pass":
        raise SystemExit(f"the play of {clients} clients came to {figures['verdict']}")
    return figures


def main() -> None:
    for clients, lines in CROWDS:
        figures = measured(clients, lines)
        each = figures["cpu"] / figures["events"] * 1e6
        row(
            f"an event, {clients} clients, {figures['events']:,} of them: CPU",
            f"{each:.0f} µs",
            "as flat as can be",
        )
    figures = measured(*MILLION)
    early, late = figures["parts"][1], figures["parts"][-1]
    grown = (figures["memory"][-1] - figures["memory"][1]) / (len(figures["memory"]) - 2) / PART
    row(
        f"{figures['events']:,} events, {MILLION[0]} clients",
        f"{figures['wall']:.0f} s, CPU {figures['cpu']:.0f} s",
        "–",
    )
    row(
        f"  an event, {PART:,} near the beginning and at the end: CPU",
        f"{early / PART * 1e6:.0f} and {late / PART * 1e6:.0f} µs",
        "equal",
    )
    row("  memory that an event leaves behind", f"{grown:.0f} bytes", "≤ 300 bytes")
    row("  memory at most, with its report", f"{figures['peak'] >> 20} MiB", "≤ 500 MiB")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        place = Path(sys.argv[1])
        print(json.dumps(asyncio.run(_play(place, place.parent / "runs"))))
    else:
        main()

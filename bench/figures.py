"""What the benches have in common: whole processes timed, plays timed, a figure as a line of text."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOCKLAB = [sys.executable, "-m", "socklab"]


def row(what: str, value: str, goal: str) -> None:
    print(f"{what:<58} {value:>24}   goal {goal}", flush=True)


def spread(times: Sequence[float], unit: float = 1e3, name: str = "ms") -> str:
    """Median, and minimum to maximum."""
    return f"{statistics.median(times) * unit:.1f} {name} ({min(times) * unit:.1f}–{max(times) * unit:.1f})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Of pairs that were measured one right after the other: the median of their ratios, and minimum to maximum."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return f"×{statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})"


def output(argv: Sequence[str], text: str | None = None, limit: float | None = None) -> str:
    """What a program says on stdout, with `text` on its stdin; where it fails, the bench ends with what it said."""
    done = subprocess.run(argv, cwd=ROOT, input=text, capture_output=True, text=True, timeout=limit)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(argv)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}"
        )
    return done.stdout


def wall(argv: Sequence[str], runs: int) -> list[float]:
    """Seconds of whole processes, from the shell's point of view."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        output(argv)
        times.append(time.perf_counter() - began)
    return times


def play(text: str, runs: int, on: str = "auto") -> list[float]:
    """Seconds of `socklab play` with this scenario."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.scenario.yaml"
        path.write_text(text)
        options = ["--quiet", "--no-runs", "--on", on, "--compose", str(ROOT / "docker-compose.yml")]
        return wall([*SOCKLAB, "play", *options, str(path)], runs)


FOUR = """\
title: Four clients chat
service: chat
clients: [alice, bob, carol, dave]
steps:
  - connect: everyone
  - send: {alice: hello}
  - expect: {everyone: hello}
  - send: {dave: bye}
  - expect: {everyone: bye}
"""


def chat_of(clients: int, rounds: int) -> str:
    """A scenario in which one client speaks and all hear it, again and again."""
    return f"""\
title: {clients} clients, {rounds} lines
service: chat-eventloop
clients: [{", ".join(f"c{number}" for number in range(clients))}]
steps:
  - connect: everyone
  - repeat:
      times: {rounds}
      steps:
        - send: {{c0: "line {{round}}."}}
        - expect: {{everyone: "line {{round}}."}}
"""


def round_trips(rounds: int) -> str:
    return f"""\
title: {rounds} round trips
service: eventloop
clients: [alice]
steps:
  - connect: alice
  - repeat:
      times: {rounds}
      steps:
        - send: {{alice: "x{{round}};"}}
        - expect: {{alice: "x{{round}};"}}
"""


ROUNDS = 500


def step(on: str = "auto") -> float:
    """Seconds of a step (send or expect) with its round trip: of many of them, less the start and the end of a play."""
    many, one = play(round_trips(ROUNDS), 3, on), play(round_trips(1), 3, on)
    return (statistics.median(many) - statistics.median(one)) / (2 * (ROUNDS - 1))

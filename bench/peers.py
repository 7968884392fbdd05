"""Our servers beside those of others, in one run: the tables and plots of docs/peers.md.

python -m bench peers            all of it, some 25 minutes; peers that are not installed are skipped by name
python -m bench peers --short    what CI does: the least that shows the ratios, beside those that bench/ratios.json keeps
python -m bench peers --short --keep    the same, and keeps them
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.figures import ROOT
from socklab import bench, peers, player, topology
from socklab.load import Load, Subject, of_service

PICTURES = ROOT / "docs" / "pictures"
PAGE = ROOT / "docs" / "peers.md"
KEPT = ROOT / "bench" / "ratios.json"


@dataclass(frozen=True)
class Part:
    """One of the comparisons, with a plot of its own."""

    name: str
    title: str
    contract: str
    ours: tuple[str, ...]
    loads: tuple[Load, ...]


def _fan_out(senders: int, receivers: int, size: int, **more: float) -> Load:
    return Load(kind="fan-out", senders=senders, receivers=receivers, size=size, **more)  # type: ignore[arg-type]


SECONDS = 0.7
"""Of a measurement, after 0.3 that do not count."""
SHAPES = ((1, 100), (10, 100), (100, 100), (1, 2000))
LONG = (
    Part(
        "chat",
        "Chat: as many lines as can be",
        "chat",
        ("chat-eventloop", "chat"),
        tuple(_fan_out(*shape, size, seconds=SECONDS) for size in (64, 1024) for shape in SHAPES),
    ),
    Part(
        "chat-latency",
        "Chat: latencies at 100,000 deliveries a second",
        "chat",
        ("chat-eventloop", "chat"),
        tuple(_fan_out(1, 100, size, rate=1000.0, seconds=3 * SECONDS) for size in (64, 1024)),
    ),
    Part(
        "echo",
        "Echo: as many round trips as can be",
        "echo",
        ("eventloop", "threaded"),
        tuple(Load(kind="echo", receivers=number, seconds=SECONDS) for number in (1, 100, 1000, 10_000)),
    ),
    Part(
        "registry",
        "UDP registry: as many datagrams as can be",
        "registry",
        ("udp-registry",),
        (_fan_out(1, 10, 64, seconds=SECONDS), _fan_out(1, 100, 64, seconds=SECONDS)),
    ),
    Part(
        "idle",
        "Chat: clients who say nothing",
        "chat",
        ("chat-eventloop",),
        (Load(kind="idle", receivers=10_000),),
    ),
)
ROUNDS = 3
SHORT = (
    Part("chat", "Chat", "chat", ("chat-eventloop",), (_fan_out(10, 100, 64, seconds=0.5),)),
    Part("echo", "Echo", "echo", ("eventloop",), (Load(kind="echo", receivers=100, seconds=0.5),)),
    Part("registry", "UDP registry", "registry", ("udp-registry",), (_fan_out(1, 100, 64, seconds=0.5),)),
)


HEAD = """# Beside peers

Made by `python -m bench peers`, in one run: each server started anew for each measurement, {rounds} rounds in turns, medians with the least and the most in brackets, over loopback; the server on one
processor, the generator on another. {machine} [bench.md](bench.md) says what the figures mean and how they are made. Every byte that was delivered was checked."""


def _machine() -> str:
    linux = ".".join(platform.release().split(".")[:2])
    return f"{os.cpu_count()} processors, Linux {linux}, Python {platform.python_version()}."


def main() -> None:
    short = "--short" in sys.argv
    asyncio.run(_measured(SHORT if short else LONG, ROUNDS, short))


async def _measured(parts: Sequence[Part], rounds: int, short: bool) -> None:
    backend, kept, page = player.backend("process"), [], [HEAD.format(rounds=rounds, machine=_machine())]
    told: set[str] = set()
    try:
        with tempfile.TemporaryDirectory(prefix="socklab-bench-") as folder:
            for part in parts:
                subjects = _subjects(part, Path(folder), told)
                rows: list[bench.Row] = []
                for load in part.loads:  # each is told when it is known
                    rows += await bench.compare(subjects, [load], backend, rounds)
                    print(*bench.tables([row for row in rows if row.load == load]), sep="\n", flush=True)
                kept += ratios(rows)
                page.append(
                    "\n".join([f"## {part.title}\n", "```text", *list(bench.tables(rows))[1:], "```"])
                )
                if not short and part.name != "idle":
                    bench.plot(rows, PICTURES / f"peers-{part.name}.svg")
                    page.append(f"![{part.title}](pictures/peers-{part.name}.svg)")
    finally:
        await backend.close()
    if not short:
        PAGE.write_text("\n\n".join(page) + "\n")
    if short:
        print("", *_beside(kept), sep="\n")
    if "--keep" in sys.argv:
        KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def _beside(now: Sequence[dict[str, object]]) -> Iterator[str]:
    """These ratios beside those that were kept: for a reader to judge, since a busy machine moves them by a third."""
    before = json.loads(KEPT.read_text()) if KEPT.exists() else []
    for each in now:
        name = f"{each['service']}, {each['load']}, to {each['best peer']}"
        told = [f"carried ×{each['carried']}, processor time ×{each['processor time']}"]
        told += [
            f"(kept: ×{old['carried']}, ×{old['processor time']})"
            for old in before
            if all(old[key] == each[key] for key in ("service", "load", "best peer"))
        ]
        yield f"{name}: {' '.join(told)}"


def _subjects(part: Part, folder: Path, told: set[str]) -> list[Subject]:
    lab_file = topology.read(ROOT / "docker-compose.yml")
    subjects = [of_service(name, lab_file) for name in part.ours]
    for peer in peers.PEERS:
        if peer.contract == part.contract and part.name != "idle":
            try:
                subjects.append(peer.subject(folder))
            except peers.Missing as exc:
                if peer.name not in told:
                    print(f"skipped: {exc}")
                told.add(peer.name)
    return subjects


def ratios(rows: Sequence[bench.Row]) -> list[dict[str, object]]:
    """Of each of ours to the best peer: what it carried, and what a message cost it of processors."""
    best = {
        load: bench.best_peer([row for row in rows if row.load == load]) for load in {r.load for r in rows}
    }
    return [
        {
            "service": row.subject.name,
            "load": row.load.name,
            "best peer": peer.subject.name,
            "carried": round(row.of("per_second") / peer.of("per_second"), 3),
            "processor time": round(row.of("processor") / (peer.of("processor") or 1), 3),
        }
        for row in rows
        if not row.subject.peer and not row.cannot and (peer := best[row.load]) is not None
    ]

"""The live page under way: how long until an event is with twenty viewers, and what they cost the play. `python -m bench viewers`.

The viewers are connections as browsers make them, read by this process; the server of pages plays in another. An event's own time and
a viewer's are of the same clock (CLOCK_MONOTONIC). Plays with twenty viewers, with none, and without the page take turns. What the
viewers cost is told also as CPU time of the process that plays: that is the same on a busy machine.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import selectors
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.figures import ROOT, SOCKLAB
from socklab import holdings
from socklab.history import read

VIEWERS = 20
PAIRS = 11
ROUNDS = 250
SCENARIO = f"""\
title: Four clients in a busy room
service: chat-eventloop
clients: [alice, bob, carol, dave]
steps:
  - connect: everyone
  - repeat:
      times: {ROUNDS}
      steps:
        - send: {{alice: "line {{round}}."}}
        - expect: {{everyone: "line {{round}}."}}
"""
PACED = (
    SCENARIO.replace("Four clients in a busy room", "Four clients who take their time")
    + """\
        - wait: 10ms
          note: about a thousand events a second
"""
)


class Serving:
    """`socklab serve` with that scenario."""

    def __init__(self, folder: Path) -> None:
        self.runs = folder / "runs"
        words = [
            "serve",
            "--port",
            "0",
            "--runs",
            str(self.runs),
            "--compose",
            str(ROOT / "docker-compose.yml"),
        ]
        self.process = subprocess.Popen(
            [*SOCKLAB, *words, str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().split(":")[2].rstrip("/\n"))
        self.scenarios = {each["label"]: each["id"] for each in self.ask("GET", "/scenarios")}

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request(method, path, json.dumps(body))
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    def play(self, label: str, viewers: int) -> tuple[float, float, list[float]]:
        """Seconds of the rounds, CPU seconds of the whole play, and for each event and viewer the seconds until it was there."""
        before, spent = set(self.runs.glob("*")), self._spent()
        play = self.ask("POST", "/plays", {"scenario": self.scenarios[label]})["id"]
        seen = _watch(self.port, play, viewers)
        while not _ended(self.runs, before):
            time.sleep(0.05)
        (folder,) = set(self.runs.glob("*")) - before
        return _rounds(folder), self._spent() - spent, _latencies(folder, seen)

    def _spent(self) -> float:
        """CPU seconds of the process that plays and serves (proc(5), "stat": utime, stime)."""
        return sum(map(int, holdings.stat(self.process.pid)[11:13])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def _ended(runs: Path, before: set[Path]) -> bool:
    return any((folder / "report.html").exists() for folder in set(runs.glob("*")) - before)


def _watch(port: int, play: str, count: int) -> list[list[tuple[int, bytes]]]:
    """What each viewer got and when (ns), to the end of the play."""
    seen: list[list[tuple[int, bytes]]] = [[] for _ in range(count)]
    with selectors.DefaultSelector() as selector:
        for each in seen:
            viewer = socket.create_connection(("127.0.0.1", port))
            viewer.sendall(f"GET /plays/{play}/marks HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            selector.register(viewer, selectors.EVENT_READ, each)
        while selector.get_map():
            for key, _ in selector.select():
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                data = ready.recv(1 << 18)
                key.data.append((time.monotonic_ns(), data))
                if not data or data.endswith(b"0\r\n\r\n"):
                    selector.unregister(ready)
                    ready.close()
    return seen


def _latencies(folder: Path, seen: list[list[tuple[int, bytes]]]) -> list[float]:
    begin = read(folder / "history.jsonl")[0].t
    found: list[float] = []
    for chunks in seen:
        text, ends = b"", []
        for t, data in chunks:
            text += data
            ends.append((len(text), t))
        known: set[str] = set()
        at = 0
        for batch in re.finditer(rb"data: (\[.*?\])\n\n", text):
            while ends[at][0] < batch.end():
                at += 1
            for mark in json.loads(batch[1].replace(b"\r\n", b"")):
                when = mark.get("at", mark.get("end") if mark["mark"] == "arrow" else None)
                if when is not None and mark["id"] not in known:
                    known.add(mark["id"])
                    found.append((ends[at][1] - begin - when) / 1e9)
    return found


def _rounds(folder: Path) -> float:
    steps = [e for e in read(folder / "history.jsonl") if e.kind == "step" and e.data["verb"] == "repeat"]
    return (steps[1].t - steps[0].t) / 1e9


def _alone(folder: Path) -> float:
    """The same without any page."""
    runs = folder / "alone"
    words = [
        "play",
        "--quiet",
        "--runs",
        str(runs),
        "--compose",
        str(ROOT / "docker-compose.yml"),
        str(folder / "busy.scenario.yaml"),
    ]
    subprocess.run([*SOCKLAB, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return _rounds(max(runs.glob("*"), key=lambda p: p.name))


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "busy.scenario.yaml").write_text(SCENARIO)
        (folder / "paced.scenario.yaml").write_text(PACED)
        serving = Serving(folder)
        try:
            watched, unwatched, alone, costs, flood, paced = [], [], [], [], [], []
            for _ in range(PAIRS):
                seconds, with_viewers, latencies = serving.play("busy", VIEWERS)
                watched.append(seconds)
                flood += latencies
                seconds, without, _ = serving.play("busy", 0)
                unwatched.append(seconds)
                costs.append(with_viewers / without)
                alone.append(_alone(folder))
            for _ in range(2):
                paced += serving.play("paced", VIEWERS)[2]
        finally:
            serving.close()
    for what, late in (
        ("a thousand events a second", sorted(paced)),
        ("as fast as both cores can", sorted(flood)),
    ):
        median, most, longest = (late[int(len(late) * q) - 1] * 1e3 for q in (0.5, 0.99, 1.0))
        print(
            f"an event is with {VIEWERS} viewers, {what}, after   median {median:.0f}, p99 {most:.0f}, longest {longest:.0f} ms   goal ≤ 100 ms"
        )
    print(
        f"CPU time of the process that plays, with {VIEWERS} viewers beside none   ×{statistics.median(costs):.2f} ({min(costs):.2f}–{max(costs):.2f})"
    )
    for what, times in ((f"{VIEWERS} viewers", watched), ("no viewer", unwatched)):
        ratios = [a / b for a, b in zip(times, alone, strict=True)]
        print(
            f"{ROUNDS} rounds of a chat with {what}, beside the same without the page   ×{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})   goal ≤ ×1.05"
        )

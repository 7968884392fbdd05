"""How long a lab takes to come up and to go, beside Mininet and plain Docker Compose. `python -m bench lab`.

    netns     a lab of so many hosts on one network; then each host's agent has said its first word
    Mininet   so many hosts on one Linux bridge, no controller: build() and start(); stop()       (Debian package mininet; as root)
    Compose   `docker compose up --detach` of so many containers that sleep; `down`              (an engine, and the image)

They take turns, so that what else the machine does concerns all of them. A peer that is not here is named and left out.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from bench.figures import output, ratio, row, spread
from socklab.backends import Lab, Network, Node
from socklab.backends.netns import Netns

OFTEN = {
    "Mininet": {1: 15, 10: 9, 50: 5, 100: 3, 200: 3},
    "Compose": {1: 5, 10: 3, 50: 3},
}
"""How many hosts, and how many pairs of them; the large ones take minutes there."""
SETTLED = 0.5
"""Seconds between any two. A namespace that nobody holds any more is cleared away by the kernel later (cleanup_net), under the lock that
the next one needs to come up (rtnl): else who comes second waits for what the first one left, tens of milliseconds."""
ALONE = {1: 7, 10: 7, 50: 5, 100: 5, 200: 3}
GOALS = {"Mininet": "≤ ×0.15; with agents ≤ ×0.25", "Compose": "with agents ≤ ×0.05"}
IMAGE = os.environ.get("PYTHON_IMAGE", "python:3.13-slim")

MININET = """
import sys, time
from mininet.log import setLogLevel
from mininet.net import Mininet
from mininet.nodelib import LinuxBridge
from mininet.topo import SingleSwitchTopo
setLogLevel("error")
print("ready", flush=True)
for line in sys.stdin:
    net = Mininet(topo=SingleSwitchTopo(int(line)), switch=LinuxBridge, controller=None, build=False)
    began = time.perf_counter()
    net.build()
    net.start()
    up = time.perf_counter()
    net.stop()
    print(up - began, time.perf_counter() - up, flush=True)
"""
Ours = tuple[float, float, float]
"""Seconds until the hosts are there, until each has its agent ready, and to go."""
Peer = Callable[[int], tuple[float, float]]
"""So many hosts: seconds to come up, and to go."""


class Missing(Exception):
    """A peer is not here; the message says what would help."""


async def netns(backend: Netns, count: int) -> Ours:
    nodes = [Node(f"n{number}", ("lab",)) for number in range(count)]
    await asyncio.sleep(SETTLED)
    began = time.perf_counter()
    lab = await backend.lab([Network("lab")], nodes)
    made = time.perf_counter()
    await asyncio.gather(*(_agent(lab, node.name) for node in nodes))
    ready = time.perf_counter()
    await lab.stop()
    return made - began, ready - began, time.perf_counter() - ready


async def _agent(lab: Lab, node: str) -> None:
    stream = await lab.inside(node, "agent")
    stream.setblocking(False)
    await asyncio.get_running_loop().sock_recv(stream, 4096)  # its hello
    stream.close()


def mininet(stack: ExitStack) -> Peer:
    """Debian's Mininet belongs to Debian's Python."""
    python = "/usr/bin/python3"
    if subprocess.run([python, "-c", "import mininet"], capture_output=True).returncode:
        raise Missing("Mininet is not here: apt-get install mininet")
    if os.geteuid():
        raise Missing("Mininet runs as root only")
    process = subprocess.Popen(
        [python, "-c", MININET],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    stack.callback(process.communicate)
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def said() -> str:
        if not (line := stdout.readline()):
            assert process.stderr is not None
            raise Missing(f"Mininet does not work here: {process.stderr.read().strip().splitlines()[-1:]}")
        return line

    said()

    def measured(count: int) -> tuple[float, float]:
        stdin.write(f"{count}\n")
        stdin.flush()
        up, down = map(float, said().split())
        return up, down

    measured(1)  # what is done once only
    return measured


def compose() -> Peer:
    for argv, way_out in (
        (["docker", "compose", "version"], "Docker Compose is not here"),
        (["docker", "version"], "no Docker engine answers"),
        (["docker", "image", "inspect", IMAGE], f"the image is not here: docker pull {IMAGE}"),
    ):
        try:
            subprocess.run(argv, capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            raise Missing(way_out) from None
    project = f"socklab-bench-{os.getpid()}"
    service = {"image": IMAGE, "command": ["sleep", "1000"], "networks": ["lab"]}
    text = json.dumps({"name": project, "services": {"node": service}, "networks": {"lab": {}}})

    def run(*words: str) -> float:
        began = time.perf_counter()
        argv = ["docker", "compose", "--project-name", project, "--file", "-", *words]
        output(argv, text)
        return time.perf_counter() - began

    def measured(count: int) -> tuple[float, float]:
        try:
            up = run("up", "--detach", "--scale", f"node={count}")
        finally:
            down = run("down", "--timeout", "0")
        return up, down

    return measured


def main() -> None:
    with asyncio.Runner() as runner, ExitStack() as stack:
        backend = Netns()
        if reason := runner.run(backend.probe()):
            raise SystemExit(reason)
        stack.callback(lambda: runner.run(backend.close()))
        peers: dict[str, Peer] = {}
        found: dict[str, Callable[[], Peer]] = {"Mininet": lambda: mininet(stack), "Compose": compose}
        for name, find in found.items():
            try:
                peers[name] = find()
            except Missing as exc:
                print(f"left out: {exc}", flush=True)

        def ours(count: int) -> Ours:
            return runner.run(netns(backend, count))

        def theirs(peer: Peer, count: int) -> tuple[float, float]:
            time.sleep(SETTLED)
            return peer(count)

        for count, times in ALONE.items():
            _alone(count, [ours(count) for _ in range(times)])
            for name, peer in peers.items():
                if pairs := OFTEN[name].get(count):
                    _beside(name, [(ours(count), theirs(peer, count)) for _ in range(pairs)])


def _alone(count: int, measured: Sequence[Ours]) -> None:
    made, ready, gone = zip(*measured, strict=True)
    row(f"netns, hosts: {count}", spread(made), "–")
    row("  with their agents ready to act", spread(ready), "–")
    row("  a host of them, with its agent", f"{statistics.median(ready) / count * 1e3:.2f} ms", "≤ 10 ms")
    row("  gone again", spread(gone), "–")


def _beside(name: str, pairs: Sequence[tuple[Ours, tuple[float, float]]]) -> None:
    made, ready, gone = zip(*(ours for ours, _ in pairs), strict=True)
    up, down = zip(*(theirs for _, theirs in pairs), strict=True)
    row(f"  {name}, as many", f"{spread(up, 1, 's')}, gone {statistics.median(down):.1f} s", "–")
    row(f"  netns beside {name}", ratio(made, up), GOALS[name])
    row("    with agents; gone again", f"{ratio(ready, up)}; {ratio(gone, down)}", "–")

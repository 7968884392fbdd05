"""The gate and the capture under a stream of 20,000 datagrams a second: lateness, losses of their own, the time to set a fault.

Each packet carries the time at which it was sent; without a fault it is measured, too, so that what the machine adds is seen.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from typing import Any

from bench.figures import row
from socklab import faults
from socklab.backends import Network, Node
from socklab.backends.netns import Netns
from socklab.capture import Capture
from socklab.links import Links

RATE, SECONDS, CHANGES = 20_000, 3, 50
LINK = ("here", "there")
SEND = """
import socket, sys, time
there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
there.connect((sys.argv[1], 9))
rate, packets, sent, began = int(sys.argv[2]), int(sys.argv[3]), 0, time.perf_counter()
while sent < packets:
    due = min(int((time.perf_counter() - began) * rate) + 1, packets)
    while sent < due:
        there.send(b"%020d" % time.monotonic_ns())
        sent += 1
    time.sleep(0.0005)
"""
RECEIVE = """
import socket, time
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)
here.bind(("0.0.0.0", 9))
print("ready", flush=True)
here.settimeout(1.5)
waits = []
try:
    while True:
        data = here.recv(100)
        waits.append(time.monotonic_ns() - int(data))
except TimeoutError:
    waits.sort()
    print(len(waits), waits[len(waits) // 2], waits[int(len(waits) * 0.99)], flush=True)
"""


async def measure(
    put: faults.Faults, captured: bool = False
) -> tuple[list[int], dict[str, Any], list[float], int]:
    """What came (how many, median and p99 on the way in ns), what the gate counted, seconds to set and to heal, packets
    that the capture missed."""
    backend = Netns()
    if reason := await backend.probe():
        raise SystemExit(reason)
    nodes = [Node(name, ("lab",)) for name in LINK]
    lab = await backend.lab([Network("lab")], nodes)
    links = Links(lab, nodes, {name: name for name in LINK}, 1, lambda _: None)
    capture = Capture(lambda _: None, None)
    times = []
    try:
        await links.prepare([(LINK, "delay", {})])
        for number in range(2 * CHANGES):
            began = time.perf_counter()
            await links.change(lambda _, n=number: {} if n % 2 else {LINK: put})  # type: ignore[misc]
            times.append(time.perf_counter() - began)
        if put:
            await links.change(lambda _: {LINK: put})
        if captured:
            await capture.begin(lab, [lab.address(name) for name in LINK], [])
        said: list[str] = []
        spoke = asyncio.Event()

        def heard(_: str, line: bytes, __: int) -> None:
            said.append(line.decode())
            spoke.set()

        environment = {"PATH": "/usr/bin:/bin"}
        receiver = await lab.spawn(
            "there",
            [sys.executable, "-c", RECEIVE],
            env=environment,
            cwd="/",
            on_line=heard,
        )
        await spoke.wait()
        argv = [sys.executable, "-c", SEND, lab.address("there"), str(RATE), str(RATE * SECONDS)]
        sender = await lab.spawn("here", argv, env=environment, cwd="/")
        await sender.exited
        await receiver.exited
        missed = await capture.finish()
        return [int(word) for word in said[1].split()], await links.counts(), times, missed
    finally:
        capture.close()
        links.close()
        await lab.stop()
        await backend.close()


def main() -> None:
    packets = RATE * SECONDS
    (came, median, late), _, _, _ = asyncio.run(measure({}))
    row(f"{RATE} datagrams/s, gate off: on the way", f"{median / 1e6:.3f} ms, p99 {late / 1e6:.3f}", "–")
    (came, median, late), _, times, _ = asyncio.run(measure({"delay": {"is": 0.02}}))
    lost = packets - came
    row("  held for 20 ms: on the way", f"{median / 1e6:.2f} ms, p99 {late / 1e6:.2f}", "p99 ≤ 21 ms")
    row("  lost by the gate itself", f"{lost} of {packets}", "0")
    row(
        "  setting or healing a fault",
        f"{statistics.median(times) * 1e3:.2f} ms (max {max(times) * 1e3:.1f})",
        "≤ 10 ms",
    )
    (came, _, _), counts, _, _ = asyncio.run(measure({"loss": {"is": 0.1}}))
    share = counts["here→there"]["dropped"] / counts["here→there"]["seen"]
    row("  loss of 10 %: lost, and by the gate's count", f"{1 - came / packets:.2%}, {share:.2%}", "equal")
    (came, median, late), _, _, missed = asyncio.run(measure({}, captured=True))
    row("  captured: missed by the capture", f"{missed} of {packets}", "0")
    row("  captured: on the way", f"{median / 1e6:.3f} ms, p99 {late / 1e6:.3f}", "–")

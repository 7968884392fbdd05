"""How long a node takes to come up: its namespace, interface, address and agent. `python -m bench nodes`.

The kernel part is a lab of so many nodes less a lab of one, without agents; the whole node has its agent's first word heard.
"""

from __future__ import annotations

import asyncio
import statistics
import time

from socklab.backends import Network, Node
from socklab.backends.netns import Netns

RUNS = 5
COUNTS = (1, 4, 10, 50)


async def measure() -> list[tuple[int, float, float]]:
    """(nodes, seconds a node for the kernel part, seconds a node with its agent), medians of some runs."""
    backend = Netns()
    if reason := await backend.probe():
        raise SystemExit(reason)
    rows = []
    loop = asyncio.get_running_loop()
    try:
        for count in COUNTS:
            bare, whole = [], []
            for _ in range(RUNS):
                nodes = [Node(f"n{i}", ("lab",)) for i in range(count)]
                began = time.perf_counter()
                lab = await backend.lab([Network("lab")], nodes)
                made = time.perf_counter()
                for node in nodes:
                    stream = await lab.inside(node.name, "agent")
                    stream.setblocking(False)
                    await loop.sock_recv(stream, 4096)  # its hello
                    stream.close()
                ready = time.perf_counter()
                await lab.stop()
                bare.append((made - began) / count)
                whole.append((ready - began) / count)
            rows.append((count, statistics.median(bare), statistics.median(whole)))
    finally:
        await backend.close()
    return rows


def main() -> None:
    for count, bare, whole in asyncio.run(measure()):
        print(
            f"netns, {count:>2} nodes at once, a node: kernel part {bare * 1e3:5.2f} ms, with its agent {whole * 1e3:5.2f} ms   goal ≤ 5 and ≤ 10 ms",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""The capture on real nodes: as many packets as their own interfaces count."""

from __future__ import annotations

import asyncio
import struct
import sys
from pathlib import Path

import pytest

from socklab.backends import Backend, Lab, Network, Node
from socklab.backends.docker import Docker
from socklab.backends.netns import Netns
from socklab.capture import Capture
from tests.docker_engine import need_engine

FLOOD = """
import socket, sys
there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(3000):
    there.sendto(b"%d" % number, (sys.argv[1], 9))
"""


async def sent(lab: Lab, node: str) -> int:
    """What the interface of a node has sent so far, by its own count (proc(5), net/dev)."""
    table = (await lab.run(node, ["cat", "/proc/net/dev"])).stdout
    (line,) = (line for line in table.splitlines() if line.strip().startswith("eth0:"))
    return int(line.partition(":")[2].split()[9])


def packets(path: Path) -> dict[str, int]:
    """How many there are of each interface in a pcapng file, by its blocks."""
    data, at = path.read_bytes(), 0
    names: list[str] = []
    found: dict[str, int] = {}
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        assert struct.unpack_from("<I", data, at + length - 4)[0] == length
        if kind == 1:
            (size,) = struct.unpack_from("<H", data, at + 18)
            names.append(data[at + 20 : at + 20 + size].decode())
        elif kind == 6:
            name = names[struct.unpack_from("<I", data, at + 8)[0]]
            found[name] = found.get(name, 0) + 1
        at += length
    return found


@pytest.mark.parametrize("kind", [Netns, Docker], ids=["netns", "docker"])
def test_the_capture_has_as_many_packets_as_the_interfaces_have_sent(
    kind: type[Netns] | type[Docker], tmp_path: Path
) -> None:
    if kind is Docker:
        need_engine()

    async def whole() -> tuple[dict[str, int], dict[str, int], int]:
        backend: Backend = kind()
        try:
            if reason := await backend.probe():
                pytest.skip(reason)
            nodes = [Node("here", ("lab",)), Node("there", ("lab",))]
            lab = await backend.lab([Network("lab")], nodes)
            capture = Capture(lambda _: None, tmp_path)
            await capture.begin(lab, [lab.address(node.name) for node in nodes], [])
            before = {node.name: await sent(lab, node.name) for node in nodes}
            python = "python3" if kind is Docker else sys.executable
            done = await lab.run("here", [python, "-c", FLOOD, lab.address("there")])
            assert done.status == 0, done.stderr
            after = {node.name: await sent(lab, node.name) for node in nodes}
            missed = await capture.finish()
            capture.write(tmp_path / "capture.pcapng", [], {})
            capture.close()
            await lab.stop()
            return packets(tmp_path / "capture.pcapng"), {n: after[n] - before[n] for n in after}, missed
        finally:
            await backend.close()

    captured, counted, missed = asyncio.run(whole())

    assert missed == 0
    assert counted["here"] >= 3000
    # What the kernel sent of its own before and after the two looks at the counters is in the capture, too.
    assert {name: abs(captured[f"{name} eth0"] - count) < 10 for name, count in counted.items()} == {
        "here": True,
        "there": True,
    }

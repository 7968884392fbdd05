"""The gate on real links: every fault and every pair of faults, held against the packets counted at both ends."""

from __future__ import annotations

import asyncio
import sys

import pytest

from socklab import faults
from socklab.backends import Backend, LabError, Network, Node
from socklab.backends.docker import Docker
from socklab.backends.netns import Netns
from socklab.links import Links
from socklab.measure import Measured, cases, measure
from tests.docker_engine import need_engine


def measured(backend_class: type[Netns] | type[Docker]) -> list[tuple[faults.Faults, Measured]]:
    async def whole() -> list[tuple[faults.Faults, Measured]]:
        backend: Backend = backend_class()
        try:
            if reason := await backend.probe():
                pytest.skip(reason)
            asked = cases()
            return list(zip(asked, await measure(backend, asked), strict=True))
        finally:
            await backend.close()

    return asyncio.run(whole())


def test_when_the_gate_dies_packets_pass_and_it_is_told() -> None:
    """By the queue's bypass; and nobody takes the play for one with faults."""

    async def whole() -> tuple[str, str]:
        backend = Netns()
        if reason := await backend.probe():
            await backend.close()
            pytest.skip(reason)
        nodes = [Node("here", ("lab",)), Node("there", ("lab",))]
        lab = await backend.lab([Network("lab")], nodes)
        links = Links(lab, nodes, {"here": "here", "there": "there"}, 1, lambda _: None)
        try:
            await links.change(lambda now: faults.put(now, [("here", "there")], "delay", {"is": 1000}))
            pid = (await links._gates["there"].ask("probe"))["pid"]
            done = await lab.run(
                "there", ["sh", "-c", f"kill -9 {pid}; while [ -e /proc/{pid}/net ]; do :; done"]
            )
            assert done.status == 0, done.stderr
            dial = f"import socket; socket.create_connection(({lab.address('there')!r}, 9), timeout=8)"
            dialled = await lab.run("here", [sys.executable, "-c", dial])
            with pytest.raises(LabError) as died:
                await links.counts()
            return dialled.stderr.splitlines()[-1], str(died.value)
        finally:
            links.close()
            await backend.close()

    dialled, told = asyncio.run(whole())

    assert dialled.startswith("ConnectionRefusedError")
    assert told == "the gate on there ended; was it killed?"


def wrong(results: list[tuple[faults.Faults, Measured]]) -> list[str]:
    return [f"{result}: {'; '.join(found)}" for put, result in results if (found := result.wrong(put))]


@pytest.mark.timeout(300)
def test_every_fault_and_every_pair_is_as_asked_on_netns() -> None:
    assert wrong(measured(Netns)) == []


@pytest.mark.timeout(300)
def test_every_fault_and_every_pair_is_as_asked_on_docker() -> None:
    need_engine()
    assert wrong(measured(Docker)) == []

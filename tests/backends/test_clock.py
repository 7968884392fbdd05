"""Clocks of other machines: the error that is stated holds, for every way a message may take and every drift within the bound."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socklab.agents import Agent
from socklab.backends.clock import DRIFT, Clock
from socklab.backends.joined import Joined

ROOT = Path(__file__).resolve().parent.parent.parent
DAY = 86_400 * 10**9
AHEAD = 1_000_000  # seconds, of a clock in a namespace of its own (time_namespaces(7))

way = st.integers(1_000, 50_000_000)
rounds = st.lists(
    st.tuples(st.integers(0, 5 * 10**9), way, way, st.integers(0, 10**6)), min_size=1, max_size=30
)


@given(ahead=st.integers(-DAY, DAY), drift=st.floats(-DRIFT, DRIFT), trips=rounds)
def test_what_is_stated_holds(ahead: int, drift: float, trips: list[tuple[int, int, int, int]]) -> None:
    """Whatever the ways there and back take, and however often is asked."""
    clock, now = Clock(), 0

    def theirs(t: int) -> int:
        return t + ahead + round(drift * t)

    for pause, there, back, work in trips:
        asked = now + pause
        said = theirs(asked + there)
        now = asked + there + work + back
        clock.heard(asked, said, now)
        for t in (now, now + 10**9):
            assert abs(clock.here(theirs(t)) - t) <= clock.error(t) + 1

    assert clock.steps == 0
    assert (
        clock.error(now)
        <= min(there + back + work for _, there, back, work in trips) // 2 + 2 * DRIFT * now + 99
    )


def test_a_clock_that_is_set_is_believed_again() -> None:
    """What was known of it holds no more: the next round trip alone counts."""
    clock = Clock()
    for second in range(5):
        t = second * 10**9
        clock.heard(t, t + 1_000_050, t + 100)
    for second in range(5, 8):
        t = second * 10**9
        clock.heard(t, t + 9_000_050, t + 100)

    assert clock.steps == 1
    assert abs(clock.ahead - 9_000_000) <= clock.error(7 * 10**9) < 200_000


def test_packets_are_told_in_our_time() -> None:
    """Their times are those since 1970, which are apart as well, and not by as much."""
    clock = Clock()
    clock.heard(1_000, 5_001_000, 1_000)  # 5 ms ahead, exactly
    monotonic, wall = time.monotonic_ns(), time.time_ns()
    theirs = {"t": monotonic + 5_000_000, "wall": wall - 3_000_000, "event": "packets", "data": "…"}

    told = json.loads(clock.translated(json.dumps(theirs).encode()))

    assert told["t"] == monotonic
    assert (
        abs(told["apart"] - 3_000_000) < 100_000_000
    )  # that we were not on the processor between two clocks
    assert clock.translated(b'{"id":1}') == b'{"id":1}'


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a time namespace")
@pytest.mark.skipif(not Path("/proc/self/ns/time").exists(), reason="this kernel has no time namespaces")
def test_an_agent_on_a_machine_with_another_clock(tmp_path: Path) -> None:
    """It joins by the secret that both were given, and its events come at our time, within the error that is stated."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    secret = tmp_path / "secret"
    secret.write_text("for the tests\n")
    clock = ("unshare", "--time", f"--monotonic={AHEAD}", "--kill-child")
    joins = ("--join", f"127.0.0.1:{port}", "--secret", str(secret), "--networks", "lab")
    node = subprocess.Popen(
        [*clock, sys.executable, "socklab/backends/node.py", "clients/agent.py", *joins],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    try:
        asyncio.run(tell_moments(Joined(port=port, secret="for the tests", wanted={"lab": 1})))
    finally:
        node.kill()
        node.wait()


async def tell_moments(backend: Joined) -> None:
    try:
        async with asyncio.timeout(30):
            assert await backend.probe() is None
            (joined,) = backend._here
            clock = joined.remote.clock
            assert clock is not None
            for _ in range(16):
                await joined.remote.compare_clocks()
            agent = Agent("alice", await joined.remote.inside("agent"), lambda _: None)
            before = time.monotonic_ns()
            reply = await agent.ask("status")
            after = time.monotonic_ns()
            agent.close()
    finally:
        await backend.close()

    error = clock.error(after)
    assert abs(clock.ahead - AHEAD * 10**9) <= error
    assert before - error <= reply["t"] <= after + error

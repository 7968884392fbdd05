"""Link faults as a scenario sets them: at once, one within another, and undone exactly."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from socklab import conductor, topology
from socklab.backends.netns import Netns
from socklab.scenario import plays
from socklab.source import Source
from socklab.verdict import Result, Verdict

ROOT = Path(__file__).resolve().parent.parent.parent
HEAD = "title: t\nservice: udp-echo\nclients: [alice, bob, carol]\nsteps:\n"


def play(steps: str) -> Result:
    async def whole() -> Result:
        backend = Netns()
        try:
            if reason := await backend.probe():
                pytest.skip(reason)
            (scenario,) = plays(Source.parse(HEAD + steps, Path("test.scenario.yaml")))
            return await conductor.play(scenario, topology.read(ROOT / "docker-compose.yml"), backend)
        finally:
            await backend.close()

    return asyncio.run(whole())


def test_what_was_cut_before_a_during_stays_cut_after_it() -> None:
    result = play(
        "  - cut: {from: alice, to: server}\n"
        "  - isolate: alice\n    during: [{send: {bob: hi}}, {expect: {bob: hi}}]\n"
        "  - send: {alice: lost}\n  - quiet: {alice: 100ms}\n"
    )

    assert result.verdict is Verdict.PASS, result.reason


def test_what_is_healed_within_a_during_stays_healed() -> None:
    result = play(
        "  - isolate: alice\n    during: [{heal: all}, {send: {alice: hi}}, {expect: {alice: hi}}]\n  - send: {alice: ho}\n  - expect: {alice: ho}\n"
    )

    assert result.verdict is Verdict.PASS, result.reason


def test_faults_set_at_once_are_all_in_force() -> None:
    """Three rule sets for one node at the same moment: none may be lost behind an older one."""
    for _ in range(5):
        result = play(
            "  - together:\n"
            "      - cut: {from: alice, to: server}\n"
            "      - cut: {from: bob, to: server}\n"
            "      - cut: {from: carol, to: server}\n"
            "  - send: {everyone: lost}\n  - quiet: {alice: 50ms, bob: 50ms, carol: 50ms}\n"
        )

        assert result.verdict is Verdict.PASS, result.reason

"""A crowd: thousands of clients in one program, as one actor of a scenario."""

from __future__ import annotations

import pytest

from socklab import judge
from socklab.source import ScenarioError
from socklab.topology import TopologyError
from socklab.verdict import Verdict
from tests.conductor.lab import play

CROWD = "[{crowd: {of: 50}}, alice]"


def test_everyone_in_a_crowd_hears_every_line() -> None:
    result = play(
        "  - connect: crowd\n  - load: {crowd: {senders: 5, rate: 500, lasts: 200ms}}\n  - close: crowd\n",
        "chat-eventloop",
        CROWD,
    )

    assert result.verdict is Verdict.PASS, result.reason
    (load,) = (event.data for event in result.events if event.kind == "load")
    assert load["heard"] == load["said"] * 45
    assert set(load["latency"]) == {"p50", "p99", "p99.9", "max"}
    assert judge.again(result.events) == (Verdict.PASS, 0, "")


def test_a_crowd_that_cannot_hear_fails_at_its_load() -> None:
    """Cut off, nobody hears the first line of anybody; the history alone says the same again."""
    result = play(
        "  - connect: crowd\n"
        "  - cut: {from: server, to: crowd}\n"
        "  - load: {crowd: {senders: 5, lasts: 200ms}}\n    within: 1500ms\n",
        "chat-eventloop",
        CROWD,
    )

    assert result.verdict is Verdict.FAIL
    assert result.failure is not None
    assert "45 of 45 receivers did not hear" in result.failure.got
    assert judge.again(result.events)[0] is Verdict.FAIL


def test_those_whom_the_server_dropped_are_missed_by_the_next_load() -> None:
    result = play(
        "  - connect: crowd\n  - restart: server\n  - load: {crowd: {lasts: 200ms}}\n    within: 1500ms\n",
        "eventloop",
        CROWD,
    )

    assert result.verdict is Verdict.FAIL
    assert "50 clients: " in result.reason


def test_datagrams_reach_a_registered_crowd() -> None:
    result = play("  - connect: crowd\n  - load: {crowd: {rate: 50, lasts: 200ms}}\n", "udp-registry", CROWD)

    assert result.verdict is Verdict.PASS, result.reason
    (load,) = (event.data for event in result.events if event.kind == "load")
    assert load["heard"] == load["said"] * 49


def test_a_crowd_that_is_refused_says_how_many_are_connected() -> None:
    result = play("  - stop: server\n  - connect: crowd\n", "eventloop", CROWD)

    assert result.verdict is Verdict.FAIL
    assert "0 connected; 32 refused" in result.reason


@pytest.mark.parametrize(
    ("service", "steps", "says"),
    [
        ("udp-echo", "  - load: crowd\n", "load: crowd is not connected"),
        ("eventloop", "  - connect: crowd\n  - load: {crowd: {senders: 5}}\n", ":6: senders are of a chat"),
        ("chat", "  - connect: crowd\n  - load: {crowd: {in-flight: 5}}\n", ":6: in-flight is of an echo"),
        (
            "chat",
            "  - connect: [crowd, mob]\n  - load: {crowd: {}, mob: {}}\n",
            ":6: crowd and mob would hear",
        ),
        (
            "chat",
            "  - connect: [crowd, mob]\n  - together:\n    - load: crowd\n    - load: mob\n",
            ":6: crowd and mob would hear",
        ),
        (
            "chat",
            "  - connect: crowd\n  - sockets: {server: {crowd: ESTABLISHED}}\n",
            "crowd is 50 clients as one",
        ),
    ],
)
def test_a_load_that_this_server_cannot_have_is_said_before_anything_starts(
    service: str, steps: str, says: str
) -> None:
    with pytest.raises((ScenarioError, TopologyError), match=says):
        play(steps, service, "[{crowd: {of: 50}}, {mob: {of: 50}}]")

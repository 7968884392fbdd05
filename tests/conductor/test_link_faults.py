"""Link faults as a scenario sets them: at once, one within another, and undone exactly."""

from __future__ import annotations

from typing import Any

import pytest

from socklab.conductor import Options
from socklab.history import Event
from socklab.judge import again
from socklab.verdict import Result, Verdict
from tests.conductor.lab import play


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


def events(result: Result, kind: str) -> list[Event]:
    return [event for event in result.events if event.kind == kind]


def counted(result: Result) -> dict[str, Any]:
    """What the gates counted at the end, by link."""
    (event,) = events(result, "counted")
    return dict(event.data["links"])


def test_one_fault_leaves_another_on_the_same_link() -> None:
    """A delay is set, a loss beside it, and only the loss is undone."""
    result = play(
        "  - delay: {from: alice, to: server, is: 80ms}\n"
        "  - loss: {from: alice, to: server, is: 100%}\n"
        "    during: [{send: {alice: lost}}, {quiet: {alice: 120ms}}]\n"
        "  - send: {alice: late}\n  - quiet: {alice: 40ms}\n  - expect: {alice: late}\n"
    )

    assert result.verdict is Verdict.PASS, result.reason
    assert counted(result)["alice→server"]["dropped"] == 1
    assert counted(result)["alice→server"]["delayed"] == 1


def test_the_end_of_a_worse_fault_gives_back_the_milder_one() -> None:
    result = play(
        "  - delay: {from: alice, to: server, is: 60ms}\n"
        "  - delay: {from: alice, to: server, is: 500ms}\n    during: [{note: worse}]\n"
        "  - send: {alice: hi}\n  - quiet: {alice: 30ms}\n  - expect: {alice: hi}\n    within: 300ms\n"
    )

    assert result.verdict is Verdict.PASS, result.reason


def test_a_fault_for_a_time_ends_by_itself() -> None:
    """And the steps go on meanwhile."""
    result = play(
        "  - cut: {from: alice, to: server}\n    for: 200ms\n"
        "  - send: {alice: lost}\n  - quiet: {alice: 100ms}\n"
        "  - wait: 150ms\n    note: until the cut is over\n"
        "  - send: {alice: back}\n  - expect: {alice: back}\n"
    )

    assert result.verdict is Verdict.PASS, result.reason
    assert [dict(e.data["links"]) for e in events(result, "fault")] == [{"alice→server": "cut"}, {}]


def test_what_is_healed_does_not_end_twice() -> None:
    """A fault that was to last longer, and another that was put since, on the same link."""
    result = play(
        "  - cut: {from: alice, to: server}\n    for: 100ms\n"
        "  - heal: all\n"
        "  - loss: {from: alice, to: server, is: 100%}\n"
        "  - wait: 150ms\n    note: until the cut would have ended\n"
        "  - send: {alice: lost}\n  - quiet: {alice: 50ms}\n"
    )

    assert result.verdict is Verdict.PASS, result.reason


def test_a_play_does_not_wait_for_faults_that_last_longer() -> None:
    result = play("  - cut: {from: alice, to: server}\n    for: 1000s\n  - note: the end\n")

    assert result.verdict is Verdict.PASS, result.reason
    assert result.seconds < 20


def test_what_is_under_way_when_a_link_is_healed_or_cut_still_arrives() -> None:
    """It has left, and has its fate."""
    result = play(
        "  - delay: {from: alice, to: server, is: 200ms}\n"
        "  - send: {alice: one}\n  - heal: all\n  - expect: {alice: one}\n"
        "  - delay: {from: alice, to: server, is: 200ms}\n"
        "  - send: {alice: two}\n  - cut: {from: alice, to: server}\n  - expect: {alice: two}\n"
    )

    assert result.verdict is Verdict.PASS, result.reason


def test_the_history_tells_the_fate_of_each_packet() -> None:
    """Who sent it, what became of it, by which fault, and what it was."""
    result = play(
        "  - drop: {from: alice, to: server, nth: 2}\n"
        "  - send: {alice: [one, two]}\n  - expect: {alice: one}\n"
        "  - cut: {from: server, to: bob}\n"
        "  - send: {bob: three}\n  - quiet: {bob: 50ms}\n"
    )

    assert result.verdict is Verdict.PASS, result.reason
    fates = [
        (e.data["from"], e.data["to"], e.data["fate"], e.data["by"], e.data["what"])
        for e in events(result, "packet")
    ]
    assert fates == [
        ("alice", "server", "dropped", "drop", 'UDP 3 bytes "two"'),
        ("server", "bob", "dropped", "cut", 'UDP 5 bytes "three"'),
    ]
    assert counted(result)["server→bob"] == {"asked": "cut", "seen": 1, "dropped": 1}


def test_the_same_seed_has_the_same_fates() -> None:
    """And another one has others."""
    steps = (
        "  - loss: {from: alice, to: server, is: 50%}\n"
        '  - send: {alice: {text: "n{n}", lines: 40}}\n  - quiet: {bob: 50ms}\n'
    )

    def lost(seed: int) -> list[int]:
        return [e.data["ordinal"] for e in events(play(steps, options=Options(seed=seed)), "packet")]

    assert lost(1) == lost(1) != lost(2)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("  - loss: {from: alice, to: dave, is: 5%}\n", "there is no link from alice to dave: they have no network in common"),
        ("  - cut: {between: [alice, dave]}\n", "they have no network in common"),
    ],
)  # fmt: skip
def test_a_link_between_hosts_without_a_common_network_is_refused(steps: str, said: str) -> None:
    """Before anything starts, with the line."""
    with pytest.raises(Exception, match=said) as refused:
        play(steps, clients="[alice, {dave: {network: far}}]")
    assert "test.scenario.yaml:5: " in str(refused.value)


def test_a_socket_is_waited_for_and_told() -> None:
    """A failure says what the kernel said instead; judged again it is the same."""
    steps = "  - connect: alice\n  - sockets: {server: {alice: ESTABLISHED, bob: gone}}\n"
    right = play(steps, service="threaded")
    wrong = play(
        steps + "  - sockets: {server: {alice: CLOSE_WAIT}}\n    within: 100ms\n", service="threaded"
    )

    assert right.verdict is Verdict.PASS, right.reason
    assert wrong.verdict is Verdict.FAIL
    assert wrong.failure is not None
    assert wrong.failure.expected == "server: its socket to alice CLOSE_WAIT, within 0.1s"
    assert wrong.failure.got == "server: ESTABLISHED"
    assert again(right.events)[0] is Verdict.PASS
    assert again(wrong.events)[0] is Verdict.FAIL


def test_what_did_not_pass_on_the_wire_is_told_with_what_did() -> None:
    steps = (
        "  - connect: alice\n  - expect: {wire: {from: server, to: alice, flags: RST}}\n    within: 100ms\n"
    )
    result = play(steps, service="threaded")

    assert result.verdict is Verdict.FAIL
    assert result.failure is not None
    assert "alice→server SYN, server→alice SYN-ACK" in result.failure.got
    assert again(result.events)[0] is Verdict.FAIL

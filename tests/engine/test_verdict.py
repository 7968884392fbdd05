"""What a play comes to, and what its reader is told."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from socklab.history import Event
from socklab.verdict import Failure, Reception, Verdict, exit_code, server_log

PASS, FAIL, ERROR, SKIP = Verdict.PASS, Verdict.FAIL, Verdict.ERROR, Verdict.SKIP


def told(*events: tuple[str, str, dict[str, Any]]) -> list[Event]:
    """Events of (node, kind, data), a nanosecond apart."""
    return [Event(t, kind, node, data) for t, (node, kind, data) in enumerate(events, 1)]


@pytest.mark.parametrize(
    ("verdicts", "invalid", "code"),
    [
        ([PASS, PASS], False, 0),
        ([PASS, SKIP], False, 0),
        ([PASS, FAIL, SKIP], False, 1),
        ([PASS], True, 2),
        ([FAIL, ERROR], True, 2),
        ([], True, 2),
        ([FAIL, ERROR, PASS], False, 3),
        ([SKIP, SKIP], False, 3),
        ([], False, 3),
    ],
)
def test_the_exit_code_says_who_is_at_fault(verdicts: list[Verdict], invalid: bool, code: int) -> None:
    """0 all passed, 1 a server, 2 the scenario, 3 the lab, or nothing was played."""
    assert exit_code(verdicts, invalid=invalid) == code


def test_a_skip_beside_passes_changes_nothing_and_two_goes_before_three_before_one() -> None:
    """For every mixture."""
    for mixture in itertools.chain.from_iterable(
        itertools.combinations([PASS, FAIL, ERROR], k) for k in (1, 2, 3)
    ):
        code = 3 if ERROR in mixture else 1 if FAIL in mixture else 0
        assert exit_code(mixture) == exit_code([*mixture, SKIP]) == code
        assert exit_code(mixture, invalid=True) == 2


def test_a_failure_is_told_in_five_lines() -> None:
    """The step, what was expected, what came, what the server logged, the likely cause where one is known."""
    failure = Failure("a.yaml:7", "expect: {bob: hello}", "bob: hello", "bob: nothing", "(it logged nothing)")
    assert failure.lines() == [
        "a.yaml:7: expect: {bob: hello}",
        "expected  bob: hello",
        "got       bob: nothing",
        "server    (it logged nothing)",
    ]
    with_cause = Failure(
        failure.where, failure.step, failure.expected, failure.got, failure.server, "it blocks"
    )
    assert with_cause.lines() == [*failure.lines(), "cause     it blocks"]


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], "nothing"),
        ([("bob", "received", {"text": "hello\n"})], '"hello\\n"'),
        ([("bob", "eof", {})], "nothing, then eof"),
        ([("bob", "received", {"base64": "/w=="}), ("bob", "reset", {})], '"\\xff" reset'),
        ([("bob", "error", {"error": "refused"})], "nothing, then error: refused"),
        ([("bob", "received", {"text": str(i)}) for i in range(7)], '… 3 more, then "3" "4" "5" "6"'),
        ([("bob", "received", {"text": "old"}), ("bob", "connected", {}), ("bob", "received", {"text": "new"})], '"new"'),
        ([("bob", "received", {"text": "\x1b[2J"})], '"\\x1b[2J"'),
    ],
)  # fmt: skip
def test_what_a_client_received_instead(events: list[tuple[str, str, dict[str, Any]]], said: str) -> None:
    """The last chunks of its present connection, and how that ended."""
    got = Reception()
    for event in told(*events):
        got.feed(event)
    assert str(got) == said


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], "(it logged nothing)"),
        ([("server", "log", {"text": "ready"}), ("server", "log", {"text": " "})], "ready"),
        ([("server", "log", {"text": str(i)}) for i in range(5)], "2 | 3 | 4"),
        ([("server", "exited", {"status": 1})], "(it logged nothing) [ended with status 1]"),
        ([("server", "log", {"text": "oh"}), ("server", "exited", {"status": -9})], "oh [ended by signal 9]"),
        ([("server", "exited", {"status": -9}), ("server", "spawned", {})], "(it logged nothing)"),
        ([("server", "log", {"text": "\udcff\x1b[2J"})], "\\xff\\x1b[2J"),
    ],
)
def test_what_the_server_had_logged(events: list[tuple[str, str, dict[str, Any]]], said: str) -> None:
    """Its last lines, and how it ended, unless it was started again since."""
    assert server_log(told(*events)) == said
